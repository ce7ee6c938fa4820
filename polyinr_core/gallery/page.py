"""The HTML page of a gallery: its sections, the template that renders them, and the model that it renders live."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.latents.latents import Latents, in_space
from polyinr_core.models.generator import Generator, count_parameters
from polyinr_core.models.layers import SLOPE
from polyinr_core.rendering.metadata import version

from .plan import GalleryPlan

ASSETS = files("polyinr_core") / "assets"
MAX_TEXT = 2000  # characters of a metadata value
MAX_WEIGHTS = 750_000  # of the synthesis network: 3 MB, 4 MB in base64
CHANNELS_PER_TEXEL = 4
LATENTS = "latents.safetensors"  # of the seeds, beside the page


@dataclass(frozen=True)
class GalleryImage:
    """An image file beside the page, its alternative text, its caption, and the command that renders it."""

    file: str
    width: int
    height: int
    alt: str
    caption: str
    command: str


@dataclass(frozen=True)
class ImageStrip:
    """Images in a row and the one command that renders them; a position of a slider has a name."""

    command: str
    images: tuple[GalleryImage, ...]
    name: str = ""


@dataclass(frozen=True)
class ImageTable:
    """Rows of images, each with its name or its first image, below the heads of the columns; one command."""

    command: str
    rows: tuple[tuple[str | GalleryImage, tuple[GalleryImage, ...]], ...]
    columns: tuple[GalleryImage, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class GallerySections:
    """The sections of a page. Those that do not apply to a model are None or empty."""

    seeds: ImageStrip
    classes: ImageTable | None
    psi: tuple[ImageStrip, ...]
    mixing: tuple[ImageTable, ...]
    interpolation: ImageStrip | None
    heatmaps: ImageTable
    extrapolation: ImageStrip
    sizes: tuple[ImageStrip, ...]


def render_page(
    checkpoint: Checkpoint,
    plan: GalleryPlan,
    sections: GallerySections,
    *,
    network: dict[str, Any] | None,
    model_file: str,
    is_bundled: bool,
) -> str:
    """Return the page as HTML. Names and metadata are escaped.

    `network` is the result of `export_webgl` for the first seeds, or None for a page without live rendering.
    `is_bundled` says that `model_file` is the bundled model.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset("gallery.html.jinja"))
    scripts = ("gallery.js",) if network is None else ("gallery.js", "gallery_render.js", "gallery_live.js")
    style, script = Markup(_asset("gallery.css")), Markup("".join(map(_asset, scripts)))
    return template.render(
        style=style,
        script=script,
        policy=content_security_policy(style, script),
        config=checkpoint.generator.config,
        checkpoint=checkpoint,
        parameters=count_parameters(checkpoint.generator)["total"],
        origin=metadata_rows(checkpoint.origin),
        data=format_value(checkpoint.origin["data"]) if checkpoint.origin.get("data") else None,
        plan=plan,
        sections=sections,
        network=None if network is None else Markup(inline_json(network)),
        live_images=0 if network is None else network["images"],
        model_file=model_file,
        latents_file=LATENTS,
        is_bundled=is_bundled,
        version=version(),
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def content_security_policy(style: str, script: str) -> str:
    """Return the policy of a page: images from its own folder, this style, this script, and nothing else."""
    return (
        f"default-src 'none'; img-src 'self' file:; style-src {_hash_of(style)}; script-src {_hash_of(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def inline_json(value: Any) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(value).replace("<", "\\u003c")


def metadata_rows(facts: dict[str, Any], *, within: str = "") -> list[tuple[str, str]]:
    """Return metadata as rows of a table: those of a dictionary under its name, deeper ones as text."""
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        title = f"{within}{name}".replace("_", " ")
        if isinstance(value, dict) and not within:
            rows += metadata_rows(value, within=f"{title}: ")
        else:
            rows.append((title, format_value(value)))
    return rows


def format_value(value: Any) -> str:
    """Return a metadata value of a checkpoint as text; a dictionary as its names with their values."""
    if isinstance(value, list):
        value = ", ".join(format_value(part) for part in value)
    if isinstance(value, dict):
        value = "; ".join(f"{name.replace('_', ' ')} {format_value(part)}" for name, part in value.items())
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _hash_of(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")


def fits_webgl(generator: Generator) -> bool:
    """Return whether a model is small enough to be part of a page."""
    return sum(parameter.numel() for parameter in generator.synthesis.parameters()) <= MAX_WEIGHTS


@torch.no_grad()
def export_webgl(generator: Generator, images: Sequence[Latents]) -> dict[str, Any]:
    """Return a model and images (latents of N = 1 with affine) as JSON values, which assets/gallery_render.js reads.

    `numbers` is little-endian float32 in base64: weights [n, n] and biases [n] of each level above 0; to_rgb's weights
    [3, n] and biases [4]; then the affine parameters [L, 3, n] of each image, with the linear layer of level 0 folded
    into its affine parameters. n is padded with zeros to a multiple of 4.
    """
    config, synthesis = generator.config, generator.synthesis
    n = -(-config.channels // CHANNELS_PER_TEXEL) * CHANNELS_PER_TEXEL
    tensors = []
    for product in list(synthesis.products)[1:]:
        assert isinstance(product, nn.Linear)
        tensors += [_padded(product.weight, n, n), _padded(product.bias, n)]
    tensors += [_padded(synthesis.to_rgb.weight, 3, n), _padded(synthesis.to_rgb.bias, CHANNELS_PER_TEXEL)]
    for image in images:
        affine = in_space(image, "affine").to(synthesis.to_rgb.weight)
        folded = torch.cat([synthesis.fold_first(affine[:, 0])[:, None], affine[:, 1:]], dim=1)
        tensors.append(_padded(folded[0], config.levels, 3, n))
    numbers = torch.cat([tensor.flatten() for tensor in tensors]).cpu().numpy().astype("<f4")
    return {
        "channels": n,
        "levels": config.levels,
        "leaky": config.form == "release",
        "slope": SLOPE,
        "clamp": config.clamp or 3e38,
        "images": len(images),
        "numbers": base64.b64encode(numbers.tobytes()).decode(),
    }


def _padded(values: Tensor, *shape: int) -> Tensor:
    """Return values in float32, padded with zeros to a shape."""
    padding = [extra for old, new in zip(values.shape, shape, strict=True) for extra in (new - old, 0)]
    return functional.pad(values.float(), padding[::-1])
