#!/usr/bin/env bash
# Everything that is to be known of a GPU, in one command of about nine minutes: its tests, what is measured, and with
# data some minutes of training.
# Usage: benchmarks/gpu_run.sh OUTPUT_FOLDER
#   MINUTES=8          of benchmarks/gpu.py; with DATA 4
#   TEST_SECONDS=60    at most, of the tests that need a GPU, where pytest is installed; 0: none
#   WHEELS=folder      wheels that are installed first, without a network
#   DATA=data.zip      a dataset to train on afterwards; nothing is trained without one
#   TRAIN_TIME=3min    how long (polyinr train --max-time)
#   TRAIN_OPTIONS=""   further options of polyinr train
#   RUN=folder         a run folder that is continued
# In OUTPUT_FOLDER: run.log of all; a .json for each part of the benchmark; best.safetensors or the newest checkpoint and
# log.jsonl of the training. A part that fails does not end the others.
set -uo pipefail
output=$(mkdir -p "${1:?usage: benchmarks/gpu_run.sh OUTPUT_FOLDER}" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD
python=${PYTHON:-python3}
failed=0

if [[ -n ${WHEELS:-} ]]; then
  "$python" -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl || failed=1
fi

seconds=${TEST_SECONDS:-60}
if ((seconds)) && "$python" -c "import pytest" 2>/dev/null; then
  timeout "$seconds" "$python" -m pytest -p no:cacheprovider -m "slow or not slow" tests/training/test_host_sync.py \
    tests/models/level_cases.py tests/rendering/tile_cases.py 2>&1 | tee "$output/run.log" || failed=1
fi

"$python" benchmarks/gpu.py --minutes "${MINUTES:-$([[ -n ${DATA:-} ]] && echo 4 || echo 8)}" \
  --device "${DEVICE:-cuda}" ${QUICK:+--quick} --output "$output" 2>&1 | tee -a "$output/run.log" || failed=1

if [[ -n ${DATA:-} ]]; then
  run=${RUN:-$output/run}
  # shellcheck disable=SC2086  # the options are words
  "$python" -m polyinr_cli train "$DATA" --run-dir "$run" --device "${DEVICE:-cuda}" --max-time "${TRAIN_TIME:-3min}" \
    ${TRAIN_OPTIONS:-} 2>&1 | tee -a "$output/run.log" || failed=1
  newest=$(ls -t "$run"/checkpoints/best.safetensors "$run"/checkpoints/*.safetensors 2>/dev/null | head -n 1)
  [[ -f $run/checkpoints/best.safetensors ]] && newest=$run/checkpoints/best.safetensors
  [[ -n $newest ]] && cp "$newest" "$output/"
  [[ -f $run/log.jsonl ]] && cp "$run/log.jsonl" "$output/"
fi
exit "$failed"
