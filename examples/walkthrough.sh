#!/usr/bin/env bash
# From a folder of images to images at any size; about three minutes on two CPU cores. Usage: walkthrough.sh [FOLDER]
set -euo pipefail
work=$(mktemp -d)
images=${1:-$(python -c 'from polyinr_core.data.dataset import bundled_dataset; print(bundled_dataset())')}

polyinr prepare "$images" -o "$work/data.zip" --res 32
polyinr info "$work/data.zip" -o "$work/contact.png"
polyinr train "$work/data.zip" --run-dir "$work/run" --preset tiny --stages 16:2,32:20 --max-time "${MAX_TIME:-90s}"
polyinr sample -m "$work/run" --seeds 0-15 -o "$work/sheet.png"
polyinr sample -m "$work/run" --seeds 4 --size 640x360 --grid -0.4:1.4,0:1 -o "$work/wide.png"
polyinr info "$work/wide.png"
echo "all in $work"
