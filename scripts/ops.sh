#!/bin/sh
# The operators as a table, read from the lists and from their files. For each line of autograd/ops.def: what backward
# reads (`.saves`), on which devices its kernels are (cpu: the reference; simd: how many of them also have AVX2 and
# AVX-512 forms, a library's GEMM counted; cuda: those in kernels/*.cu), tolerance of forward and gradient against
# PyTorch in float32, lines of the file, `.formula`.
set -eu
cd "$(dirname "$0")/.."
simd=" gemm_nt gemm_nn gemm_tn attention_fwd attention_bwd $(grep -o 'X([a-z_0-9]*)' kernels/simd_impl.h | tr -d 'X()' | tr '\n' ' ')"
cuda=" $(cat kernels/*.cu 2>/dev/null | grep -o '\b[a-z_0-9]*_cuda\b' | sed 's/_cuda$//' | sort -u | tr '\n' ' ')"
printf '%-14s %-18s %-14s %-10s %5s  %s\n' op 'backward reads' devices tolerance lines formula
sed -n 's/^OPDEF(\([a-z_0-9]*\), *\([^,]*\), *\(.*\))$/\1 \2 \3/p' autograd/ops.def | while read -r op out grad; do
    awk -v op="$op" -v tol="$out $grad" -v simd="$simd" -v cuda="$cuda" '
    match($0, /\.formula *= *"[^"]*/) { formula = substr($0, RSTART, RLENGTH); sub(/^[^"]*"/, "", formula) }
    match($0, /\.saves *= *[^,}]*/) {
        saves = substr($0, RSTART, RLENGTH)
        sub(/^.*= */, "", saves); gsub(/SAVE_/, "", saves); gsub(/ *\| */, " ", saves)
        gsub(/IN\(/, "in(", saves); gsub(/\) in\(/, ",", saves)
    }
    { for (rest = $0; match(rest, /k->[a-z_0-9]+\(/); rest = substr(rest, RSTART + RLENGTH)) {
          name = substr(rest, RSTART + 3, RLENGTH - 4)
          if (!seen[name]++) { n++; if (index(simd, " " name " ")) fast++; if (index(cuda, " " name " ")) gpu++ }
      } }
    END {
        if (saves ~ /^0x7fff/) saves = "all inputs"
        where = "cpu"
        if (fast) where = where (fast == n ? " simd" : " simd " fast "/" n)
        if (gpu) where = where (gpu == n ? " cuda" : " cuda " gpu "/" n)
        printf "%-14s %-18s %-14s %-10s %5d  %s\n", op, saves == "" || saves == "0" ? "-" : tolower(saves), where, tol, FNR, formula
    }' "autograd/op_$op.c"
done
