#!/usr/bin/env bash
# Everything that is measured on a GPU, in one command of bounded time; then, with data, some minutes of training.
# Usage: benchmarks/gpu_run.sh OUTPUT_FOLDER
#   MINUTES=4          of benchmarks/gpu.py
#   WHEELS=folder      wheels that are installed first, without a network
#   DATA=data.zip      a dataset to train on afterwards; nothing is trained without one
#   TRAIN_TIME=4min    how long (polyinr train --max-time)
#   TRAIN_OPTIONS=""   further options of polyinr train
#   RUN=folder         a run folder that is continued
# In OUTPUT_FOLDER: *.json and gpu.log of the benchmark; best.safetensors or the newest checkpoint, log.jsonl, the last
# sample grids and train.log of the training. A part that fails does not end the others.
set -uo pipefail
output=$(mkdir -p "${1:?usage: benchmarks/gpu_run.sh OUTPUT_FOLDER}" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD
python=${PYTHON:-python3}
failed=0

if [[ -n ${WHEELS:-} ]]; then
  "$python" -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl || failed=1
fi

"$python" benchmarks/gpu.py --minutes "${MINUTES:-4}" --device "${DEVICE:-cuda}" ${QUICK:+--quick} --output "$output" \
  2>&1 | tee "$output/gpu.log" || failed=1

if [[ -n ${DATA:-} ]]; then
  run=${RUN:-$output/run}
  # shellcheck disable=SC2086  # the options are words
  "$python" -m polyinr_cli train "$DATA" --run-dir "$run" --device "${DEVICE:-cuda}" --max-time "${TRAIN_TIME:-4min}" \
    ${TRAIN_OPTIONS:-} 2>&1 | tee "$output/train.log" || failed=1
  newest=$(ls -t "$run"/checkpoints/best.safetensors "$run"/checkpoints/*.safetensors 2>/dev/null | head -n 1)
  [[ -f $run/checkpoints/best.safetensors ]] && newest=$run/checkpoints/best.safetensors
  [[ -n $newest ]] && cp "$newest" "$output/"
  [[ -f $run/log.jsonl ]] && cp "$run/log.jsonl" "$output/"
  ls -t "$run"/samples/*.png 2>/dev/null | head -n 2 | while read -r grid; do cp "$grid" "$output/"; done
fi
exit "$failed"
