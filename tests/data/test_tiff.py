"""TIFF: every layout of the same numbers comes out as the same image, or is refused in one line.

Oracle: the numbers that were given to tifffile to write, and the definitions of TIFF 6.0 applied to them here.
"""

import io
import itertools
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from specimens import decoded, icc_profile

from polyinr_core.data.decode import MAX_PIXELS, decode
from polyinr_core.data.tiff import COPIED, tiff_file
from polyinr_core.errors import ImageError

HEIGHT, WIDTH = 37, 29  # neither divides into strips of 5 or tiles of 16
BLACK = (0, 0, 0)
LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {"rowsperstrip": HEIGHT},
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (16, 32)},
}
# what tifffile packs by itself, and what is packed here, by Pillow
PACKED_BY_PILLOW = {"tiff_lzw": 5, "packbits": 32773, "zstd": 50000, "lzma": 34925, "tiff_deflate": 32946}
CODECS = [None, "zlib", *PACKED_BY_PILLOW]
PREDICTED = ["zlib", "tiff_lzw", "zstd", "lzma", "tiff_deflate"]


def numbers(channels: int, bits: int, seed: int = 0) -> np.ndarray:
    """Random samples [H, W, C]."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 2**bits, (HEIGHT, WIDTH, channels)).astype(dtype)


def rounded(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples of so many bits in 8."""
    return np.rint(samples * (255 / (2**bits - 1)))


def written(samples: np.ndarray, *, codec: str | None = None, **options: Any) -> bytes:
    """The samples [H, W, C] as a TIFF by tifffile, in the layout that is asked."""
    if options.get("planarconfig") == "separate":
        samples = np.moveaxis(samples, -1, 0)
    elif samples.shape[-1] == 1:
        samples = samples[..., 0]
    file = io.BytesIO()
    # what Pillow packs is unpacked again; tifffile takes no differences without packing
    packed_by_tifffile = ("zlib" if "predictor" in options else None) if codec in PACKED_BY_PILLOW else codec
    tifffile.imwrite(file, np.ascontiguousarray(samples), metadata=None, compression=packed_by_tifffile, **options)
    return repacked(file.getvalue(), codec) if codec in PACKED_BY_PILLOW else file.getvalue()


def repacked(data: bytes, codec: str) -> bytes:
    """A TIFF of little-endian numbers whose strips or tiles are packed by the libtiff of Pillow."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.byteorder == "<"
        page = file.pages.first
        tiled = page.is_tiled
        spots = zip(page.tags[324 if tiled else 273].value, page.tags[325 if tiled else 279].value, strict=True)
        plain = [data[offset : offset + size] for offset, size in spots]
        if page.compression == 8:
            plain = [zlib.decompress(segment) for segment in plain]
        segments = [packed(segment, codec) for segment in plain]
        kinds = {**COPIED, 262: "H", 317: "H", 320: "H", 339: "H"}
        tags = {}
        for code, kind in kinds.items():
            if code in page.tags:
                value = page.tags[code].value
                tags[code] = (kind, np.asarray(value).reshape(-1).tolist())
    tags[259] = ("H", [PACKED_BY_PILLOW[codec]])
    return tiff_file(tags, segments, is_tiled=tiled)


def packed(plain: bytes, codec: str) -> bytes:
    """Bytes packed as one strip of a gray image."""
    file = io.BytesIO()
    width = next(width for width in (96, 64, 48, 32, 29, 16, 8, 4, 2, 1) if len(plain) % width == 0)
    image = Image.frombytes("L", (width, len(plain) // width), plain)
    try:
        image.save(file, "TIFF", compression=codec, tiffinfo={278: image.height}, strip_size=2**30)
    except OSError:
        pytest.skip(f"this Pillow's libtiff packs no {codec}")
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as written_file:
        page = written_file.pages.first
        assert len(page.tags[273].value) == 1
        return file.getvalue()[page.tags[273].value[0] :][: page.tags[279].value[0]]


PHOTOMETRICS = {  # channels, tifffile's options
    "gray": (1, {"photometric": "minisblack"}),
    "inverted": (1, {"photometric": "miniswhite"}),
    "gray, alpha": (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "gray, premultiplied": (2, {"photometric": "minisblack", "extrasamples": ["assocalpha"]}),
    "rgb": (3, {"photometric": "rgb"}),
    "rgb, alpha": (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "rgb, premultiplied": (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
    "rgb, more": (5, {"photometric": "rgb", "extrasamples": ["unspecified", "unspecified"]}),
    "rgb, more, alpha": (5, {"photometric": "rgb", "extrasamples": ["unspecified", "unassalpha"]}),
    "cmyk": (4, {"photometric": "separated"}),
    "lab": (3, {"photometric": "cielab"}),
}


def meaning(samples: np.ndarray, what: str, bits: int) -> tuple[np.ndarray, float]:
    """What samples look like on black, and by how much it may be off: 0 where nothing is blended."""
    colors = rounded(samples, bits)
    if what == "inverted":
        return 255 - colors, 0
    if what == "cmyk":
        return np.asarray(Image.fromarray(colors.astype(np.uint8), "CMYK").convert("RGB")), 0
    if what == "lab":
        half = np.rint(samples.view(f"i{bits // 8}") / 2 ** (bits - 8)).clip(-128, 127).astype(np.int8)
        half[..., 0] = colors[..., 0].astype(np.uint8).view(np.int8)
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return np.asarray(transform.apply(Image.frombytes("LAB", (WIDTH, HEIGHT), half.tobytes()))), 0
    if what.endswith("premultiplied"):
        return rounded(samples[..., :-1], bits), 2  # divided, rounded, multiplied and rounded again
    if what.endswith("alpha"):
        share = samples[..., -1:] / (2**bits - 1)
        return share * samples[..., : 1 if what.startswith("gray") else 3] / (2**bits - 1) * 255, 2
    return colors[..., :3], 0


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("what", PHOTOMETRICS)
def test_every_layout_is_one_image(what, codec, bits):
    channels, options = PHOTOMETRICS[what]
    samples = numbers(channels, bits)
    if what.endswith("premultiplied"):
        samples[..., :-1] = np.minimum(samples[..., :-1], samples[..., -1:])
    expected, slack = meaning(samples, what, bits)
    for layout, planar, order, predictor in itertools.product(
        LAYOUTS, ("contig", "separate"), "<>", (None, True) if codec in PREDICTED else (None,)
    ):
        if (planar == "separate" and channels == 1) or (order == ">" and codec in PACKED_BY_PILLOW):
            continue
        more = {"planarconfig": planar} if channels > 1 else {}
        more |= {"predictor": predictor} if predictor else {}
        data = written(samples, codec=codec, byteorder=order, **options, **more, **LAYOUTS[layout])
        found = decoded(data, background=BLACK)
        assert np.abs(found - expected).max() <= slack, (layout, planar, order, predictor)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_is_zero_to_one(dtype, codec, layout, order):
    samples = np.random.default_rng(0).random((HEIGHT, WIDTH, 3)).astype(dtype)
    for planar in ("contig", "separate"):
        data = written(samples, codec=codec, byteorder=order, photometric="rgb", planarconfig=planar, **LAYOUTS[layout])
        assert np.array_equal(decoded(data), np.rint(samples.astype(np.float32) * 255))


@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_floating_point_differences(tile, planes):
    """Predictor 3 by Adobe's TIFF technical note 3: bytes sorted by their weight, then differences."""
    samples = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    segments = []
    for plane in np.split(samples, planes, axis=-1):
        together = 3 // planes
        raw = plane.astype(">f4").reshape(16, -1).view(np.uint8).reshape(16, -1, 4).swapaxes(1, 2).reshape(16, -1)
        raw[:, together:] -= raw[:, :-together].copy()
        segments.append(packed(raw.tobytes(), "tiff_lzw"))
    tags = {256: ("I", [16]), 257: ("I", [16]), 258: ("H", [32] * 3), 259: ("H", [5]), 262: ("H", [2])}
    tags |= {277: ("H", [3]), 284: ("H", [1 if planes == 1 else 2]), 317: ("H", [3]), 339: ("H", [3] * 3)}
    tags |= {322: ("I", [16]), 323: ("I", [16])} if tile else {278: ("I", [16])}
    found = decoded(tiff_file(tags, segments, is_tiled=tile is not None))
    assert np.array_equal(found, np.rint(samples * 255))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("fill_order", [1, 2])
def test_other_numbers_of_bits(bits, codec, fill_order):
    """Gray, inverted and by palette, in strips and in tiles, of rows that end within a byte."""
    samples = numbers(1, bits)
    table = np.random.default_rng(1).integers(256, 65536, (3, 2**bits))
    seen = {0: 255 - rounded(samples, bits), 1: rounded(samples, bits), 3: np.rint(table.T[samples[..., 0]] / 257)}
    padded = np.zeros((64, 32, 1), samples.dtype)
    padded[:HEIGHT, :WIDTH] = samples
    for photometric, expected in seen.items():
        for tiled in (False, True):
            if tiled:
                parts = [padded[y : y + 32, x : x + 16] for y in (0, 32) for x in (0, 16)]
            else:
                parts = [samples[y : y + 20] for y in (0, 20)]
            segments = []
            for part in parts:
                plain = bits_of(part[..., 0], bits)
                if codec == "zlib":
                    plain = zlib.compress(plain)
                elif codec is not None:
                    plain = packed(plain, codec)
                segments.append(reversed_bits(plain) if fill_order == 2 else plain)
            code = {None: 1, "zlib": 8}.get(codec) or PACKED_BY_PILLOW[codec]
            tags = {256: ("I", [WIDTH]), 257: ("I", [HEIGHT]), 258: ("H", [bits]), 259: ("H", [code])}
            tags |= {262: ("H", [photometric]), 266: ("H", [fill_order]), 277: ("H", [1])}
            tags |= {322: ("I", [16]), 323: ("I", [32])} if tiled else {278: ("I", [20])}
            if photometric == 3:
                tags[320] = ("H", table.reshape(-1).tolist())
            found = decoded(tiff_file(tags, segments, is_tiled=tiled))
            assert np.array_equal(found, np.broadcast_to(expected, found.shape)), (photometric, tiled)


def bits_of(samples: np.ndarray, bits: int) -> bytes:
    """Rows of samples [H, W] from the highest bit on, each in whole bytes."""
    unpacked = samples[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(unpacked.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def reversed_bits(data: bytes) -> bytes:
    """The bytes, each from its lowest bit on."""
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).tobytes()


def test_palettes_of_8_and_16_bits_and_of_bytes():
    for bits, codec in itertools.product((8, 16), (None, "tiff_lzw")):
        samples = numbers(1, bits)
        table = np.random.default_rng(1).integers(0, 65536, (3, 2**bits)).astype(np.uint16)
        data = written(samples, codec=codec, photometric="palette", colormap=table)
        assert np.array_equal(decoded(data), np.rint(table.T[samples[..., 0]] / 257))
    bytes_alone = table[:, :256] // 256  # as old writers fill it in
    samples = numbers(1, 8)
    data = written(samples, photometric="palette", colormap=bytes_alone)
    assert np.array_equal(decoded(data), bytes_alone.T[samples[..., 0]])


@pytest.mark.parametrize("codec", [None, "tiff_lzw"])
@pytest.mark.parametrize("across", [1, 2])
@pytest.mark.parametrize("down", [1, 2])
def test_ycbcr_with_fewer_colors(across, down, codec):
    """Blocks of `across` x `down` lightnesses, then Cb and Cr (TIFF 6.0, section 21), as BT.601 has them."""
    light = np.random.default_rng(0).integers(40, 200, (8, 8))
    chroma = np.random.default_rng(1).integers(100, 156, (8 // down, 8 // across, 2))
    blocks = light.reshape(8 // down, down, 8 // across, across).swapaxes(1, 2).reshape(-1, down * across)
    plain = np.concatenate([blocks, chroma.reshape(-1, 2)], axis=1).astype(np.uint8).tobytes()
    tags = {256: ("I", [8]), 257: ("I", [8]), 258: ("H", [8] * 3), 259: ("H", [5 if codec else 1])}
    tags |= {262: ("H", [6]), 277: ("H", [3]), 278: ("I", [8]), 530: ("H", [across, down])}
    tags[532] = ("R", [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1])
    data = tiff_file(tags, [packed(plain, codec) if codec else plain], is_tiled=False)
    cb, cr = np.moveaxis(chroma.repeat(down, 0).repeat(across, 1) - 128.0, -1, 0)
    expected = np.stack([light + 1.402 * cr, light - 0.344136 * cb - 0.714136 * cr, light + 1.772 * cb], -1)
    assert np.abs(decoded(data) - np.clip(expected, 0, 255)).max() <= 2  # libtiff's integer arithmetic


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_strips(mode):
    smooth = np.indices((32, 24)).sum(0)[..., None] * np.array([4, 3, 2, 1])
    image = Image.fromarray(smooth[..., : {"L": 1, "RGB": 3, "CMYK": 4}[mode]].astype(np.uint8).squeeze(), mode)
    for strip_rows in (8, 32):
        file = io.BytesIO()
        image.save(file, "TIFF", compression="jpeg", quality=95, strip_size=strip_rows * 24 * 3)
        assert np.abs(decoded(file.getvalue()).astype(int) - np.asarray(image.convert("RGB"))).max() < 12


@pytest.mark.parametrize("codec", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("invert", [False, True])
def test_fax_strips(codec, invert):
    pixels = numbers(1, 1)[..., 0].repeat(8, 1) * 255
    file = io.BytesIO()
    image = Image.fromarray(pixels.astype(np.uint8)).convert("1")
    image.save(file, "TIFF", compression=codec, tiffinfo={262: 0 if invert else 1})
    assert np.array_equal(decoded(file.getvalue())[..., 0], pixels)


def test_large_tiff_of_either_order():
    samples = numbers(3, 16)
    for order in "<>":
        data = written(samples, byteorder=order, bigtiff=True, photometric="rgb")
        assert data[2:4] in (b"+\0", b"\0+")
        assert np.array_equal(decoded(data), rounded(samples, 16))


def test_a_profile_counts():
    data = written(np.full((8, 8, 3), 128, np.uint8), photometric="rgb", iccprofile=icc_profile())
    assert np.abs(decoded(data).astype(int) - 188).max() <= 1
    deep = written(np.full((8, 8, 3), 128 * 257, np.uint16), photometric="rgb", iccprofile=icc_profile())
    assert np.array_equal(decoded(deep), decoded(data))


PLAIN = {256: ("I", [8]), 257: ("I", [8]), 258: ("H", [8, 8, 8]), 259: ("H", [1]), 262: ("H", [2]), 277: ("H", [3])}
PIXELS = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


def plain_tiff(pixels: bytes = PIXELS.tobytes(), **tags: tuple[str, list[int]]) -> bytes:
    """A small RGB image with other tags."""
    return tiff_file({**PLAIN, 278: ("I", [8]), **{int(k[1:]): v for k, v in tags.items()}}, [pixels], is_tiled=False)


def test_a_plain_one():
    assert np.array_equal(decoded(plain_tiff()), PIXELS)
    assert np.array_equal(decoded(plain_tiff(_278=("I", [2**32 - 1]))), PIXELS)  # all rows in one strip
    assert np.array_equal(decoded(plain_tiff(PIXELS.tobytes() + b"more")), PIXELS)
    without_counts = plain_tiff().replace(struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 65279, 4, 1))
    assert np.array_equal(decoded(without_counts), PIXELS)


REFUSED = {
    "signed": (written(numbers(3, 8).view(np.int8), photometric="rgb"), "signed samples of 8 bits"),
    "signed 16": (written(numbers(3, 16).view(np.int16), photometric="rgb"), "signed samples of 16 bits"),
    "32 bits": (written(numbers(3, 16).astype(np.uint32), photometric="rgb"), "whole samples of 32 bits"),
    "float beyond 1": (written(np.full((8, 8, 3), 1.5, np.float32), photometric="rgb"), "outside 0-1"),
    "not a number": (written(np.full((8, 8, 3), np.nan, np.float32), photometric="rgb"), "outside 0-1"),
    "bands": (written(numbers(3, 16), photometric="minisblack", planarconfig="contig"), "which are its colors"),
    "raw sensor": (plain_tiff(_262=("H", [32803])), "photometric interpretation 32803"),
    "mixed bits": (plain_tiff(_258=("H", [5, 6, 5])), "samples of"),
    "differences of nothing": (plain_tiff(_317=("H", [2])), "predictor"),
    "unknown codec": (plain_tiff(_259=("H", [34712])), "TIFF compression 34712"),
    "old JPEG": (plain_tiff(_259=("H", [6])), "TIFF compression 6"),
    "other inks": (written(numbers(4, 8), photometric="separated", extratags=[(332, "H", 1, 2, True)]), "inks"),
    "no meaning": (plain_tiff().replace(struct.pack("<HH", 262, 3), struct.pack("<HH", 261, 3)), "mean"),
    "too few channels": (plain_tiff(_277=("H", [2]), _258=("H", [8, 8])), "channels"),
    "no palette": (plain_tiff(_277=("H", [1]), _258=("H", [8]), _262=("H", [3])), "palette"),
    "too short": (plain_tiff(PIXELS.tobytes()[:-1]), "cut off"),
    "cut off": (plain_tiff()[:-1], "cut off"),
    "a strip missing": (plain_tiff(_278=("I", [4])), "lacks strips"),
    "tiles of nothing": (plain_tiff(_322=("I", [0]), _323=("I", [0])), "."),
    "too large": (plain_tiff(_256=("I", [2**20]), _257=("I", [2**20])), f"more than {MAX_PIXELS}"),
    "no size": (plain_tiff(_256=("I", [0])), "."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_to_be_right_is_refused(case):
    data, message = REFUSED[case]
    with pytest.raises(ImageError, match=message) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", ["tiff_lzw", "zstd", "lzma", "packbits", "tiff_deflate", "zlib"])
def test_broken_strips_are_refused_without_a_word_of_libtiff(codec, capfd):
    samples = np.repeat(numbers(3, 8), 4, axis=1)
    whole = written(samples, codec=codec, photometric="rgb", rowsperstrip=HEIGHT)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        start = file.pages.first.tags[273].value[0]
    broken = 0
    for at in range(start, len(whole), max(1, (len(whole) - start) // 50)):
        data = whole[:at] + bytes(40) + whole[at + 40 :]
        try:
            decode(data)
        except ImageError:
            broken += 1
    assert broken > 0
    assert capfd.readouterr() == ("", "")


def test_libtiff_is_silent_of_odd_strips_of_images(capfd):
    file = io.BytesIO()
    Image.fromarray(PIXELS.repeat(4, 0)).save(file, "TIFF", compression="jpeg")
    Image.new("1", (64, 64)).save(fax := io.BytesIO(), "TIFF", compression="group4")
    for data in (file.getvalue(), fax.getvalue()):
        for at in range(8, len(data), 9):
            with suppress(ImageError):
                decode(data[:at] + b"\x55\xaa\x00" + data[at + 3 :])
    assert capfd.readouterr() == ("", "")
