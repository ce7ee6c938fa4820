"""Colors: profiles are judged by what they do, in every kind of file and channel layout, as browsers do."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from specimens import decoded, encoded, icc_profile, noise, png_chunk, png_file, with_chunks

from polyinr_core.data.color import MAX_PROFILE_BYTES, SRGB, matrix_profile, to_8_bit, to_srgb
from polyinr_core.data.decode import decode
from polyinr_core.errors import ImageError

COLOR = (128, 64, 16)
WIDE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))  # Adobe RGB (1998)


def srgb_curve(light: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: of linear light, 0 to 1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def as_srgb(color: tuple[int, ...], *, gamma: float, colorants: tuple = ()) -> np.ndarray:
    """What a color of a profile is in sRGB, by the formulas."""
    light = (np.array(color) / 255) ** gamma
    if colorants:
        srgb = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]])
        light = np.linalg.solve(srgb, np.array(colorants).T @ light)
    return srgb_curve(np.clip(light, 0, 1)) * 255


KINDS = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "TIFF": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("name", ["any", "sRGB IEC61966-2.1", "GIMP built-in Linear sRGB", "sRGB-elle-V2-g10.icc"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_counts_whatever_it_is_called(kind, name):
    image = Image.new("RGB", (16, 16), COLOR)
    for gamma, colorants in ((1.0, ()), (1.8, ()), (563 / 256, WIDE), (1.0, WIDE)):
        profile = icc_profile(gamma=gamma, colorants=colorants, name=name)
        found = decoded(encoded(image, kind, icc_profile=profile, **KINDS[kind]))[8, 8]
        # 2 for the 8 bits in and out, 2 more for JPEG's own loss, which a curve stretches in the dark
        expected = as_srgb(COLOR, gamma=gamma, colorants=colorants)
        assert np.abs(found - expected).max() <= (6 if kind == "JPEG" else 2), (gamma, colorants)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "JPEG"])
def test_srgb_by_any_name_changes_no_bit(kind):
    built_in = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    renamed = built_in.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    for profile in (built_in, renamed, matrix_profile(SRGB, None), icc_profile(gamma=2.2, name="simplified")):
        assert np.array_equal(decoded(encoded(noise(), kind, icc_profile=profile, **KINDS[kind])), noise())


def grays(value: int) -> dict[str, bytes]:
    """One gray in every layout that can hold it, opaque, each with room for a profile."""
    level = np.full((8, 8, 1), value)
    opaque = np.concatenate([level, np.full_like(level, 255)], -1)
    deep = np.concatenate([level * 257, np.full_like(level, 65535)], -1)
    return {
        "L": png_file(level, depth=8, color_type=0),
        "LA": png_file(opaque, depth=8, color_type=4),
        "L and a transparent color": png_file(level, depth=8, color_type=0, chunks=png_chunk(b"tRNS", b"\0\1")),
        "16 bits": png_file(level * 257, depth=16, color_type=0),
        "16 bits and a transparent color": png_file(
            level * 257, depth=16, color_type=0, chunks=png_chunk(b"tRNS", b"\0\1")
        ),
        "16 bits and alpha": png_file(deep, depth=16, color_type=4),
    }


@pytest.mark.parametrize("gamma", [1.0, 1.8])
@pytest.mark.parametrize("layout", grays(0))
def test_a_gray_profile_counts_in_every_layout(layout, gamma):
    packed = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(icc_profile(space=b"GRAY", gamma=gamma)))
    found = decoded(with_chunks(grays(128)[layout], packed))
    assert np.abs(found - as_srgb((128,), gamma=gamma)).max() <= 1
    assert np.ptp(found) == 0


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_gray_with_profiles_of_gray_and_of_rgb(kind, mode):
    if (kind, mode) == ("JPEG", "LA"):
        pytest.skip("JPEG has no alpha")
    image = Image.new(mode, (8, 8), 128 if mode == "L" else (128, 255))
    for profile in (icc_profile(space=b"GRAY"), icc_profile()):
        assert np.abs(decoded(encoded(image, kind, icc_profile=profile))[4, 4] - 188).max() <= 1


def test_palettes_go_through_their_profile():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *COLOR])
    expected = as_srgb(COLOR, gamma=1)
    for transparency in ({}, {"transparency": 0}):
        found = decoded(encoded(image, icc_profile=icc_profile(), **transparency))[0, 0]
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_a_profile_that_does_not_fit_or_is_broken_is_disregarded(mode):
    image = Image.new(mode, (4, 4), {"RGB": COLOR, "CMYK": (*COLOR, 9), "L": 77}[mode])
    plain = decoded(encoded(image, "TIFF"))
    lab = icc_profile(space=b"Lab ")
    cut = icc_profile()[:150]
    fits_not = icc_profile() if mode == "CMYK" else icc_profile(space=b"CMYK")
    for profile in (lab, cut, fits_not, b"broken", bytes(200), icc_profile().replace(b"XYZ ", b"abcd")):
        assert np.array_equal(decoded(encoded(image, "TIFF", icc_profile=profile)), plain)
    if mode == "RGB":
        assert np.array_equal(decoded(encoded(image, icc_profile=icc_profile(space=b"GRAY"))), plain)


def test_lab_goes_through_its_own_white():
    image = Image.new("LAB", (2, 2), (136, 148, 108))
    assert np.ptp(np.asarray(to_srgb(image, None))[0, 0].astype(int)) > 20
    assert np.array_equal(np.asarray(to_srgb(image, icc_profile())), np.asarray(to_srgb(image, None)))


D65_XY = (31270, 32900)
SRGB_CHRM = struct.pack(">8I", *D65_XY, 64000, 33000, 30000, 60000, 15000, 6000)
P3_CHRM = struct.pack(">8I", *D65_XY, 68000, 32000, 26500, 69000, 15000, 6000)
# linear Display P3 to linear sRGB: inverse(sRGB to XYZ) times (P3 to XYZ), both of D65
P3_TO_SRGB = np.array([[1.22494, -0.22494, 0], [-0.04206, 1.04206, 0], [-0.01964, -0.07864, 1.09828]])


def gama(value: float) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def p3_color(*, linear: bool = False) -> np.ndarray:
    """COLOR of Display P3 in sRGB, by the formulas."""
    values = np.array(COLOR) / 255
    light = values if linear else np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return srgb_curve(np.clip(P3_TO_SRGB @ light, 0, 1)) * 255


LINEAR = as_srgb(COLOR, gamma=1)
IN_ICCP = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(icc_profile(gamma=1.8)))
PNG_COLORS = {
    "nothing": (b"", COLOR),
    "sRGB": (png_chunk(b"sRGB", b"\0"), COLOR),
    "gamma of sRGB": (gama(0.45455), COLOR),
    "gamma of sRGB with its primaries": (gama(0.45455) + png_chunk(b"cHRM", SRGB_CHRM), COLOR),
    "primaries of sRGB": (png_chunk(b"cHRM", SRGB_CHRM), COLOR),
    "linear": (gama(1), LINEAR),
    "gamma 1.8": (gama(1 / 1.8), as_srgb(COLOR, gamma=1.8)),
    "P3 by primaries": (png_chunk(b"cHRM", P3_CHRM), p3_color()),
    "P3 by primaries, gamma of sRGB": (gama(0.45455) + png_chunk(b"cHRM", P3_CHRM), p3_color()),
    "P3, linear": (gama(1) + png_chunk(b"cHRM", P3_CHRM), p3_color(linear=True)),
    "sRGB before gamma": (gama(1) + png_chunk(b"sRGB", b"\0"), COLOR),
    "a profile before sRGB": (png_chunk(b"sRGB", b"\0") + IN_ICCP, as_srgb(COLOR, gamma=1.8)),
    "cICP before all": (png_chunk(b"sRGB", b"\0") + IN_ICCP + png_chunk(b"cICP", b"\x01\x08\0\1"), LINEAR),
    "cICP of sRGB": (gama(1) + png_chunk(b"cICP", b"\x01\x0d\0\1"), COLOR),
    "cICP of television": (png_chunk(b"cICP", b"\x01\x01\0\1"), COLOR),
    "cICP of P3": (png_chunk(b"cICP", b"\x0c\x0d\0\1"), p3_color()),
    "gamma 0": (gama(0), COLOR),
    "a short gamma": (png_chunk(b"gAMA", b"\0\1"), COLOR),
    "gamma of a wrong sum": (gama(1)[:-1] + b"\0", COLOR),
    "primaries 0": (png_chunk(b"cHRM", bytes(32)), COLOR),
    "primaries on a line": (png_chunk(b"cHRM", struct.pack(">8I", *D65_XY, *[30000] * 6)), COLOR),
    "short primaries": (png_chunk(b"cHRM", bytes(31)), COLOR),
    "a profile that cannot be unpacked": (png_chunk(b"iCCP", b"x\0\0junk") + gama(1), LINEAR),
    "an empty profile": (png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"")) + gama(1), LINEAR),
}


@pytest.mark.parametrize("case", PNG_COLORS)
def test_color_chunks_of_png(case):
    chunks, expected = PNG_COLORS[case]
    plain = encoded(Image.new("RGB", (4, 4), COLOR))
    found = decoded(with_chunks(plain, chunks))[0, 0]
    assert np.abs(found - np.array(expected)).max() <= (0 if expected is COLOR else 1.5)


@pytest.mark.parametrize(
    ("code", "message"),
    [(b"\x09\x10\0\1", "PQ"), (b"\x09\x12\0\1", "HLG"), (b"\x03\x0d\0\1", "primaries 3"), (b"\1\x0d\0\0", "video")],
)
def test_colors_that_srgb_cannot_show_are_refused(code, message):
    with pytest.raises(ImageError, match=message):
        decode(with_chunks(encoded(noise()), png_chunk(b"cICP", code)))


def test_a_profile_is_not_unpacked_without_bound():
    bomb = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(icc_profile() + bytes(8 * MAX_PROFILE_BYTES)))
    data = with_chunks(encoded(noise()), bomb)
    tracemalloc.start()
    assert np.array_equal(decoded(data), noise())
    assert tracemalloc.get_traced_memory()[1] < 3 * MAX_PROFILE_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize("top", [1, 3, 15, 255, 1023, 4095, 65535])
def test_numbers_are_rounded_to_8_bits(top):
    values = np.arange(top + 1, dtype=np.uint8 if top < 256 else np.uint16)
    assert np.array_equal(to_8_bit(values, top=top), np.rint(values.astype(float) * 255 / top).astype(np.uint8))


def test_code_points_of_avif():
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    data = encoded(Image.new("RGB", (16, 16), COLOR), "AVIF", quality=100, subsampling="4:4:4")
    assert data.count(b"colrnclx\0\x01\0\x0d") == 1
    assert np.abs(decoded(data)[8, 8] - np.array(COLOR, float)).max() <= 3
    p3 = data.replace(b"colrnclx\0\x01\0\x0d", b"colrnclx\0\x0c\0\x0d")
    assert np.abs(decoded(p3)[8, 8] - p3_color()).max() <= 5
    with pytest.raises(ImageError, match="HLG"):
        decode(data.replace(b"colrnclx\0\x01\0\x0d", b"colrnclx\0\x09\0\x12"))
