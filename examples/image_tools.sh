#!/usr/bin/env bash
# What can be done with an image that is a function. Usage: image_tools.sh MODEL.safetensors
set -euo pipefail
export POLYINR_MODEL=$1
work=$(mktemp -d)
cd "$work"

# beyond the border, a part of it, bent, and as large as one likes
polyinr extrapolate --seeds 0-3 --margin 0.25 -o beyond.png
polyinr sample --seeds 3 --center 0.5,0.4 --zoom 4 --rotate 30 --supersample 2 -o close.png
polyinr sample --seeds 3 --warp fisheye --res 64 -o lens.png
polyinr sample --like close.png --res 128 -o closer.png
polyinr sample --seeds 3 --res 600 -o large.dzi

# the second image with the last levels of the first, through a pipe
polyinr mix 1 5 --levels 8-9 -o - | polyinr sample --latents - -o - >mixed.png

# sheets of mixtures: of coarse levels above, of fine ones below
polyinr mix --source 1-3 --target 5-6 --levels 0-4 --levels 5-9 -o sheet.png

# a walk as a strip, as an animation, and as frames for another program
polyinr interpolate 3 5 --frames 6 -o strip.png
polyinr interpolate 3 5 7 --frames 12 --loop --easing smooth -o walk.gif
polyinr interpolate 3 5 --frames 4 --size 64x48 -o - | wc -c

# what each level draws; the directions in which images differ most
polyinr heatmap --seeds 3 -o levels.png
polyinr directions --samples 200 -o directions.safetensors
polyinr directions directions.safetensors --seeds 3 -o walks.png
polyinr directions directions.safetensors --take 0:2 --seeds 3 -o edited.safetensors

# an image from outside, found among the model's own, and then as good as any of them
polyinr invert close.png -o found.safetensors --steps 60
polyinr interpolate found.safetensors edited.safetensors --frames 5 -o home.png
polyinr info found.safetensors
