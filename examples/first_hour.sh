#!/usr/bin/env bash
# A first hour with polyinr in a few minutes: every step that a newcomer takes, timed. Usage: first_hour.sh [FOLDER]
# FOLDER holds your images, class folders in it if you like; without it, the bundled animals. Everything goes to a
# new folder, whose path is printed at the end.
set -euo pipefail
images=${1:-$(python -c 'from polyinr_core.data.dataset import bundled_dataset; print(bundled_dataset())')}
images=$(realpath "$images")
photo=$(realpath "$(dirname "$0")/../docs/images/photo.png")
work=$(mktemp -d)
cd "$work"

step() {
    local start=$SECONDS
    echo "+ polyinr $*" >&2
    polyinr "$@"
    echo "  $((SECONDS - start)) s" >&2
}

# Images of the bundled model, and one of them again by the command that it carries.
step sample -m bundled --seeds 0-7 -o first/
step info bundled
step sample -m bundled --seeds 3 --size 320x180 -o wide.png # another shape shows more of the plane
again=$(polyinr info wide.png --json | python -c 'import json, sys; print(json.load(sys.stdin)["command"])')
echo "+ $again" >&2
eval "$again"
python -c 'import sys; from PIL import Image; a, b = map(Image.open, sys.argv[1:]); assert a.tobytes() == b.tobytes()' \
    wide.png wide-again.png

# A model of your own: the dataset, a short training, where it stands, its images.
step prepare "$images" -o data.zip --res 32
step train data.zip --run-dir runs/mine --preset tiny --stages 32:20 --max-time "${MAX_TIME:-60s}"
step info runs/mine
step sample -m runs/mine --seeds 0-7 -o mine/
step sample -m runs/mine --seeds 0-9 -o mine/ # those that are there are kept
step report runs/mine -o report.html
step evaluate -m runs/mine --real data.zip --real-count 200 --count 64 -o result.json

# What can be done with the images of any model.
step mix -m bundled --source 1-2 --target 5-6 -o mixed.png
step interpolate -m bundled 1 5 --frames 8 -o walk.gif
step heatmap -m bundled --seeds 3 -o levels.png
polyinr sample -m bundled --seeds 3 -o - --format latents | polyinr sample -m bundled --latents - --res 128 -o piped.png
step invert "$photo" -m bundled -o photo.safetensors
step sample -m bundled --latents photo.safetensors --res 256 -o photo-large.png
step gallery -m bundled --seeds 0-3 --frames 4 --res 32 -o site/
echo "all in $work"
