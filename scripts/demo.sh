#!/bin/sh
# scripts/demo.sh: the main job on real input. A pretrained teacher (stories260K) teaches a student of 39 % its size; the same
# student without the teacher stands beside it. Result: the table below, checkpoints in outputs/demo.
set -eu
pare=${1:-build/release/pare}
"$pare" train --arms configs/demo.yaml --overwrite
# Second act: the teacher itself made smaller, by rounding, pruning and both, before and after training. Every row is
# measured on the file that was written: outputs/demo-compress/ARM-seed0/stages/*/model.h5.
"$pare" train --arms configs/demo-compress.yaml --overwrite
