#!/bin/sh
# scripts/demo.sh: the main job on real input. A pretrained teacher (stories260K) teaches a student of 39 % its size; the same
# student without the teacher stands beside it. Result: the table below, checkpoints in outputs/demo.
set -eu
pare=${1:-build/release/pare}
"$pare" train --arms configs/demo.yaml --overwrite
