#!/bin/sh
# The operators as a table, read from their files (autograd/ops.def names them): name, formula (first line of the
# file), what backward reads (the inputs, the output or the statistic that `.saves` claims), lines of the file.
set -eu
cd "$(dirname "$0")/.."
printf '%-11s %-26s %5s  %s\n' op 'backward reads' lines formula
sed -n 's/^OPDEF(\([a-z_0-9]*\)).*/\1/p' autograd/ops.def | while read -r op; do
    awk -v op="$op" '
    NR == 1 { formula = $0; sub(/^.*\.c: */, "", formula); sub(/(      .*| *\*\/)$/, "", formula) }
    match($0, /\.saves *= *[^,}]*/) {
        saves = substr($0, RSTART, RLENGTH)
        sub(/^.*= */, "", saves); gsub(/SAVE_/, "", saves); gsub(/ *\| */, " ", saves); gsub(/IN\(/, "in(", saves)
    }
    END { printf "%-11s %-26s %5d  %s\n", op, saves == "" || saves == "0" ? "-" : tolower(saves), NR, formula }' "autograd/op_$op.c"
done
