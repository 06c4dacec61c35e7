# scripts/experiments.awk: rows of arms.jsonl and the claims in a config's comments -> a section of docs/results.md.
#   awk -v id=e8 -v date=YYYY-MM-DD -f experiments.awk CONFIG arms.jsonl...
# Claims: `# less: A B FLOOR` nll(B) - nll(A); `# tie: A B LIMIT` the same, expected inside +-LIMIT; `# times: A B C FLOOR`
# (A-C)/(B-C); `# recovered: A B C FLOOR` 1 - (A-C)/(B-C). Effects are in nats a token, paired by file and seed; the interval
# is t at 95 %. Pass: right sign in every pair, interval clear of 0 (less), mean at least the floor.
function get(line, key,   p) {
    if (!match(line, "\"" key "\": ")) return ""
    line = substr(line, RSTART + RLENGTH)
    if (substr(line, 1, 1) == "\"") { line = substr(line, 2); p = index(line, "\"") }
    else { match(line, /[,}]/); p = RSTART }
    return substr(line, 1, p - 1)
}
FNR == 1 { file++ }
file == 1 {
    if ($1 == "#" && $2 ~ /^(less|tie|times|recovered):$/) claim[++claims] = substr($0, 3)
    if ($1 == "#" && $2 == "Cut:") { cut = substr($0, 3); more = 1; next }
    if (more && /^#   /) cut = cut " " substr($0, 5); else more = 0
    if (NR == 1) title = substr($0, 3)
    next
}
{
    a = get($0, "arm"); p = file "/" get($0, "seed"); x = get($0, "nll")
    if (!(a in seen)) { seen[a] = 1; arm[++arms] = a }
    if (!(p in pair_of)) { pair_of[p] = 1; pair[++pairs] = p }
    if (x == "" || x == "null") next
    nll[a, p] = x + 0; n[a]++; sum[a] += x; steps[a] = get($0, "step"); params[a] = get($0, "parameters")
    tokens = get($0, "tokens"); seconds += get($0, "seconds")
}
function effect(kind, a, b, c, p,   d) {
    if (kind == "less:" || kind == "tie:") return nll[b, p] - nll[a, p]
    d = nll[b, p] - nll[c, p]
    if (d == 0) return 0
    d = (nll[a, p] - nll[c, p]) / d
    return kind == "times:" ? d : 1 - d
}
function line(text,   f, k, i, m, s, q, v, worst, half, floor, c, verdict, low) {
    split(text, f, " ")
    c = f[1] == "less:" || f[1] == "tie:" ? "" : f[4]
    floor = (c == "" ? f[4] : f[5]) + 0
    for (i = 1; i <= pairs; i++)
        if (((f[2], pair[i]) in nll) && ((f[3], pair[i]) in nll) && (c == "" || ((c, pair[i]) in nll))) {
            v = effect(f[1], f[2], f[3], c, pair[i]); k++; m += v; q += v * v
            if (k == 1 || v < worst) worst = v
        }
    if (!k) { printf "| %s | - | - | - | not run |\n", text; return }
    m /= k
    s = k > 1 ? sqrt((q - k * m * m > 0 ? q - k * m * m : 0) / (k - 1)) : 0
    half = k > 1 ? T[k - 1 > 9 ? 9 : k - 1] * s / sqrt(k) : 0
    low = k > 1 ? m - half : -1
    if (f[1] == "tie:") verdict = m < floor && m > -floor ? "tie, as expected" : "not a tie"
    else if (f[1] == "less:") verdict = worst > 0 && low > 0 && m >= floor ? "pass" : worst > 0 ? "sign only" : "fail"
    else verdict = m >= floor ? "pass" : "fail"
    if (k < 2) verdict = verdict " (one pair: no interval)"
    printf "| %s | %.4f | %s | %d | %s |\n", text, m, (k > 1 ? sprintf("%.4f to %.4f", m - half, m + half) : "-"), k, verdict
}
BEGIN { split("12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262", T, " ") }
END {
    printf "## %s\n\n", title
    printf "Measured %s by `make experiments E=%s`, `configs/experiments/%s.yaml`: ", date, id, id
    printf "%d arms, %d pairs, %d tokens evaluated each, %.0f s in all.%s\n", arms, pairs, tokens, seconds, (note == "" ? "" : " " note)
    if (cut != "") printf "%s\n", cut
    printf "\n| arm | steps | parameters | loss, nats a token | perplexity |\n|---|---:|---:|---:|---:|\n"
    for (i = 1; i <= arms; i++) {
        a = arm[i]
        if (n[a]) printf "| %s | %s | %s | %.4f | %.3f |\n", a, steps[a], params[a], sum[a] / n[a], exp(sum[a] / n[a])
    }
    printf "\n| claim | effect | 95 %% interval | pairs | verdict |\n|---|---:|---|---:|---|\n"
    for (i = 1; i <= claims; i++) line(claim[i])
    print ""
}
