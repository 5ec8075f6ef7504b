#!/usr/bin/env bash
# Another stretch of nano's training, on all GPUs of the machine: from the weights that are shipped (or FROM=FOLDER) to
# new ones in OUT/model, with their figures and contact sheets in OUT/eval.
#
#   recipes/stretch.sh PACK OUT MINUTES [--set loop.lr=1e-3 ...]
#
# PYTHON is the interpreter, DEVICE=cpu tries it without a GPU (with --tiny), EVAL is the options of the evaluation,
# SHARE=0.6 takes the mean of the weights before and after, with that share of those after.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,8s/^# \?//p' "$0" >&2; exit 2; }
pack=$1 out=$2 minutes=$3 from=${FROM:-sana_streaming/weights/nano} device=${DEVICE:-cuda}
shift 3
python=${PYTHON:-python}
gpus=$([ "$device" = cpu ] && echo 1 || $python -c 'import torch; print(torch.cuda.device_count())')
devices=$([ "$device" = cpu ] && echo cpu || seq -f cuda:%g 0 $((gpus - 1)))
mkdir -p "$out"
$python -m torch.distributed.run --standalone --nproc-per-node "$gpus" -m sana_streaming.train recipes/nano_stretch.json \
  --device "$device" --pack "$pack" --out "$out/flow" --minutes "$minutes" --init "$from" --set "config.codec=$from" "$@"
$python -m sana_streaming.train.ship --codec "$from" --flow "$out/flow" --before "$from" --share "${SHARE:-1}" --out "$out/model"
# shellcheck disable=SC2086 # a device is a word
$python -m sana_streaming.eval "$pack" --model "$out/model" --out "$out/eval" --device $devices ${EVAL:---steps 2 4}
