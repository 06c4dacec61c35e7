#!/bin/sh
# make oracle: proves with transformers and h5py what `make test` then holds us to without Python.
#
#   PARE=build/release/pare PYTHON=python3 DATA=folder tests/oracle/run.sh [--write]
#
# Each model is exported as a Hugging Face folder and as an HDF5 file; hf_load.py and h5_read.py compare. Adapters go both
# ways between pare and peft (peft_load.py, where peft is there). The SHA-256 of every exported file is then held against tests/golden/exports.sha256, which --write renews: commit it after a change
# that the comparison above has approved. Needs torch, transformers, h5py; with xxhash the checkpoint's hashes are checked.
set -eu
here=$(dirname "$0")
cd "$here/../.."
write=0
for arg; do
    case $arg in
    --write) write=1 ;;
    *) PARE=$arg ;;
    esac
done
PARE=${PARE:-build/release/pare} PYTHON=${PYTHON:-python3}
list=tests/golden/exports.sha256
[ -x "$PARE" ] || { echo "oracle: $PARE is not there: make first" >&2; exit 2; }
"$PYTHON" -c 'import torch, transformers, h5py' 2>/dev/null ||
    { echo "oracle: $PYTHON has no torch, transformers or h5py: name one that has in PYTHON" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" SOURCE_DATE_EPOCH=0 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

mkdir "$work/out"
for model in tests/data/hf-tiny-* tests/data/stories/stories260K.bin; do
    [ -e "$model" ] || continue
    name=$(basename "$model" .bin)
    case $name in                       # export writes float32 unless told; the same type must give the same bits
    *-bf16) dtype=bfloat16 ;;
    *-f16) dtype=float16 ;;
    *) dtype=float32 ;;
    esac
    "$PARE" -q export "$model" "$work/out/$name" --format hf --dtype $dtype
    "$PYTHON" tests/oracle/hf_load.py "$PARE" "$model" "$work/out/$name" "$work"
    "$PARE" -q export "$model" "$work/$name.h5" --format hdf5 --dtype $dtype
    "$PYTHON" tests/oracle/h5_read.py "$work/$name.h5" "$work/out/$name"
done

# Codes, scales and masks: NumPy's decoding is what pare itself computes with, in the layouts of both families.
for model in hf-tiny-llama hf-tiny-gpt2; do
    for how in int8 int4 int3 int2 int4,quantize.symmetric=false fp8_e4m3 fp8_e5m2 fp4_e2m1 nf4 nf4,quantize.double_quant=true \
        mxfp8 mxfp4 nvfp4; do
        case $how in *,*) set -- --set "${how#*,}" ;; *) set -- ;; esac
        "$PARE" -q quantize tests/data/$model "$work/q.h5" --format "${how%,*}" "$@"
        "$PARE" -q export "$work/q.h5" "$work/q.safetensors"
        "$PYTHON" tests/oracle/h5_read.py "$work/q.h5" "$work/q.safetensors" >"$work/said"
        rm "$work/q.h5" "$work/q.safetensors"
    done
    for structure in unstructured 2:4; do
        "$PARE" -q prune tests/data/$model "$work/q.h5" --structure $structure
        "$PARE" -q export "$work/q.h5" "$work/q.safetensors"
        "$PYTHON" tests/oracle/h5_read.py "$work/q.h5" "$work/q.safetensors" >"$work/said"
        rm "$work/q.h5" "$work/q.safetensors"
    done
    echo "ok   h5py: $model in 13 quantised and 2 sparse forms decodes to what pare computes with"
done

# The reader printed in the docs, run as it stands there.
"$PARE" -q quantize tests/data/stories/stories260K.bin "$work/q.h5" --format int4 --group-size 32
"$PYTHON" tests/oracle/doc_reader.py docs/quantise.md "$work/q.h5"
rm "$work/q.h5"

# The tokenizer inside: read with h5py, and given back as a file by an export.
tok=tests/data/stories/tok512.model
"$PARE" -q export tests/data/stories/stories260K.bin "$work/tok.h5" --tokenizer $tok
"$PYTHON" tests/oracle/h5_read.py "$work/tok.h5" "$work/out/stories260K" $tok
"$PARE" -q export "$work/tok.h5" "$work/tok" --format hf
cmp "$work/tok/tokenizer.model" $tok

# Adapters, both ways, where peft is there.
if "$PYTHON" -c 'import peft' 2>/dev/null; then
    "$PYTHON" tests/oracle/peft_load.py "$PARE" "$work"
else
    echo "skip adapters: $PYTHON has no peft"
fi

# Whole folders: tokenizer, chat template, generation config.
"$PYTHON" tests/oracle/hf_files.py "$PARE" "$work"

# Vectors and whole texts of the tokenizers, where somebody has them: DATA/tokenizers, DATA/text.
if [ -n "${DATA:-}" ]; then
    "$PYTHON" tests/golden/check_tokenizers.py "$PARE" "$DATA"
else
    echo "--   tokenizers: no DATA with vectors and texts given, see tests/golden/check_tokenizers.py"
fi

(cd "$work/out" && find . -type f | LC_ALL=C sort | sed 's,^\./,,' | xargs sha256sum) >"$work/exports.sha256"
if [ "$write" = 1 ]; then
    cp "$work/exports.sha256" "$list"
    echo "ok   wrote $list: $(wc -l <"$list") files"
elif diff "$list" "$work/exports.sha256"; then
    echo "ok   $(wc -l <"$list") exported files have the committed hashes"
else
    echo "oracle: the exports above are proved, but not the committed ones: run with --write and commit $list" >&2
    exit 1
fi
