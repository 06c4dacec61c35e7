#!/bin/sh
# Does docs/add-an-op.md work?   tests/add_an_op/follow.sh [MAKE ARGUMENTS]
#
# Does what the page says in a scratch copy of the tree (the blocks are the files beside this script, which
# tests/test_add_an_op.c holds against the page), builds it and runs the op through every check. PYTHON with torch
# makes the golden values; without one that row is left out.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R Makefile core kernels autograd formats tests scripts "$work"
cd "$work"
rm -f tests/add_an_op*.[ch] tests/test_add_an_op.c

before_last() { # FILE TEXT PATTERN: the text in front of the last line that matches
    at=$(grep -n -- "$3" "$1" | tail -1 | cut -d: -f1)
    sed -i "$((at - 1))r $2" "$1"
}
before_last kernels/scalar.h "$here/scalar.h" '^#endif'
before_last kernels/kernels.def "$here/kernels.def" '^KERNEL(swiglu_fwd'
before_last autograd/ops.def "$here/ops.def" '^OPDEF(swiglu'
before_last tests/golden/make_ops.py "$here/golden.py" '^meta = '
before_last tests/test_kernels.c "$here/kernel_runs.c" '^static void run_swiglu_fwd'
before_last tests/test_kernels.c "$here/kernel_cases.c" 'FLAT(swiglu_fwd'
cp "$here/squared_relu.c" kernels/
cp "$here/op_squared_relu.c" autograd/

golden=
if "$PYTHON" -c 'import torch' 2>/dev/null; then
    "$PYTHON" tests/golden/make_ops.py
    golden=tests/test_golden.c
fi
make --no-print-directory V=debug B=build/follow DIRS="core kernels autograd formats" \
    TESTS="tests/runner.c tests/test_ops.c tests/test_kernels.c $golden" "$@" build/follow/tests >/dev/null
build/follow/tests
scripts/ops.sh | grep squared_relu
