"""Mixtures of images: each source with each target, the mask they meet under, and their sheet."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyinr_core.errors import FileError, ImageError
from polyinr_core.runtime.memory import check_memory

from . import console as streams
from .drawing import Drawing, Painter
from .named import Images
from .notes import Note
from .outputs import Arrangement, check_target, maps_of
from .targets import Kind, Target, write_pixels_to

if TYPE_CHECKING:
    from torch import Tensor

    from polyinr_core.latents.latents import Latents

SHARE_BYTES = 4 + 8 + 16 + 16  # a pixel: the resized mask, its float64, two shares, and their copy


@dataclass(frozen=True)
class Mixtures:
    """Every source with every target, for one group of levels after another; the targets change fastest."""

    painter: Painter
    sources: Images
    targets: Images
    groups: tuple[tuple[int, ...], ...]
    space: str
    amount: float
    masked: bool = False  # then a mixture's maps are two images', to be drawn as a blend

    def __len__(self) -> int:
        return len(self.groups) * len(self.sources) * len(self.targets)

    def parts(self, index: int) -> tuple[tuple[int, ...], int, int]:
        """Return a mixture's levels, source and target."""
        rest, target = divmod(index, len(self.targets))
        group, source = divmod(rest, len(self.sources))
        return self.groups[group], source, target

    def latents(self, index: int) -> "Latents":
        """Return a mixture's latents, completed to its affine maps."""
        from polyinr_core.latents.latents import to_affine
        from polyinr_core.latents.mixing import mix, stack_affine

        levels, source, target = self.parts(index)
        space: Any = self.space
        under = self.targets.latents(target)
        generator = self.painter.checkpoint.generator
        like = generator.mapping.w_avg
        mixed = mix(
            under.to(like), self.sources.latents(source).to(like), levels=levels, strength=self.amount, space=space
        )
        mixture = to_affine(generator, mixed)
        if self.masked:
            return stack_affine([mixture, under])
        return replace(mixture, model_sha256=self.painter.checkpoint.sha256)

    def images(self, note: Note) -> Images:
        """Return the mixtures as images, with what all their notes say."""
        from polyinr_core.latents.naming import seeds_text

        def names(index: int) -> dict[str, str]:
            levels, source, target = self.parts(index)
            return {
                "source": self.sources.names[source],
                "target": self.targets.names[target],
                "levels": seeds_text(levels),
            }

        def name(index: int) -> str:
            made_of = names(index)
            group = f"-levels{made_of['levels']}" if len(self.groups) > 1 else ""
            return f"{made_of['source']}-{made_of['target']}{group}"

        def note_of(latents: "Latents", index: int) -> Note:
            return note | names(index) | {"index": index, "count": len(self)}

        return Images(tuple(name(index) for index in range(len(self))), self.latents, note_of)


def shares_of(mask: Path, drawing: Drawing, *, target: Target) -> "Tensor":
    """Return the source's and the target's share of each pixel, [2, H, W]: white is the source's.

    Of another size, the mask is brought to the image's. Where it is transparent it is black. Raises FileError.
    """
    import numpy as np
    import torch
    from PIL import Image

    from polyinr_core.data.decode import decode
    from polyinr_core.runtime.atomic_io import read_bytes

    size = (drawing.width, drawing.height)
    purpose = f"a mask of {size[0]}x{size[1]}"
    check_memory(SHARE_BYTES * size[0] * size[1], purpose=purpose, advice="take a smaller size")
    try:
        gray = decode(read_bytes(mask), background=(0, 0, 0)).convert("L")
    except ImageError as error:
        raise FileError(mask, str(error)) from error
    if gray.size != size:
        target.say(f"{mask} is {gray.width}x{gray.height}; it is resized to {size[0]}x{size[1]}")
        gray = gray.convert("F").resize(size, Image.Resampling.BILINEAR)  # which averages where it makes smaller
    source = torch.from_numpy(np.asarray(gray, dtype=np.float64) / 255).clamp(0, 1)
    dtype = torch.float64 if drawing.painter.dtype == torch.float64 else torch.float32
    return torch.stack([source, 1 - source]).to(dtype)


@dataclass(frozen=True)
class Sheet:
    """Sources down the left edge, targets along the top, the corner blank; a block for each group of levels."""

    mixtures: Mixtures
    drawing: Drawing

    @property
    def arrangement(self) -> Arrangement:
        """The sheet's columns, and the levels beside the blocks where there are several."""
        from polyinr_core.latents.naming import seeds_text

        groups, rows = self.mixtures.groups, len(self.mixtures.sources)
        words = [f"levels {seeds_text(group)}" for group in groups for _ in range(rows)]
        names = ("", *words) if len(groups) > 1 else ()
        return Arrangement(columns=len(self.mixtures.targets) + 1, row_names=names)

    @property
    def count(self) -> int:
        """The places on the sheet, the blank one included."""
        mixtures = self.mixtures
        return (len(mixtures.targets) + 1) * (len(mixtures.groups) * len(mixtures.sources) + 1)

    def check(self, target: Target) -> None:
        """Raise RequestError if the output cannot hold the sheet."""
        check_target(target, self.drawing, count=self.count, arrangement=self.arrangement)

    def draw(self, target: Target, note: Note) -> None:
        """Draw the sheet to an image file or to stdout. Raises PolyinrError."""
        from polyinr_core.images.grid import blank

        mixtures, drawing = self.mixtures, self.drawing
        plain = replace(drawing, shares=None)
        plan = self.arrangement.layout(self.count, drawing.width, drawing.height)
        pixels = blank(plan.size, bits=drawing.bits)
        total = (self.count - 1) * drawing.height
        with streams.row_progress("drawing", total=total, quiet=target.quiet) as rows_done:
            for place, drawn, latents in self._cells(plain):
                drawn.fill(pixels[plan.place(place)], maps_of(latents), progress=rows_done)
        self.arrangement.write_names(pixels, plan)
        write_pixels_to(target, pixels, note)
        if target.kind is not Kind.stdout:
            target.report([(target.path, note)])
            target.say(f"{len(mixtures)} mixtures of {drawing.width}x{drawing.height} in {target.path}")

    def _cells(self, plain: Drawing) -> "Iterator[tuple[int, Drawing, Latents]]":
        """Yield the places but the corner, how what stands there is drawn, and its latents."""
        sources, targets = self.mixtures.sources, self.mixtures.targets
        for column in range(len(targets)):
            yield column + 1, plain, targets.latents(column)
        width = len(targets) + 1
        for row in range(len(self.mixtures.groups) * len(sources)):
            yield (row + 1) * width, plain, sources.latents(row % len(sources))
            for column in range(len(targets)):
                place = (row + 1) * width + column + 1
                yield place, self.drawing, self.mixtures.latents(row * len(targets) + column)
