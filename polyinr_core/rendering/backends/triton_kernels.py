"""The levels as Triton kernels: a product with all that stands before and after it, tile by tile.

A program computes a tile of pixels x output channels. While it loops over the input channels it computes their
modulation from the rows of the affine parameters (a x + b y + c, then LeakyReLU in the form of the release),
multiplies it onto the features that it loads, rounds to the product's dtype and adds to a float32 sum; bias,
LeakyReLU and clamp follow before the one write. So features are read and written once per level, and modulations
exist in registers only.
Level 0 is not written at all: level 1 computes it from its folded map where it would load it. Nor is the last
level: a program writes its part of the three colors, and the partial colors are added afterwards.

`network_kernel` takes a few pixels through all levels in one launch. Triton cannot hold them in registers or
shared memory, as it does not index what is on chip by a loop's counter; so each program has two small buffers of
its own, written over again and again, which stay in the second-level cache.

This module imports Triton: import it only where Triton is installed.
"""

# mypy: disable-error-code="no-untyped-def,import-untyped,import-not-found"
# Signatures are Triton's own: pointers, blocks and constants.

import triton
from triton import language as tl


@triton.jit
def _leaky_relu(x, slope: tl.constexpr):
    return tl.where(x > 0, x, x * slope)


@triton.jit
def _activate(x, limit, slope: tl.constexpr, clamped: tl.constexpr):
    x = _leaky_relu(x, slope)
    if clamped:
        x = tl.minimum(tl.maximum(x, -limit), limit)
    return x


@triton.jit
def _term(point, matrix, channels, is_channel, row: tl.constexpr, n: tl.constexpr):
    """Return a coordinate of the pixels times its row of an affine map, [pixels, channels]."""
    return point[:, None] * tl.load(matrix + row * n + channels, mask=is_channel, other=0.0)[None, :]


@triton.jit
def _modulate(
    x, y, one, coordinates, offsets, is_pixel, matrix, channels, is_channel, n: tl.constexpr, rows: tl.constexpr
):
    """Return coordinates @ matrix for a tile, by broadcast arithmetic: 3 rows, or 3 K of a blend of K images."""
    m = _term(x, matrix, channels, is_channel, 0, n) + _term(y, matrix, channels, is_channel, 1, n)
    m += _term(one, matrix, channels, is_channel, 2, n)
    for row in tl.static_range(3, rows):
        m += _term(tl.load(coordinates + offsets + row, mask=is_pixel, other=0.0), matrix, channels, is_channel, row, n)
    return m


@triton.jit
def _level(
    features,  # x_{i-1}; not read at level 1
    rows_at,  # [pixels] where a pixel's features begin
    folded,  # level 0's map [rows, n]; read at level 1 only
    matrix,  # A_i [rows, n]
    coordinates,  # [P, rows]
    offsets,  # [pixels] where a pixel's coordinates begin
    is_pixel,  # [pixels] whether the pixel exists
    weight,  # U_i [n, n]
    bias,  # u_i [n]
    columns,  # [outputs]
    limit,
    n: tl.constexpr,
    rows: tl.constexpr,
    is_release: tl.constexpr,
    clamped: tl.constexpr,
    first: tl.constexpr,  # whether this is level 1
    slope: tl.constexpr,
    pixels: tl.constexpr,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    precision: tl.constexpr,
):
    """Return x_i for a tile of pixels x output channels, in float32."""
    x = tl.load(coordinates + offsets, mask=is_pixel, other=0.0)
    y = tl.load(coordinates + offsets + 1, mask=is_pixel, other=0.0)
    one = tl.load(coordinates + offsets + 2, mask=is_pixel, other=0.0)
    is_column = columns < n
    total = tl.zeros((pixels, outputs), dtype=tl.float32)
    for start in range(0, n, inputs):
        channels = start + tl.arange(0, inputs)
        is_channel = channels < n
        m = _modulate(x, y, one, coordinates, offsets, is_pixel, matrix, channels, is_channel, n, rows)
        if is_release:
            m = _leaky_relu(m, slope)
        if first:
            h = _modulate(x, y, one, coordinates, offsets, is_pixel, folded, channels, is_channel, n, rows)
            h = _activate(h, limit, slope, clamped)
        else:
            is_feature = is_pixel[:, None] & is_channel[None, :]
            h = tl.load(features + rows_at[:, None] + channels[None, :], mask=is_feature, other=0.0).to(tl.float32)
        w = tl.load(
            weight + columns[None, :] * n + channels[:, None], mask=is_column[None, :] & is_channel[:, None], other=0.0
        )
        total = tl.dot((h * m).to(weight.dtype.element_ty), w, total, input_precision=precision)
    total += tl.load(bias + columns, mask=is_column, other=0.0).to(tl.float32)[None, :]
    return _activate(total, limit, slope, clamped)


@triton.jit
def _partial_color(h, rgb, columns, color: tl.constexpr, n: tl.constexpr, dtype: tl.constexpr):
    """Return what a tile's channels, rounded to `dtype`, add to a color of its pixels, [pixels]."""
    w = tl.load(rgb + color * n + columns, mask=columns < n, other=0.0)
    return tl.sum(h.to(dtype).to(tl.float32) * w[None, :], axis=1)


@triton.jit
def level_kernel(
    out,  # x_i [N, P, n], or after the last level partial colors [N, P, blocks, 3]
    features,  # x_{i-1} [N, P, n]
    folded,  # [N, rows, n]
    matrix,  # A_i of each image, [rows, n]
    coordinates,  # [P, rows], or of each image
    weight,
    bias,
    rgb,  # [3, n]
    limit,
    count,  # P
    matrix_step,  # from image to image
    coordinate_step,
    n: tl.constexpr,
    rows: tl.constexpr,
    is_release: tl.constexpr,
    clamped: tl.constexpr,
    first: tl.constexpr,
    last: tl.constexpr,
    slope: tl.constexpr,
    pixels: tl.constexpr,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    precision: tl.constexpr,
):
    """Compute a tile of a level; the programs are (tiles of pixels x blocks of output channels, images)."""
    blocks: tl.constexpr = (n + outputs - 1) // outputs
    program, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    block = program % blocks  # neighboring programs share their features
    pixel = (program // blocks).to(tl.int64) * pixels + tl.arange(0, pixels)
    is_pixel = pixel < count
    columns = block * outputs + tl.arange(0, outputs)
    h = _level(
        features,
        (image * count + pixel) * n,
        folded + image * rows * n,
        matrix + image * matrix_step,
        coordinates + image * coordinate_step,
        pixel * rows,
        is_pixel,
        weight,
        bias,
        columns,
        limit,
        n,
        rows,
        is_release,
        clamped,
        first,
        slope,
        pixels,
        outputs,
        inputs,
        precision,
    )
    if last:
        target = out + ((image * count + pixel) * blocks + block) * 3
        for color in tl.static_range(3):
            part = _partial_color(h, rgb, columns, color, n, weight.dtype.element_ty)
            tl.store(target + color, part, mask=is_pixel)
    else:
        place = out + ((image * count + pixel) * n)[:, None] + columns[None, :]
        tl.store(place, h.to(out.dtype.element_ty), mask=is_pixel[:, None] & (columns < n)[None, :])


@triton.jit
def _write_first(
    out,
    rows_at,
    folded,
    coordinates,
    offsets,
    is_pixel,
    limit,
    n: tl.constexpr,
    rows: tl.constexpr,
    clamped: tl.constexpr,
    slope: tl.constexpr,
    inputs: tl.constexpr,
):
    """Write x_0 of some pixels."""
    x = tl.load(coordinates + offsets, mask=is_pixel, other=0.0)
    y = tl.load(coordinates + offsets + 1, mask=is_pixel, other=0.0)
    one = tl.load(coordinates + offsets + 2, mask=is_pixel, other=0.0)
    for start in range(0, n, inputs):
        channels = start + tl.arange(0, inputs)
        is_channel = channels < n
        h = _modulate(x, y, one, coordinates, offsets, is_pixel, folded, channels, is_channel, n, rows)
        h = _activate(h, limit, slope, clamped)
        target = out + rows_at[:, None] + channels[None, :]
        tl.store(target, h.to(out.dtype.element_ty), mask=is_pixel[:, None] & is_channel[None, :])


@triton.jit
def network_kernel(
    out,  # partial colors [N, P, blocks, 3]
    buffers,  # [programs, 2, pixels, n]
    folded,  # [N, rows, n]
    affine,  # [N, L, rows, n]
    coordinates,  # [P, rows], or of each image
    weights,  # [L - 1, n, n]
    biases,  # [L - 1, n]
    rgb,  # [3, n]
    limit,
    count,  # P
    images,  # N
    coordinate_step,
    levels,  # L
    n: tl.constexpr,
    rows: tl.constexpr,
    is_release: tl.constexpr,
    clamped: tl.constexpr,
    slope: tl.constexpr,
    pixels: tl.constexpr,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    precision: tl.constexpr,
):
    """Take tiles of pixels through all levels, one after the other; there are as many programs as buffers."""
    blocks: tl.constexpr = (n + outputs - 1) // outputs
    dtype: tl.constexpr = weights.dtype.element_ty
    own = buffers + tl.program_id(0).to(tl.int64) * 2 * pixels * n
    rows_at = tl.arange(0, pixels) * n
    tiles = tl.cdiv(count, pixels)
    for tile in range(tl.program_id(0), tiles * images, tl.num_programs(0)):
        image = (tile // tiles).to(tl.int64)
        pixel = (tile % tiles).to(tl.int64) * pixels + tl.arange(0, pixels)
        is_pixel = pixel < count
        _write_first(
            own,
            rows_at,
            folded + image * rows * n,
            coordinates + image * coordinate_step,
            pixel * rows,
            is_pixel,
            limit,
            n,
            rows,
            clamped,
            slope,
            inputs,
        )
        tl.debug_barrier()
        for level in range(1, levels):
            for block in range(blocks):
                columns = block * outputs + tl.arange(0, outputs)
                h = _level(
                    own + (level - 1) % 2 * pixels * n,
                    rows_at,
                    folded,
                    affine + (image * levels + level) * rows * n,
                    coordinates + image * coordinate_step,
                    pixel * rows,
                    is_pixel,
                    weights + (level - 1) * n * n,
                    biases + (level - 1) * n,
                    columns,
                    limit,
                    n,
                    rows,
                    is_release,
                    clamped,
                    False,
                    slope,
                    pixels,
                    outputs,
                    inputs,
                    precision,
                )
                if level == levels - 1:
                    target = out + ((image * count + pixel) * blocks + block) * 3
                    for color in tl.static_range(3):
                        tl.store(target + color, _partial_color(h, rgb, columns, color, n, dtype), mask=is_pixel)
                else:
                    place = own + level % 2 * pixels * n + rows_at[:, None] + columns[None, :]
                    tl.store(place, h.to(dtype), mask=is_pixel[:, None] & (columns < n)[None, :])
            tl.debug_barrier()  # all of a level is written before any of it is read
