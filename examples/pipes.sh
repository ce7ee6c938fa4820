#!/usr/bin/env bash
# Join polyinr with other tools by files and pipes. Usage: pipes.sh MODEL.safetensors
set -euo pipefail
model=$1
work=$(mktemp -d)

# facts as JSON lines, one an image
polyinr sample -m "$model" --seeds 0-3 -o "$work/four/" --json | python -m json.tool --json-lines --no-indent

# latents through a pipe: drawn once small, once large, from the same z
polyinr sample -m "$model" --seeds 0-3 -o "$work/four.safetensors"
polyinr sample -m "$model" --latents - -o "$work/small.png" <"$work/four.safetensors"
polyinr sample -m "$model" --latents "$work/four.safetensors" --res 128 -o "$work/large.png"

# an image through a pipe
polyinr sample -m "$model" --seeds 7 --res 64 -o - >"$work/seven.png"

# numbers instead of pixels
polyinr sample -m "$model" --seeds 0-9 --res 32 -o "$work/ten.npy"
python -c "import numpy, sys; x = numpy.load(sys.argv[1]); print(x.shape, x.dtype, x.min(), x.max())" "$work/ten.npy"
