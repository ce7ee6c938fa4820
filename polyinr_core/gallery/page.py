"""What hangs in a gallery: images with their words and the commands that draw them, part by part."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
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

from .plan import Plan


@dataclass(frozen=True)
class GalleryImage:
    """An image file beside the page: its words for who cannot see it, and the command that draws it."""

    file: str
    width: int
    height: int
    words: str
    caption: str
    command: str


@dataclass(frozen=True)
class Row:
    """Images that belong together, by name."""

    name: str
    images: tuple[GalleryImage, ...]


@dataclass(frozen=True)
class Slide:
    """One stop of a slider: its name, the command that draws all of it, its images."""

    name: str
    command: str
    images: tuple[GalleryImage, ...]


@dataclass(frozen=True)
class Mixed:
    """Mixtures of some levels: `rows` hold a source and its mixture with each target."""

    name: str
    command: str
    targets: tuple[GalleryImage, ...]
    rows: tuple[tuple[GalleryImage, tuple[GalleryImage, ...]], ...]


@dataclass(frozen=True)
class Part:
    """Images and the one command that draws them."""

    command: str
    images: tuple[GalleryImage, ...]


@dataclass(frozen=True)
class Rows:
    """Rows of images and a command."""

    command: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Exhibits:
    """All parts. What the model cannot show is None or empty."""

    seeds: Part
    classes: Rows | None
    psi: tuple[Slide, ...]
    mixing: tuple[Mixed, ...]
    walk: Part | None
    heat: Rows
    beyond: Part
    sizes: tuple[Slide, ...]


MAX_NUMBERS = 750_000  # of weights: 3 MB, 4 MB as text
GROUP = 4  # channels to a texel; their number is filled up with zeros


def fits_in_page(generator: Generator) -> bool:
    """Say whether a model is small enough."""
    return sum(parameter.numel() for parameter in generator.synthesis.parameters()) <= MAX_NUMBERS


@torch.no_grad()
def model_in_page(generator: Generator, images: Sequence[Latents]) -> dict[str, Any]:
    """Return what a page needs to draw images (completed latents, N = 1), as plain values.

    `numbers` is float32 in base64, little-endian: weights [n, n] and biases [n] of each level above 0; the
    colors' weights [3, n] and biases [4]; then an image's maps [L, 3, n] after another, level 0's folded with
    its product. n is a multiple of 4.
    """
    config, synthesis = generator.config, generator.synthesis
    n = -(-config.channels // GROUP) * GROUP
    parts = []
    for product in list(synthesis.products)[1:]:
        assert isinstance(product, nn.Linear)
        parts += [filled(product.weight, n, n), filled(product.bias, n)]
    parts += [filled(synthesis.to_rgb.weight, 3, n), filled(synthesis.to_rgb.bias, GROUP)]
    for image in images:
        maps = in_space(image, "affine").to(synthesis.to_rgb.weight)
        folded = torch.cat([synthesis.fold_first(maps[:, 0])[:, None], maps[:, 1:]], dim=1)
        parts.append(filled(folded[0], config.levels, 3, n))
    numbers = torch.cat([part.flatten() for part in parts]).cpu().numpy().astype("<f4")
    return {
        "channels": n,
        "levels": config.levels,
        "bent": config.form == "release",
        "slope": SLOPE,
        "clamp": config.clamp or 3e38,
        "images": len(images),
        "numbers": base64.b64encode(numbers.tobytes()).decode(),
    }


def filled(values: Tensor, *shape: int) -> Tensor:
    """Return float32 values with zeros after them, up to a shape."""
    missing = [extra for old, new in zip(values.shape, shape, strict=True) for extra in (new - old, 0)]
    return functional.pad(values.float(), missing[::-1])


def json_in_page(value: Any) -> str:
    """Return JSON that ends no element of HTML."""
    return json.dumps(value).replace("<", "\\u003c")


ASSETS = files("polyinr_core") / "assets"
LONGEST = 2000  # letters of a fact


@dataclass(frozen=True)
class Maker:
    """Who made a page, when, and by which model file."""

    version: str
    when: str
    model_file: str
    bundled: bool


def page(
    checkpoint: Checkpoint, plan: Plan, exhibits: Exhibits, *, network: dict[str, Any] | None, maker: Maker
) -> str:
    """Return the page. Whatever a name or a fact holds is shown as text.

    With a `network` (of in_page.model_in_page, its images the first seeds) the page draws by itself as well.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset("gallery.html.jinja"))
    scripts = ("gallery.js",) if network is None else ("gallery.js", "gallery_draw.js", "gallery_easel.js")
    style, script = Markup(_asset("gallery.css")), Markup("".join(map(_asset, scripts)))
    config = checkpoint.generator.config
    return template.render(
        style=style,
        script=script,
        policy=policy(style, script),
        config=config,
        checkpoint=checkpoint,
        parameters=count_parameters(checkpoint.generator)["total"],
        origin=[(name.replace("_", " "), told(value)) for name, value in checkpoint.origin.items()],
        data=told(checkpoint.origin["data"]) if checkpoint.origin.get("data") else None,
        plan=plan,
        show=exhibits,
        network=None if network is None else Markup(json_in_page(network)),
        network_images=0 if network is None else network["images"],
        maker=maker,
    )


def policy(style: str, script: str) -> str:
    """Return what the page may do: show images from beside it, follow this style and this script, no more."""
    return (
        f"default-src 'none'; img-src 'self' file:; style-src {_hash_of(style)}; script-src {_hash_of(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def told(value: Any) -> str:
    """Write a fact of a checkpoint as text."""
    if isinstance(value, list):
        value = ", ".join(told(part) for part in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _hash_of(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")
