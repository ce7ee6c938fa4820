"""The orders that images' affine maps reach, as panels, an array, or figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import console as streams
from .named import Images
from .notes import Note, sheet_note
from .outputs import maps_of
from .targets import Kind, Target, write_pixels_to

if TYPE_CHECKING:
    from torch import Tensor

    from polyinr_core.images.quantize import Pixels

DIRECTIONS = ("x", "y")
GAP = 12  # pixels between the panels


def report_degrees(target: Target | None, images: Images, *, levels: Sequence[int], colors: str) -> None:
    """Give the orders' shares after some levels where `target` says; without one as JSON lines.

    Raises PolyinrError.
    """
    from polyinr_core.rendering.heatmap import degree_shares

    shares: list[Tensor] = []
    notes: list[Note] = []
    for index in range(len(images)):
        latents = images.latents(index)
        shares.append(degree_shares(maps_of(latents)[0])[:, list(levels)].cpu())  # [2, K, L + 1]
        notes.append(images.note(latents, index))
    paths = [] if target is None else _write(target, images, shares, notes, levels=levels, colors=colors)
    if target is None or target.as_json:
        for index, (own, note) in enumerate(zip(shares, notes, strict=True)):
            file = {"file": str(paths[index])} if paths else {}
            streams.json_line({**file, **note, **_figures(own, levels)})


def _figures(shares: "Tensor", levels: Sequence[int]) -> dict[str, Any]:
    """Return shares [2, K, L + 1] and their mean orders as plain numbers."""
    from polyinr_core.rendering.heatmap import mean_orders

    return {
        "levels": list(levels),
        "mean_orders": dict(zip(DIRECTIONS, mean_orders(shares).tolist(), strict=True)),
        "shares": dict(zip(DIRECTIONS, shares.tolist(), strict=True)),
    }


def _write(
    target: Target,
    images: Images,
    shares: "list[Tensor]",
    notes: list[Note],
    *,
    levels: Sequence[int],
    colors: str,
) -> list[Any]:
    """Write panels or an array, and return the file of each image."""
    import numpy as np

    from polyinr_core.images.grid import make_grid
    from polyinr_core.images.io import write_image
    from polyinr_core.runtime.atomic_io import refuse_overwrite, written_beside

    if target.kind is Kind.array:
        with written_beside(target.path, overwrite=target.overwrite) as draft, draft.open("wb") as file:
            np.save(file, np.stack([own.numpy() for own in shares]))
        return [target.path] * len(shares)
    panels = (_panels(own, name, levels=levels, colors=colors) for own, name in zip(shares, images.names, strict=True))
    if target.kind is Kind.folder:
        paths = [target.path / f"{name}-degrees.png" for name in images.names]
        for path in paths:
            refuse_overwrite(path, overwrite=target.overwrite)
        for path, pixels, note in zip(paths, panels, notes, strict=True):
            write_image(path, pixels, note={**note, "folder": target.path.name}, overwrite=target.overwrite)
        return paths
    write_pixels_to(target, make_grid(np.stack(list(panels)), columns=1, gap=GAP), sheet_note(notes))
    return [target.path] * len(shares)


def _panels(shares: "Tensor", name: str, *, levels: Sequence[int], colors: str) -> "Pixels":
    """Draw shares [2, K, L + 1] as two panels side by side, the mean orders at their right."""
    import numpy as np

    from polyinr_core.images.grid import make_grid, plot_matrix
    from polyinr_core.rendering.heatmap import mean_orders

    drawn = [
        plot_matrix(
            own.numpy(),
            title=f"{name}: share of each order of {direction}, and their mean",
            row_names=[f"level {level}" for level in levels],
            column_names=[str(order) for order in range(own.shape[1])],
            row_ends=[f"{mean:.2f}" for mean in orders.tolist()],
            colormap=colors,
        )
        for direction, own, orders in zip(DIRECTIONS, shares, mean_orders(shares), strict=True)
    ]
    return make_grid(np.stack(drawn), columns=2, gap=GAP)
