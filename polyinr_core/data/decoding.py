"""From any picture file to 8-bit RGB pixels as a person would expect to see them."""

import io
from contextlib import suppress
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps

from ..errors import PictureError, RequestError

Colour = tuple[int, int, int]
Crop = Literal["center", "pad", "none"]
Resize = Literal["lanczos", "box", "bicubic", "bilinear"]

WHITE: Colour = (255, 255, 255)
MAX_PIXELS = 2**27  # 134 million: above today's cameras, and 400 MB once decoded
MAX_PICTURE_BYTES = 2**28
PICTURE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".ico", ".qoi"),
)
# a list of our own: Pillow's EPS reader, for one, would run another program on the file
KINDS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "PPM", "TGA", "JPEG2000", "ICO", "QOI")
Image.init()
FORMATS = tuple(kind for kind in KINDS if kind in Image.OPEN)  # a Pillow may be built without some
FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def parse_colour(text: str) -> Colour:
    """Return the RGB of a colour name, `#rgb`, `#rrggbb` or `rgb(r, g, b)`. Raises RequestError."""
    colour: tuple[int, ...] = ()
    with suppress(ValueError):
        colour = ImageColor.getrgb(text)
    if len(colour) != 3:
        raise RequestError(f"{text!r} is not an opaque colour; give a name such as white, or #rrggbb")
    return colour


def decode(data: bytes, *, background: Colour = WHITE) -> Image.Image:
    """Decode a picture file's bytes to an RGB picture, upright, in sRGB, on `background` where transparent.

    The first frame of an animation is taken. Raises PictureError with the reason alone, naming no file.
    """
    if not data:
        raise PictureError("is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise PictureError(f"declares {image.width}x{image.height} pixels, more than {MAX_PIXELS}")
        image.load()
        return flatten(ImageOps.exif_transpose(image), background)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"declares more than {MAX_PIXELS} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise PictureError("is not a picture of a known kind") from error
    except Exception as error:  # a broken file makes Pillow's readers raise nearly anything
        raise PictureError(f"cannot be decoded ({one_line(error)})") from error


def flatten(image: Image.Image, background: Colour) -> Image.Image:
    """Bring a loaded picture of any mode to RGB in sRGB, laid on `background`. Raises PictureError."""
    profile = image.info.get("icc_profile")
    alpha = None
    if image.mode == "F" or image.mode.startswith("I"):
        image, alpha = deep_grey(image)
    elif image.mode in ("1", "La"):
        image = image.convert("L" if image.mode == "1" else "LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode in ("P", "RGBA", "HSV", "YCbCr"):
        image = image.convert("RGB")
    image = to_srgb(image, profile)
    if alpha is not None and alpha.getextrema() != (255, 255):
        image = Image.composite(image, Image.new("RGB", image.size, background), alpha)
    image.info = {}  # or Pillow would write the old profile into the new file
    return image


def deep_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Bring 16-bit or floating-point grey to 8 bits by the full scale, and return its alpha if it has one."""
    values = np.asarray(image).astype(np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
        raise PictureError(f"has grey values outside 0-{top:.0f}")
    grey = Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey, None
    return grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert a grey, RGB, CMYK or Lab picture to RGB by its colour profile, or plainly where it has none."""
    if profile or image.mode == "LAB":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
            if image.mode != "RGB" or "srgb" not in ImageCms.getProfileDescription(source).lower():
                target = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # a broken profile, or one for another kind of picture: the plain numbers are the best guess
    return image.convert("RGB")


def fit(image: Image.Image, resolution: int, *, crop: Crop, resize: Resize, background: Colour) -> Image.Image:
    """Bring an RGB picture to `resolution` squared; never enlarges. Raises PictureError if it is too small.

    `center` cuts the middle square, `pad` keeps everything and fills up with `background`, `none` keeps
    everything and stretches what is not square.
    """
    width, height = image.size
    side = max(width, height) if crop == "pad" else min(width, height)
    if side < resolution:
        raise PictureError(f"is too small ({width}x{height}, {resolution} is needed)")
    if crop == "center":
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if crop != "pad" or width == height:
        return image.resize((resolution, resolution), FILTERS[resize])
    small = (max(1, round(width * resolution / side)), max(1, round(height * resolution / side)))
    padded = Image.new("RGB", (resolution, resolution), background)
    padded.paste(
        image.resize(small, FILTERS[resize]), ((resolution - small[0]) // 2, (resolution - small[1]) // 2)
    )
    return padded


def one_line(error: Exception) -> str:
    """Return an error's message on one line, at most 120 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
