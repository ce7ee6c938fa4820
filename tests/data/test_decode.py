"""Decoding: every odd kind of image comes out as a person would see it."""

import io
import struct
import zlib

import numpy as np
import png
import pytest
import tifffile
from PIL import Image, ImageCms
from specimens import decoded, encoded, noise, png_chunk, png_file

from polyinr_core.data.decode import MAX_PIXELS, decode, fit, parse_color
from polyinr_core.errors import ImageError, RequestError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
GRADIENT = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "QOI"])
def test_plain_rgb_is_exact_in_every_lossless_kind(kind):
    if kind == "QOI" and kind not in Image.SAVE:
        pytest.skip("this Pillow writes no QOI")
    assert np.array_equal(decoded(encoded(noise(), kind)), noise())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_kinds_open(kind):
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    smooth = np.repeat(GRADIENT[..., None], 3, 2)
    assert np.abs(decoded(encoded(smooth, kind, quality=95)).astype(int) - smooth).max() < 20  # lossy: only alike


def test_alpha_is_laid_on_the_background_in_straight_color():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0] = [(200, 100, 0, 0), (200, 100, 0, 128), (200, 100, 0, 255)]
    data = encoded(Image.fromarray(pixels))
    share = 128 / 255
    for background in [(255, 255, 255), (10, 20, 30)]:
        clear, half, solid = decoded(data, background=background)[0].astype(float)
        assert clear.tolist() == list(background)
        assert solid.tolist() == [200, 100, 0]
        expected = share * np.array([200, 100, 0]) + (1 - share) * np.array(background)
        assert np.abs(half - expected).max() <= 0.51  # rounding to whole levels


def test_gray_with_alpha_and_transparent_colors():
    gray_alpha = np.stack([np.full((1, 2), 50, np.uint8), np.array([[0, 255]], np.uint8)], -1)
    assert decoded(encoded(Image.fromarray(gray_alpha, "LA")))[0].tolist() == [[255] * 3, [50] * 3]
    gray = np.array([[7, 50]], np.uint8)
    assert decoded(encoded(gray, transparency=7))[0].tolist() == [[255] * 3, [50] * 3]
    rgb = np.array([[RED, GREEN]], np.uint8)
    assert decoded(encoded(rgb, transparency=RED))[0].tolist() == [[255] * 3, list(GREEN)]


def palette(*, kind: str = "PNG", **options: object) -> bytes:
    """An image of red, green, blue by palette."""
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([*RED, *GREEN, *BLUE])
    return encoded(image, kind, **options)


def test_palettes_with_and_without_transparency():
    assert decoded(palette())[0].tolist() == [list(RED), list(GREEN), list(BLUE)]
    assert decoded(palette(transparency=1), background=(1, 2, 3))[0].tolist() == [list(RED), [1, 2, 3], list(BLUE)]
    some = decoded(palette(transparency=bytes([255, 0, 128])), background=(0, 0, 0))[0].tolist()
    assert some == [list(RED), [0, 0, 0], [0, 0, 128]]
    gif = decoded(palette(kind="GIF", transparency=1), background=(1, 2, 3))[0].tolist()
    assert gif == [list(RED), [1, 2, 3], list(BLUE)]


def test_one_bit_and_gray():
    bits = Image.fromarray(GRADIENT).convert("1")
    assert np.array_equal(decoded(encoded(bits))[..., 0], np.asarray(bits) * 255)
    assert np.array_equal(decoded(encoded(GRADIENT))[..., 2], GRADIENT)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_its_scale(kind):
    deep = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)
    assert np.array_equal(decoded(encoded(deep, kind))[..., 0], np.rint(deep / 257).astype(np.uint8))
    dark = np.full((4, 4), 257 * 3, np.uint16)
    assert (decoded(encoded(dark, kind)) == 3).all()  # not stretched to the range used


def test_16_bit_color_with_and_without_alpha():
    deep = (noise().astype(np.uint16)) * 257
    assert np.abs(decoded(png_file(deep, depth=16, color_type=2)).astype(int) - noise()).max() <= 1
    clear = np.concatenate([deep, np.zeros((8, 8, 1), np.uint16)], -1)
    assert (decoded(png_file(clear, depth=16, color_type=6), background=(9, 8, 7)) == (9, 8, 7)).all()


def test_floating_point_gray():
    assert (decoded(encoded(Image.new("F", (4, 4), 0.2), "TIFF")) == 51).all()
    with pytest.raises(ImageError, match="outside 0-1"):
        decode(encoded(Image.new("F", (4, 4), 7.5), "TIFF"))


def test_cmyk_without_and_with_jpeg():
    for data in (encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), kind) for kind in ("TIFF", "JPEG")):
        red, green, blue = decoded(data)[4, 4].astype(int)
        assert red > 220
        assert max(green, blue) < 60


def test_lab_is_seen_in_color():
    gray = decoded(encoded(Image.new("LAB", (4, 4), (136, 128, 128)), "TIFF"))[0, 0].astype(int)
    assert np.ptp(gray) <= 3  # no color in, none out
    assert 110 < gray.mean() < 145


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = noise(8)[:, :4].copy()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decoded(encoded(np.ascontiguousarray(stored), exif=exif.tobytes())), upright)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, BLUE)]
    data = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert (decoded(data) == RED).all()


def test_a_color_profile_is_converted_to_srgb():
    """Oracle: sRGB's formula, for a profile with straight curves; two levels for the profile's own rounding."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decoded(encoded(noise(), icc_profile=srgb)), noise())  # sRGB: to the last bit
    assert np.array_equal(decoded(encoded(noise(), icc_profile=b"broken")), noise())
    linear = linear_profile()
    seen = decoded(encoded(np.full((4, 4, 3), 55, np.uint8), icc_profile=linear))[0, 0].astype(int)
    expected = 255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055)  # sRGB's curve
    assert np.abs(seen - expected).max() <= 2


def linear_profile() -> bytes:
    """The sRGB profile with straight tone curves."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", data, 128)[0]
    for index in range(count):
        tag, offset, _ = struct.unpack_from(">4sII", data, 132 + 12 * index)
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            struct.pack_into(">4sIHHI", data, offset, b"para", 0, 0, 0, 65536)  # y = x ^ 1.0
        if tag == b"desc":
            at = data.find("sRGB".encode("utf-16-be"), offset)
            data[at : at + 8] = "line".encode("utf-16-be")
    return bytes(data)


def truncated(kind: str) -> bytes:
    data = encoded(noise(64), kind)
    return data[: len(data) // 2]


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello, world", "is not an image of a known format"),
    "truncated PNG": (truncated("PNG"), "cannot be decoded"),
    "truncated JPEG": (truncated("JPEG"), "cannot be decoded"),
    "truncated GIF": (truncated("GIF"), "cannot be decoded"),
    "truncated WebP": (truncated("WEBP"), "cannot be decoded|not an image"),
    "header only": (encoded(noise())[:33], "not an image"),
    "bad CRC": (encoded(noise()).replace(b"IDAT", b"IDAT", 1)[:45] + b"\0" * 40, "cannot be decoded"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not an image of a known format"),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_images_say_why_in_one_line(case):
    data, message = BAD[case]
    with pytest.raises(ImageError, match=message) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [12_000, 100_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_decoded(side):
    bomb = bytearray(encoded(noise()))
    struct.pack_into(">II", bomb, 16, side, side)
    struct.pack_into(">I", bomb, 29, zlib.crc32(bomb[12:29]))
    assert side * side > MAX_PIXELS
    with pytest.raises(ImageError, match="pixels"):
        decode(bytes(bomb))


def make_image(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


WHITE = (255, 255, 255)


def test_center_crop_is_the_middle_square():
    image = make_image(11, 8)
    found = fit(image, 8, crop="center", resize="lanczos", background=WHITE)
    assert np.array_equal(np.asarray(found), np.asarray(image)[:, 1:9])
    found = fit(make_image(8, 12), 8, crop="center", resize="box", background=WHITE)
    assert np.array_equal(np.asarray(found), np.asarray(make_image(8, 12))[2:10])


@pytest.mark.parametrize("resize", ["lanczos", "box", "bicubic", "bilinear"])
def test_each_filter_is_pillow_s(resize):
    expected = make_image(32, 32).resize((8, 8), getattr(Image.Resampling, resize.upper()))
    found = fit(make_image(32, 32), 8, crop="center", resize=resize, background=WHITE)
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_box_is_the_mean_of_blocks():
    image = make_image(32, 32)
    blocks = np.asarray(image, np.float64).reshape(8, 4, 8, 4, 3).mean((1, 3))
    found = np.asarray(fit(image, 8, crop="center", resize="box", background=WHITE), np.float64)
    assert np.abs(found - blocks).max() <= 1  # Pillow rounds after each of its two passes


def test_pad_keeps_everything_on_the_background():
    found = np.asarray(fit(make_image(16, 8), 8, crop="pad", resize="box", background=(1, 2, 3)))
    assert (found[:2] == (1, 2, 3)).all()
    assert (found[6:] == (1, 2, 3)).all()
    assert np.array_equal(found[2:6], np.asarray(make_image(16, 8).resize((8, 4), Image.Resampling.BOX)))
    thin = np.asarray(fit(make_image(100, 1), 8, crop="pad", resize="box", background=(1, 2, 3)))
    assert (thin != (1, 2, 3)).any(2).sum() == 8


def test_none_keeps_everything_stretched():
    found = fit(make_image(16, 8), 8, crop="none", resize="box", background=WHITE)
    assert np.array_equal(np.asarray(found), np.asarray(make_image(16, 8).resize((8, 8), Image.Resampling.BOX)))


@pytest.mark.parametrize(("crop", "size"), [("center", (16, 7)), ("none", (7, 16)), ("pad", (7, 7))])
def test_too_small_is_not_enlarged(crop, size):
    with pytest.raises(ImageError, match=f"is too small \\({size[0]}x{size[1]}, 8 is needed\\)"):
        fit(make_image(*size), 8, crop=crop, resize="lanczos", background=WHITE)


def test_colors():
    assert parse_color("white") == WHITE
    assert parse_color("#102030") == (16, 32, 48)
    assert parse_color("#fff") == WHITE
    assert parse_color("rgb(1, 2, 3)") == (1, 2, 3)
    for text in ("", "pinkish", "#12", "#10203040", "rgba(1,2,3,4)"):
        with pytest.raises(RequestError, match="is not an opaque color"):
            parse_color(text)


def test_writing_carries_no_old_metadata():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    again = io.BytesIO()
    decode(encoded(noise(), icc_profile=srgb, dpi=(72, 72))).save(again, "PNG")
    assert b"iCCP" not in again.getvalue()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("color_type", [0, 2, 3])
def test_transparency_by_color_in_every_depth(depth, color_type):
    if depth not in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8)}[color_type]:
        pytest.skip("PNG has no such image")
    top = 2**depth - 1
    levels = np.unique(np.linspace(0, top, min(top + 1, 9)).round().astype(int))
    samples = np.repeat(levels[None, :, None], 3 if color_type == 2 else 1, axis=-1)
    palette = noise(16).tobytes()[: 3 * (top + 1)] if color_type == 3 else b""
    colors = np.rint(levels / top * 255)[:, None].repeat(3, 1)
    if color_type == 3:
        colors = np.frombuffer(palette, np.uint8).reshape(-1, 3)[levels]
    for clear, level in enumerate(levels):
        one = struct.pack(">H", level) * samples.shape[2]
        chunk = b"\xff" * int(level) + b"\0" if color_type == 3 else one
        data = png_file(samples, depth=depth, color_type=color_type, palette=palette, chunks=png_chunk(b"tRNS", chunk))
        expected = colors.copy()
        expected[clear] = (1, 2, 3)
        assert np.array_equal(decoded(data, background=(1, 2, 3))[0], expected)
    if depth == 16:  # a neighbor of the same 8 bits is no hole
        data = png_file(samples + (samples < top), depth=16, color_type=color_type, chunks=png_chunk(b"tRNS", chunk))
        near = decoded(data, background=(1, 2, 3))[0]
        assert not (near[:-1] == (1, 2, 3)).all(-1).any()


def all_levels(channels: int) -> np.ndarray:
    """All numbers of 16 bits, in another order in each channel."""
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    return np.stack([np.roll(levels, 977 * channel) for channel in range(channels)], -1)


ROUNDED = np.rint(all_levels(3) / 257).astype(np.uint8)


@pytest.mark.parametrize("color_type", [0, 2, 4, 6])
def test_16_bits_of_png_are_rounded(color_type):
    samples = all_levels({0: 1, 2: 3, 4: 2, 6: 4}[color_type])
    if color_type > 2:
        samples[..., -1] = 65535
    expected = ROUNDED if color_type in (2, 6) else ROUNDED[..., :1]
    assert (decoded(png_file(samples, depth=16, color_type=color_type)) == expected).all()


@pytest.mark.parametrize(("channels", "options"), [(1, {}), (2, {"alpha": True}), (3, {}), (4, {"alpha": True})])
def test_16_bits_of_interlaced_png(channels, options):
    """Written by pypng."""
    samples = np.random.default_rng(0).integers(0, 65536, (11, 13, channels))
    if options:
        samples[..., -1] = 65535
    file = io.BytesIO()
    writer = png.Writer(13, 11, greyscale=channels < 3, bitdepth=16, interlace=True, **options)
    writer.write_array(file, samples.reshape(-1).tolist())
    expected = np.rint(samples[..., : 1 if channels < 3 else 3] / 257)
    assert np.array_equal(decoded(file.getvalue()), np.broadcast_to(expected, (11, 13, 3)))


@pytest.mark.parametrize("color_type", [4, 6])
def test_16_bits_of_alpha_are_rounded(color_type):
    samples = all_levels(1).repeat(2 if color_type == 4 else 4, -1)
    samples[..., :-1] = 0
    alpha = ROUNDED[..., :1].astype(int)
    found = decoded(png_file(samples, depth=16, color_type=color_type), background=(255, 255, 255))
    assert np.abs(found - (255 - alpha)).max() == 0


def test_16_bits_of_other_kinds_are_rounded():
    rgb = all_levels(3)
    ppm = b"P6 256 256 65535\n" + rgb.astype(">u2").tobytes()
    pgm = b"P5 256 256 65535\n" + rgb[..., 0].astype(">u2").tobytes()
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, rgb, photometric="rgb")
    assert np.array_equal(decoded(ppm), ROUNDED)
    assert (decoded(pgm) == ROUNDED[..., :1]).all()
    assert np.array_equal(decoded(tiff.getvalue()), ROUNDED)
    if "JPEG2000" in Image.SAVE:
        jpeg2000 = encoded(Image.fromarray(rgb[..., 0].copy()), "JPEG2000")
        assert (decoded(jpeg2000) == ROUNDED[..., :1]).all()
