"""The model that users hold: a generator on a device, with the backend that renders its images."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.checkpoints.hub import HubName, parse_hub_name
from polyinr_core.checkpoints.locate import load_model_file
from polyinr_core.errors import RequestError
from polyinr_core.images.grid import fill_rows
from polyinr_core.latents.latents import Latents, Photo, common_photo, from_seeds, in_space, parse_label, to_affine
from polyinr_core.models.coordinates import Grid, Window, coordinates_at
from polyinr_core.models.generator import Generator, Synthesis, render_checkpointed
from polyinr_core.runtime.atomic_io import PathLike

from .backends import Backend, in_precision, is_faithful, select_backend
from .render import pixels_per_batch, render_rows
from .viewport import Viewport, scaled_size

Precision = Literal["float32", "bfloat16", "float64"]
DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
PROBE_SEEDS = range(8)  # of the images that decide whether bfloat16 is close enough


def load(
    model: PathLike | None = None, *, device: str | torch.device = "cpu", precision: Precision = "float32"
) -> "Model":
    """Load a model.

    Args:
        model: A checkpoint, a run folder (its newest checkpoint is taken), "MODEL+DELTA", "hf:OWNER/NAME[@REVISION]"
            on the hub, "bundled" or None for the model that comes with the package.
        device: "cpu", "cuda", "cuda:N" or "mps".
        precision: "float32", "float64", or "bfloat16", in which only the n x n products are reduced.

    Raises FileError, CheckpointError, RequestError.
    """
    if precision not in DTYPES:
        raise RequestError(f"precision {precision!r} is unknown; choose from {', '.join(DTYPES)}")
    checkpoint, path = load_model_file(model)
    return Model(checkpoint, device=device, dtype=DTYPES[precision], path=path)


class Model:
    """A generator on its device, in its dtype, with the backend that evaluates it.

    Attributes:
        checkpoint: The weights and what is known of them.
        synthesis: The synthesis network in `dtype`.
        device: Where images are rendered.
        dtype: torch.float32, torch.float64, or torch.bfloat16 for the n x n products alone.
        path: The file the model was loaded from, if any.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        path: Path | None = None,
    ) -> None:
        """Move the checkpoint's generator, in place, to the device and, for float64, to that dtype."""
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        self.dtype = dtype
        self.path = path
        self.generator.to(device=self.device, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        self.synthesis: Synthesis = in_precision(self.generator.synthesis, dtype)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
    ) -> "Model":
        """Load a model from the Hugging Face hub, or from a file or folder of that name.

        Args:
            name: "OWNER/NAME". It is downloaded once and then read from huggingface_hub's cache, also offline.
            revision: A branch, a tag or a commit; by default the newest commit of the main branch.
            device, precision: As for `load`.

        Raises FileError, CheckpointError, RequestError.
        """
        if revision is None and os.path.exists(name):
            return load(name, device=device, precision=precision)
        hub_name = HubName(parse_hub_name(name).repository, revision or parse_hub_name(name).revision)
        return load(str(hub_name), device=device, precision=precision)

    def push_to_hub(
        self,
        name: str,
        *,
        results: Sequence[Mapping[str, Any]] = (),
        license: str | None = None,
        private: bool | None = None,
        overwrite: bool = False,
    ) -> str:
        """Upload the model to the Hugging Face hub with a model card and sample images, as one commit.

        Args:
            name: "OWNER/NAME"; a missing repository is created.
            results: What `evaluate` returned for this model, for the card.
            license: An identifier of the hub, such as "mit"; by default that of the card in the checkpoint.
            private: Whether a new repository is private; by default as the owner has set.
            overwrite: Whether a model or a card that the repository holds is replaced.

        Returns: "hf:OWNER/NAME@COMMIT", which `load` takes. Raises RequestError, FileError.
        """
        from .model_card import push_model

        numbered = {str(number): result for number, result in enumerate(results, 1)}
        pushed = push_model(self, name, results=numbered, license=license, private=private, overwrite=overwrite)
        return str(pushed)

    def export(self, path: PathLike, *, overwrite: bool = False) -> dict[str, Any]:
        """Export the generator as a .onnx file or a .pt2 file of torch.export, in float32; see docs/export.md.

        Returns: The facts in the file's metadata. Raises RequestError, FileError.
        """
        from polyinr_core.checkpoints.export import export_model

        return export_model(path, self.checkpoint, overwrite=overwrite)

    @property
    def generator(self) -> Generator:
        """The network: `mapping`, `affine`, `synthesis`, `config`."""
        return self.checkpoint.generator

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, as far as they have any."""
        return self.checkpoint.class_names

    @property
    def class_titles(self) -> tuple[str, ...]:
        """The name of every class, or its number where it has none."""
        names = self.class_names
        return (*names, *map(str, range(len(names), self.generator.config.classes)))

    @property
    def resolution(self) -> int:
        """The last training resolution, in pixels; 0 if unknown."""
        return self.checkpoint.resolution

    @property
    def sha256(self) -> str:
        """The hash of the checkpoint file, by which images and latents remember it."""
        return self.checkpoint.sha256

    @cached_property
    def backend(self) -> Backend:
        """What evaluates the synthesis network. Built once: it does not follow later changes of the weights."""
        return select_backend(self.synthesis, self.device)

    def is_faithful(self) -> bool:
        """Return whether the first images are, in the model's dtype, visually identical to float32."""
        latents = from_seeds(self.generator, PROBE_SEEDS)
        return is_faithful(self.synthesis, self.generator.synthesis, in_space(latents, "affine"))

    def class_index(self, label: int | str | None) -> int | None:
        """Return the index of a class that is given by name or number, None for None. Raises LabelError."""
        if label is None:
            return None
        return parse_label(str(label), classes=self.generator.config.classes, class_names=self.class_names)

    def latents(self, seeds: Sequence[int], *, label: int | str | None = None, psi: float = 1.0) -> Latents:
        """Draw the latents of N seeds: z [N, z_dim], w [N, L, w_dim], affine [N, L, 3, n].

        Args:
            seeds: Integers in 0 to 2^32 - 1. A seed gives the same image in any batch.
            label: The class of all images, by name or number. By default each seed draws its own.
            psi: Truncation: 1 is none, 0 gives the mean image.

        Raises LabelError, RequestError.
        """
        latents = from_seeds(self.generator, list(seeds), label=self.class_index(label), psi=psi)
        return replace(latents, model_sha256=self.sha256)

    def complete(self, latents: Latents, *, psi: float | None = None) -> Latents:
        """Complete latents up to their affine parameters, truncated again if `psi` is given.

        Raises RequestError, LabelError.
        """
        return replace(to_affine(self.generator, latents, psi=psi), model_sha256=self.sha256)

    def viewport(
        self,
        *,
        resolution: int | None = None,
        size: tuple[int, int] | None = None,
        window: Window | None = None,
        photo: Photo | None = None,
    ) -> Viewport:
        """Return the viewport of an image of resolution x resolution, or of size (width, height), pixels.

        A photo that the image was inverted from gives what the arguments do not: its window, its size, and its aspect
        ratio, with `resolution` as the longer side. Without one, the default is the training resolution and the window
        of `Viewport`. Raises RequestError if the resolution is unknown, ConfigError.
        """
        window = window if window is not None or photo is None else photo.window
        if size is None and photo is not None:
            size = photo.size if resolution is None else scaled_size(photo.size, resolution)
        if size is None:
            side = resolution or self.resolution
            if not side:
                raise RequestError("the model does not state its resolution; give resolution or size")
            size = (side, side)
        return Viewport(*size) if window is None else Viewport(*size, window)

    def grid(self, viewport: Viewport) -> Grid:
        """Return the coordinates of a viewport's pixels: the learned ones of a released model where it has them."""
        if viewport.is_axis_aligned:
            return self.checkpoint.grid(viewport.width, viewport.height, window=viewport.window)
        return viewport.grid()

    def render(
        self,
        latents: Latents,
        *,
        resolution: int | None = None,
        size: tuple[int, int] | None = None,
        window: Window | None = None,
        viewport: Viewport | None = None,
        requires_grad: bool = False,
    ) -> Tensor:
        """Render images as a tensor [N, 3, H, W] of colors, about -1 to 1, on the model's device.

        Args:
            latents: N images; what they hold closest to the image is rendered.
            resolution: Width and height in pixels; by default the training resolution, or the shape of the photos that
                the latents were inverted from: `viewport`.
            size: Width and height in pixels, where they differ.
            window: The part x0, y0, x1, y1 of the plane; the model is trained on (0, 0, 1, 1). By default pixels are
                square, and the shorter side spans 0 to 1.
            viewport: Instead of the three before it: also a homography, a warp, or supersampling.
            requires_grad: Keep the graph, so that gradients reach `latents.affine` or `latents.w`, and the weights
                that require them. The features are recomputed in the backward pass, chunk by chunk.

        Raises RequestError, ConfigError.
        """
        if viewport is None:
            photo = common_photo(latents.photos)
            viewport = self.viewport(resolution=resolution, size=size, window=window, photo=photo)
        if requires_grad:
            return self._render_with_grad(latents, viewport)
        images = [
            torch.cat(list(self.render_rows(latents[index], viewport))).permute(2, 0, 1)  # [3, H, W]
            for index in range(len(latents))
        ]
        if not images:
            return torch.empty(0, 3, viewport.height, viewport.width, device=self.device)
        return torch.stack(images)

    def render_rows(self, latents: Latents, viewport: Viewport, *, tolerance: float = 0.0) -> Iterator[Tensor]:
        """Render one image of any size, as bands [rows, W, 3] from top to bottom, in constant memory.

        Args:
            latents: One image.
            viewport: Its size and window.
            tolerance: Steps of 255 that 99.9 % of the pixels may be off by, for speed; 0 is exact.

        Raises RequestError.
        """
        if len(latents) != 1:
            raise RequestError(f"the rows of one image are rendered at a time, not of {len(latents)}")
        affine = self.affine_of(self.complete(latents))[0]
        grid = self.grid(viewport)
        return render_rows(self.backend, affine, grid, supersample=viewport.supersample, tolerance=tolerance)

    def sample(
        self,
        seeds: Sequence[int],
        *,
        label: int | str | None = None,
        psi: float = 1.0,
        resolution: int | None = None,
        size: tuple[int, int] | None = None,
        window: Window | None = None,
    ) -> NDArray[np.uint8]:
        """Draw the latents of N seeds and render them as an array [N, H, W, 3] of 8 bits.

        The arguments are those of `latents` and `render`. Raises LabelError, RequestError, ConfigError.
        """
        viewport = self.viewport(resolution=resolution, size=size, window=window)
        pixels = np.empty((len(seeds), viewport.height, viewport.width, 3), dtype=np.uint8)
        for index, seed in enumerate(seeds):
            fill_rows(pixels[index], self.render_rows(self.latents([seed], label=label, psi=psi), viewport))
        return pixels

    def affine_of(self, latents: Latents) -> Tensor:
        """Return affine parameters [N, L, 3, n] on the model's device, in the dtype of its coordinates."""
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        return in_space(latents, "affine").to(device=self.device, dtype=wide)

    def _render_with_grad(self, latents: Latents, viewport: Viewport) -> Tensor:
        if latents.affine is None and latents.w is not None:
            latents = replace(latents, affine=self.generator.affine(latents.w.to(self.generator.mapping.w_avg)))
        affine = self.affine_of(latents if latents.affine is not None else self.complete(latents))
        grid, k = self.grid(viewport), viewport.supersample
        index = torch.arange(grid.width * grid.height, device=self.device)
        coordinates = coordinates_at(grid, index, dtype=affine.dtype)  # [P, 3]
        colors = render_checkpointed(self.synthesis, affine, coordinates, chunk=pixels_per_batch(self.device))
        image = colors.mT.unflatten(2, (grid.height, grid.width))  # [N, 3, k H, k W]
        return image if k == 1 else torch.nn.functional.avg_pool2d(image, k)
