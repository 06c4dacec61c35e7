#!/bin/sh
# Runs every fuzz target of a build folder for some seconds:  scripts/fuzz.sh build/fuzz-clang 60
# The committed inputs of tests/fuzz/corpus/ are where it starts; what it finds stays in the build folder. An input
# that crashes, hangs (10 s) or takes over 512 MiB is left in BUILD/found/: make it a regression-* of the corpus.
set -eu
build=$1 seconds=${2:-60} bad=0
mkdir -p "$build/found"
for target in "$build"/fuzz_*; do
    name=${target##*/fuzz_}
    mkdir -p "$build/corpus/$name"
    if ASAN_OPTIONS=detect_leaks=1 "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512 \
        -max_len=65536 -print_final_stats=1 -artifact_prefix="$build/found/$name-" "$build/corpus/$name" \
        "tests/fuzz/corpus/$name" >"$build/$name.log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$name.log")
        echo "fuzz: $name: no fault in $runs runs"
    else
        echo "fuzz: $name: FAULT, see $build/$name.log and $build/found/"
        bad=1
    fi
done
exit $bad
