#!/bin/sh
# What the build needs, installed where it is missing:  scripts/deps.sh [clang]
# Looks for each thing itself (a library built by hand counts), says what it installs, does nothing when all is there.
# Debian and Ubuntu packages, as root or through sudo; on other systems it names what is missing.
set -eu

need='' want=''
missing() { need="$need $1"; }
pc() { pkg-config --exists "$1" 2>/dev/null; }
header() { echo "#include <$1>" | "${CC:-gcc}" -E -x c - >/dev/null 2>&1; }
library() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -qF "$1"; }

command -v gcc >/dev/null || missing gcc
command -v ar >/dev/null || missing binutils
command -v make >/dev/null || missing make
if command -v gcc >/dev/null; then header stdio.h || missing libc6-dev; else missing libc6-dev; fi
if command -v pkg-config >/dev/null; then
    pc hdf5-serial || pc hdf5 || missing libhdf5-dev
    pc yaml-0.1 || missing libyaml-dev
    pc jansson || missing libjansson-dev
    pc libpcre2-8 || missing libpcre2-dev
    pc libxxhash || missing libxxhash-dev
    pc libutf8proc || missing libutf8proc-dev
    pc lapacke || missing liblapacke-dev
    pc zlib || missing zlib1g-dev
else
    missing "pkg-config libhdf5-dev libyaml-dev libjansson-dev libpcre2-dev libxxhash-dev libutf8proc-dev"
    missing "liblapacke-dev zlib1g-dev"
fi
# Optional: the program builds and runs without them, with its own matrix products.
header dnnl.h || want="$want libdnnl-dev"
library libopenblas.so.0 || want="$want libopenblas0-openmp"
if [ "${1:-}" = clang ]; then
    command -v clang >/dev/null || missing clang
    echo '#include <omp.h>' | CC=clang clang -E -fopenmp -x c - >/dev/null 2>&1 || missing libomp-dev
fi
[ -n "$need$want" ] || exit 0

as_root=''
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null; then as_root=sudo; else as_root=none; fi
fi
if ! command -v apt-get >/dev/null || [ "$as_root" = none ]; then
    [ -z "$want" ] || echo "deps: optional and not here:$want (slower without)" >&2
    [ -n "$need" ] || exit 0
    echo "deps: missing:$need" >&2
    echo "deps: install these (Debian names), or run as root: apt-get install$need" >&2
    exit 1
fi

# An optional package that this release does not have, or that does not install, is no failure.
install() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1; }
known() { for p in "$@"; do apt-cache show "$p" >/dev/null 2>&1 || return 1; done; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
{
    echo "deps: installing:$need$want" >&2
    known $need $want || { echo "deps: apt-get update" >&2; $as_root apt-get update -qq >"$log" 2>&1 || cat "$log" >&2; }
    if [ -n "$need" ] && ! install $need; then
        $as_root apt-get update -qq >/dev/null 2>&1 || :      # an old package list names files that are gone
        install $need || { tail -n 20 "$log" >&2; echo "deps: could not install:$need" >&2; exit 1; }
    fi
    for p in $want; do
        install "$p" || echo "deps: optional $p could not be installed, going on without it" >&2
    done
}
echo "deps: done" >&2
