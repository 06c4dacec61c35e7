#!/bin/sh
# scripts/experiments.sh PARE [NAME...]: the experiments of configs/experiments, one after the other: a grid of learning rates
# on one seed where the config has a line `# grid: V1 V2 ...`, then all arms with all seeds, then the section of
# docs/results.md that is made from the rows. Runs lie in outputs/experiments/NAME. MORE="train.max_steps=5 ..." lays
# overrides over every run (a trial: rows go to outputs/trial and the page stays as it is).
set -eu
pare=$1
shift
trial=${MORE:-}
home=outputs/experiments
[ -z "$trial" ] || home=outputs/trial
[ $# -gt 0 ] || set -- e1 e6 e7 e8 e9 e10

said() { sed -n "s/^# $2: *//p" "$1"; }

# The learning rate with the least loss of each arm, as overrides of that arm.
tuned() {
    awk -v base="$1" '
        function get(line, key) {
            match(line, "\"" key "\": "); line = substr(line, RSTART + RLENGTH); sub(/^"/, "", line); sub(/["},].*/, "", line)
            return line
        }
        FNR == 1 { lr = FILENAME; sub(/.*grid-/, "", lr); sub(/\/.*/, "", lr) }
        { a = get($0, "arm"); x = get($0, "nll")
          if (x != "null" && x != "" && (!(a in best) || x + 0 < best[a])) { best[a] = x + 0; at[a] = lr } }
        END { print "include: [\"" base "\"]\narms:"; for (a in at) print "  " a ": {optim: {learning_rate: " at[a] "}}" }' \
        "$2"/grid-*/arms.jsonl
}

section() { # the part of docs/results.md between the marks of $1 becomes the text on stdin
    cat > "$home/$1/section.md"
    awk -v id="$1" -v part="$home/$1/section.md" '
        $0 == "<!-- " id " -->" { print; while ((getline l < part) > 0) print l; skip = 1; next }
        $0 == "<!-- end -->" { skip = 0 }
        !skip' docs/results.md > "$home/$1/results.md"
    cp "$home/$1/results.md" docs/results.md
}

for name; do
    cfg=configs/experiments/$name.yaml
    out=$home/$name
    run=$cfg
    mkdir -p "$out"
    rm -rf "$out"/grid-* "$out"/arms*
    for lr in $(said "$cfg" grid); do
        # shellcheck disable=SC2086
        "$pare" -q train --arms "$cfg" --overwrite "optim.learning_rate=$lr" "seeds=[0]" "run.output_dir=$out/grid-$lr" $trial >&2
    done
    if [ -n "$(said "$cfg" grid)" ]; then
        tuned "$PWD/$cfg" "$out" > "$out/tuned.yaml"
        run=$out/tuned.yaml
    fi
    pairs=$(said "$cfg" pairs)
    if [ -n "$pairs" ]; then # the same arms on several stretches of text
        i=0
        for split in $pairs; do
            # shellcheck disable=SC2086
            "$pare" -q train --arms "$run" --overwrite "data.val[0].split=$split" "run.output_dir=$out/arms-$i" $trial >&2
            i=$((i + 1))
        done
    else
        # shellcheck disable=SC2086
        "$pare" -q train --arms "$run" --overwrite "run.output_dir=$out/arms-0" $trial >&2
    fi
    awk -v id="$name" -v date="$(date -u +%Y-%m-%d)" -f scripts/experiments.awk "$cfg" "$out"/arms-*/arms.jsonl > "$out/table.md"
    if [ -n "$trial" ]; then cat "$out/table.md"; else section "$name" < "$out/table.md"; fi
done
