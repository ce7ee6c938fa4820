"""What stands around an image does not keep it from being read, and what counts of it is read right."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from specimens import decoded, encoded, exif_block, icc_profile, noise, png_chunk, with_chunks

from polyinr_core.data.decode import decode, exif_orientation, frame_count, strip
from polyinr_core.data.tiff import tiff_file
from polyinr_core.errors import ImageError
from polyinr_core.inversion.loss import load_target

REPORTED = Path(__file__).parent / "reported"  # files of public reports of other programs' faults
PLAIN = (200, 100, 50)
CORNERS = {  # of each reported file: colors [row][column] at places of 40 or 48 pixels
    **dict.fromkeys(["linear-gimp.png", "linear-srgb.png", "linear-other-name.png"], (188, 137, 71)),
    **dict.fromkeys(["wide-named-srgb.png", "wide-other-name.png"], (216, 93, 24)),
    **dict.fromkeys(["gray.png", "gray-alpha.png", "gray-alpha.tif", "gray-trns.png"], (188, 188, 188)),
    **dict.fromkeys(["gray-gamma18.png", "gray-alpha-gamma18.png"], (146, 146, 146)),
    **dict.fromkeys(["ztxt.png", "itxt.png", "iccp.png", "exif-garbage.png", "phys-short.png"], PLAIN),
    **dict.fromkeys(["small-text.png", "text-wrong-sum.png"], PLAIN),
    **dict.fromkeys(["gray16.png", "rgb16.png", "gray-alpha16.png"], (2, 2, 2)),
    **dict.fromkeys(["gray16-bright.png", "rgb16-bright.png"], (254, 254, 254)),
}


@pytest.mark.parametrize("name", CORNERS)
def test_reported_images_of_one_color(name):
    (path,) = REPORTED.rglob(name)
    assert (decoded(path.read_bytes()) == CORNERS[name]).all()


def test_reported_layouts_of_one_image():
    paths = sorted((REPORTED / "planar-16-bit-tiff").iterdir())
    images = [decoded(path.read_bytes()) for path in paths]
    assert len(paths) == 4
    assert all(np.array_equal(image, images[0]) for image in images)
    assert images[0][20, 3].tolist() == [20, 131, 64]  # 1680 x, 1680 y, 16384 of 65535, by eye in the numbers


@pytest.mark.parametrize("path", sorted((REPORTED / "rotated-photo-odd-exif").iterdir()), ids=lambda path: path.name)
def test_reported_photos_are_upright(path):
    pixels = decoded(path.read_bytes()).astype(int)
    plain = decoded((path.parent / f"plain-{path.stem[-1]}.jpg").read_bytes())
    assert pixels.shape[:2] == ((48, 64) if path.stem.endswith("1") else (64, 48))
    assert np.array_equal(pixels, plain)


@pytest.mark.parametrize("name", ["cut.gif", "next-page-beyond-end.tif"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_invert_takes_the_first_frame_as_prepare_does(name):
    data = (REPORTED / "invert-later-frames" / name).read_bytes()
    photo = load_target(data, name=name)
    assert np.array_equal(photo.pixels, decoded(data))
    assert (photo.width, photo.height) == (48, 32)


BIG_TEXT = zlib.compress(b"x" * 2**26)
ODD_CHUNKS = {
    "zTXt": b"Comment\0\0" + BIG_TEXT,
    "zTXt without text": b"Comment",
    "zTXt that cannot be unpacked": b"Comment\0\0junk",
    "iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + BIG_TEXT,
    "iTXt cut off": b"XML",
    "tEXt": b"x" * 2**22,
    "tEXt empty": b"",
    "iCCP": b"name\0\0" + BIG_TEXT,
    "iCCP cut off": b"na",
    "eXIf": b"hello",
    "eXIf empty": b"",
    "eXIf beyond its end": b"II*\0\xff\xff\xff\x7f",
    "eXIf of many entries": b"II*\0\x08\0\0\0\xff\xff",
    "pHYs": b"\0\1",
    "gAMA": b"\0",
    "cHRM": b"\0",
    "cICP": b"\1",
    "sRGB": b"",
    "tRNS": b"\0",
    "tRNS too long": bytes(999),
    "bKGD": b"",
    "hIST": b"\0",
    "sBIT": b"",
    "sPLT": b"x",
    "tIME": b"\0",
    "acTL": b"\0",
    "acTL of no frames": bytes(8),
    "fcTL": b"\0",
    "fdAT": b"\0",
    "iDOT": b"junk",
    "abCd": b"of nobody",
    "caBX": bytes(100),
}


@pytest.mark.parametrize("before", ["IDAT", "IEND"])
@pytest.mark.parametrize("wrong_sum", [False, True])
@pytest.mark.parametrize("odd", ODD_CHUNKS)
def test_a_png_is_read_whatever_stands_beside_its_pixels(odd, wrong_sum, before):
    chunk = png_chunk(odd[:4].encode(), ODD_CHUNKS[odd], wrong_sum=wrong_sum)
    data = with_chunks(encoded(noise()), chunk, before=before.encode())
    tracemalloc.start()
    assert np.array_equal(decoded(data), noise())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(data) + 3 * 2**24  # no text is unpacked, and of a profile so much at most
    twice = with_chunks(data, chunk)
    assert np.array_equal(decoded(twice), noise())


def test_what_counts_must_be_right_in_a_png():
    data = encoded(noise())
    palette = encoded(Image.fromarray(noise()).quantize(16))
    at = palette.index(b"PLTE") - 4
    size = 12 + struct.unpack_from(">I", palette, at)[0]
    bad = {
        "an unknown critical chunk": with_chunks(data, png_chunk(b"IDOT", b"what")),
        "no palette": palette[:at] + palette[at + size :],
        "a wrong sum of the header": data[:29] + b"\0\0\0\0" + data[33:],
        "no pixels": data[: data.index(b"IDAT") - 4] + png_chunk(b"IEND", b""),
        "half of the pixels": data[: data.index(b"IDAT") + 40],
    }
    for case, broken in bad.items():
        with pytest.raises(ImageError, match="critical" if "critical" in case else "decoded|known format"):
            decode(broken)


def segment(marker: int, body: bytes, length: int | None = None) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 255, marker, len(body) + 2 if length is None else length) + body


ODD_SEGMENTS = {
    "EXIF": segment(0xE1, b"Exif\0\0hello"),
    "EXIF, empty": segment(0xE1, b"Exif\0\0"),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<junk"),
    "ICC, cut off": segment(0xE2, b"ICC_PROFILE\0"),
    "ICC, of missing parts": segment(0xE2, b"ICC_PROFILE\0\2\4junk"),
    "MPF": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\xff\xff\xff\xff"),
    "Adobe, cut off": segment(0xEE, b"Adobe"),
    "JFIF, cut off": segment(0xE0, b"JFIF\0\1"),
    "a comment": segment(0xFE, b"\xff\xfe" * 20),
    "nothing": segment(0xE5, b""),
    "of length 0": segment(0xE5, b"", length=0),
    "fillers": b"\xff\xff\xff",
    **{f"APP{n}": segment(0xE0 + n, bytes(range(40))) for n in range(16)},
}


@pytest.mark.parametrize("odd", ODD_SEGMENTS)
def test_a_jpeg_is_read_whatever_stands_beside_its_pixels(odd):
    for image in (Image.fromarray(noise(32)), Image.new("CMYK", (8, 8), (9, 99, 199, 9)), Image.new("L", (8, 8), 9)):
        plain = encoded(image, "JPEG")
        for at in (2, plain.index(b"\xff\xdb"), plain.index(b"\xff\xda")):
            assert np.array_equal(decoded(plain[:at] + ODD_SEGMENTS[odd] + plain[at:]), decoded(plain))


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file of chunks."""
    body = b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def riff_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a WebP file."""
    chunks, at = [], 12
    while at < len(data):
        size = struct.unpack_from("<I", data, at + 4)[0]
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return chunks


@pytest.mark.parametrize("odd", [b"EXIF", b"ICCP", b"XMP ", b"junk"])
def test_a_webp_is_read_whatever_stands_beside_its_pixels(odd):
    whole = encoded(noise(), "WEBP", lossless=True, icc_profile=icc_profile(gamma=2.2), exif=exif_block())
    assert np.array_equal(decoded(whole), noise())
    for body in (b"", b"hello", b"II*\0\xff\xff\xff\x7f", bytes(999)):
        chunks = [(kind, body if kind == odd else data) for kind, data in riff_chunks(whole)]
        assert np.array_equal(decoded(riff(*chunks, (odd, body))), noise())
        assert np.array_equal(decoded(riff(*chunks) + odd + b"\xff\xff"), noise())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_broken_later_frames_do_not_matter(kind):
    """The file is cut at all places after its first frame, or scrambled there: the first frame is read."""
    first = np.repeat(np.repeat(noise(4), 4, 0), 4, 1) // 64 * 64  # few colors, for GIF
    frames = [Image.fromarray(first), *(Image.fromarray(noise(16, seed)) for seed in (1, 2))]
    options = {"WEBP": {"lossless": True}, "GIF": {"duration": 100}}.get(kind, {})
    whole = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(decoded(whole), first)
    if kind == "TIFF":
        with tifffile.TiffFile(io.BytesIO(whole)) as file:
            start = file.pages[1].offset
    else:
        mark = {"GIF": b"\x21\xf9\4", "PNG": b"fcTL", "WEBP": b"ANMF"}[kind]
        start = whole.index(mark, whole.index(mark) + 1)
    scramble = np.random.RandomState(0)
    for cut in range(start, len(whole), 11):
        scrambled = bytearray(whole)
        for at in scramble.randint(start, len(whole), 5):
            scrambled[at] = scramble.randint(256)
        for data in (whole[:cut], bytes(scrambled)):
            assert np.array_equal(decoded(data), first), cut
            assert frame_count(data) >= 1
            assert np.array_equal(load_target(data, name="x").pixels, first)


def test_frames_are_counted():
    frames = [Image.new("RGB", (5, 5), color) for color in ("red", "blue", "green")]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        assert frame_count(encoded(frames[0], kind, save_all=True, append_images=frames[1:])) == 3
        assert frame_count(encoded(frames[0], kind)) == 1
    assert frame_count(b"no image") == 1


TURNED = [*range(1, 9)]
TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}


def upright_by(orientation: int, stored: np.ndarray) -> np.ndarray:
    """What is seen of stored pixels (EXIF 2.32, section 4.6.4, tag 274)."""
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]


def tiff_with(stored: np.ndarray, exif: bytes) -> bytes:
    """A TIFF, in the byte order of an EXIF block, with the block's first entry among its tags."""
    order = "<" if exif[:2] == b"II" else ">"
    height, width, _ = stored.shape
    tags = [(256, 4, width), (257, 4, height), (259, 3, 1), (262, 3, 2), (277, 3, 3), (278, 4, height)]
    tags += [(273, 4, 8), (279, 4, stored.size)]
    at = 8 + stored.size + stored.size % 2
    entries = [(258, struct.pack(f"{order}HHII", 258, 3, 3, at)), (274, exif[10:22])]
    for tag, code, value in tags:
        number = struct.pack(order + ("H" if code == 3 else "I"), value).ljust(4, b"\0")
        entries.append((tag, struct.pack(f"{order}HHI", tag, code, 1) + number))
    return (
        exif[:4]
        + struct.pack(f"{order}I", at + 6)
        + stored.tobytes().ljust(at - 8, b"\0")
        + struct.pack(f"{order}3H", 8, 8, 8)
        + struct.pack(f"{order}H", len(entries))
        + b"".join(entry for _, entry in sorted(entries))
        + bytes(4)
    )


def with_exif(kind: str, stored: np.ndarray, exif: bytes) -> bytes:
    """An image file with an EXIF block, or a TIFF whose own tags are followed by those of one."""
    if kind == "TIFF":
        return tiff_with(stored, exif)
    if kind == "PNG":
        return with_chunks(encoded(stored), png_chunk(b"eXIf", exif))
    if kind == "WEBP":
        return riff(*riff_chunks(encoded(stored, "WEBP", lossless=True)), (b"EXIF", exif))
    plain = encoded(stored, "JPEG")
    return plain[:2] + segment(0xE1, b"Exif\0\0" + exif) + plain[2:]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_every_orientation_in_every_kind(orientation, kind, order):
    stored = noise(8)[:, :5].copy()
    for code, letter in TYPES.items():
        value = struct.pack(order + letter, orientation).ljust(4, b"\0")
        data = with_exif(kind, stored, exif_block((0x0112, code, 1, value), order=order))
        plain = decoded(encoded(stored, "JPEG")) if kind == "JPEG" else stored
        assert np.array_equal(decoded(data), upright_by(orientation, plain))


EXIF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_photo_is_turned_whatever_its_other_entries_are(kind):
    """Each known tag with each type, its value in place or far outside."""
    stored = noise(8)[:, :5].copy()
    plain = decoded(with_exif(kind, stored, b""))
    turn = (0x0112, 3, 1, b"\6\0\0\0")
    tags = [int(tag) for tag in ExifTags.Base if tag != 0x0112]
    for tag in tags if kind == "JPEG" else tags[::7]:
        for code in (*EXIF_TYPES, 0, 13, 999):
            for value in (b"72\0\0", b"\xff\xff\xff\xff"):
                odd = (tag, code, 2, value)
                exif = exif_block(*sorted((turn, odd)))
                assert exif_orientation(exif) == 6
            assert np.array_equal(decoded(with_exif(kind, stored, exif)), upright_by(6, plain))


def test_tags_of_other_types_in_a_tiff():
    stored = noise(8)
    plain = {256: ("I", [8]), 257: ("I", [8]), 258: ("H", [8, 8, 8]), 259: ("H", [1]), 262: ("H", [2])}
    plain |= {274: ("H", [6]), 277: ("H", [3]), 278: ("I", [8])}
    counts = {*plain, 254, 255, 266, 273, 279, 284, 317, 320, 322, 323, 324, 325, 332, 338, 339, 34675}
    for tag in [*range(260, 350), 700, 33432, 33723, 34377, 34665, 34853, 42112, 65000]:
        for code, size in EXIF_TYPES.items() if tag not in counts else ():
            data = bytearray(tiff_file({**plain, tag: ("I", [0x3734])}, [stored.tobytes()], is_tiled=False))
            at = data.index(struct.pack("<HH", tag, 4), 10)
            struct.pack_into("<HHI", data, at, tag, code, 5)
            if size * 5 > 4:
                struct.pack_into("<I", data, at + 8, 2**31 - 1 if code % 2 else 16)
            assert np.array_equal(decoded(bytes(data)), upright_by(6, stored)), (tag, code)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"hello",
        b"II*\0",
        exif_block((0x0112, 3, 1, b"\x09\0\0\0")),
        exif_block((0x0112, 3, 1, b"\0\0\0\0")),
        exif_block((0x0112, 3, 0, b"\6\0\0\0")),
        exif_block((0x0112, 2, 2, b"6\0\0\0")),
        exif_block((0x0112, 3, 1, b"\6\0\0\0"))[:-8],
    ],
)
def test_without_a_good_orientation_nothing_is_turned(exif):
    assert exif_orientation(exif) == 1
    assert np.array_equal(decoded(with_exif("PNG", noise(), exif)), noise())


def test_avif_is_turned_by_its_own_boxes_and_not_by_exif():
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    image = Image.new("RGB", (16, 8), PLAIN)
    for tag in ExifTags.Base.XResolution, ExifTags.Base.ImageWidth:
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[tag] = 3
        data = encoded(image, "AVIF", exif=exif)
        odd = data.replace(struct.pack("<HH", int(tag), 3), struct.pack("<HH", int(tag), 2))
        found = decode(odd)
        assert found.size == decode(data).size
        assert np.abs(np.asarray(found)[4, 4].astype(int) - PLAIN).max() < 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_plain_file_is_not_copied(kind):
    data = strip(encoded(noise(), kind)).data
    assert strip(data).data == data


def mutated(data: bytes, chance: np.random.RandomState) -> bytes:
    """A file cut off, or with some bytes changed, mostly near its start, or with some more."""
    if chance.rand() < 0.2:
        return data[: chance.randint(len(data))]
    changed = bytearray(data)
    for _ in range(chance.choice([1, 2, 4, 16])):
        end = len(changed) if chance.rand() < 0.4 else min(len(changed), 200)
        changed[chance.randint(end)] = chance.choice([0, 1, 127, 255, chance.randint(256)])
    if chance.rand() < 0.1:
        at = chance.randint(len(changed))
        changed[at:at] = chance.bytes(chance.randint(20))
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "PPM", "TGA", "JPEG2000", "ICO"])
def test_mutated_files_are_read_or_refused_in_one_line(kind, capfd):
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    chance = np.random.RandomState(0)
    exif = exif_block((0x0112, 3, 1, b"\6\0\0\0"), (0x010F, 2, 4, b"abc\0"))
    options = {"icc_profile": icc_profile()} if kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF") else {}
    options |= {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    modes = {"JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "RGBA", "P", "LA", "1"], "TIFF": ["RGB", "CMYK", "1"]}
    wholes = []
    for mode in modes.get(kind, ["RGB"]):
        image = Image.fromarray(noise(24)).convert(mode)
        packings = [None, "tiff_lzw", "packbits", "group4" if mode == "1" else "jpeg"] if kind == "TIFF" else [None]
        for packing in packings:
            wholes.append(encoded(image, kind, **options, **({"compression": packing} if packing else {})))
    reasons = []
    for number in range(2000):
        data = mutated(wholes[number % len(wholes)], chance)
        try:
            decode(data)
        except ImageError as error:
            reasons.append(str(error))
        assert frame_count(data) >= 1
    assert len(reasons) > 100
    assert all(reason and "\n" not in reason for reason in reasons)
    assert capfd.readouterr() == ("", "")
