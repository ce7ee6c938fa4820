"""What the rendering commands share: the groups of their options, the model, the images, and writing the result."""

import logging
import os
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_core.errors import FileError, PolyinrError, RequestError

from . import console, options
from .options import Precision
from .parsing import ViewportOptions, parse_viewport_options
from .runtime import choose_device, choose_dtype, job, rank_device, rank_range, several, warn_if_alone

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.rendering.model import Model
    from polyinr_core.rendering.render import Renderer
    from polyinr_core.rendering.requests import ImageRequests
    from polyinr_core.rendering.writers import GridSpec, Output, OutputKind, StdoutFormat

logger = logging.getLogger(__name__)
VARIABLE = "POLYINR_MODEL"


@dataclass(frozen=True)
class LabelOptions:
    """The class and the truncation of images that are named by words."""

    label: options.Label = None
    psi: options.Psi = None
    force: options.Force = False

    def select(self, model: "Model", *words: str) -> "ImageRequests":
        """Return the images of words such as 3, 0-7, FILE and -, in order.

        Raises RequestError, LabelError, FileError.
        """
        from polyinr_core.rendering.requests import chain

        check_stdin_once(*words)
        parts = []
        for word in words:
            is_file = word == "-" or Path(word).suffix or Path(word).exists()
            seeds, latents = (None, Path(word)) if is_file else (word, None)
            parts.append(ImageOptions(seeds, latents, self.label, self.psi, self.force).select(model))
        return chain(parts)


@dataclass(frozen=True)
class ImageOptions:
    """Which images: --seeds or --latents, their class and their truncation."""

    seeds: options.Seeds = None
    latents: options.LatentsFile = None
    label: options.Label = None
    psi: options.Psi = None
    force: options.Force = False

    def check(self) -> None:
        """Raise RequestError unless exactly one of --seeds and --latents is given."""
        if (self.seeds is None) == (self.latents is None):
            raise RequestError("select the images by either --seeds 0-7 or --latents FILE")

    def select(self, model: "Model") -> "ImageRequests":
        """Return the images. Raises RequestError, LabelError, FileError."""
        from polyinr_core.latents.latents import parse_seeds
        from polyinr_core.rendering.requests import from_latents_file, from_seed_numbers

        self.check()
        label = model.class_index(self.label)
        if self.seeds is not None:
            psi = 1.0 if self.psi is None else self.psi
            return from_seed_numbers(model, parse_seeds(self.seeds), label=label, psi=psi)
        assert self.latents is not None
        source = console.binary_stdin() if str(self.latents) == "-" else self.latents
        return from_latents_file(model, source, label=label, psi=self.psi, any_model=self.force)


@dataclass(frozen=True)
class WindowOptions:
    """The size and the window, as typed."""

    res: options.Res = None
    size: options.Size = None
    grid: options.OptionalGrid = None
    stretch: options.Stretch = False
    center: Annotated[str | None, typer.Option(metavar="X,Y", help="Center of the window, with --zoom.")] = None
    zoom: Annotated[float | None, typer.Option(metavar="Z", help="Magnification; the shorter side spans 1/Z.")] = None
    rotate: Annotated[float, typer.Option(metavar="DEGREES", help="Rotate clockwise about the window's center.")] = 0.0
    shear: Annotated[str | None, typer.Option(metavar="X[,Y]", help="Shear about the window's center.")] = None
    transform: Annotated[
        str | None,
        typer.Option(
            metavar="A,...,I",
            help="Homography: a 3 x 3 matrix, row by row, from the window's points (x, y, 1) to the plane's.",
        ),
    ] = None
    warp: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="fisheye, polar, or a coordinate map: a .npy file [H, W, 2] of the point x, y of each pixel.",
        ),
    ] = None
    supersample: options.Supersample = 1

    def parse(self) -> ViewportOptions:
        """Return the options' values. Raises RequestError, FileError."""
        return parse_viewport_options(**vars(self))


@dataclass(frozen=True)
class RunOptions:
    """The model, the device and the dtype it computes with, and what the command replaces and says."""

    model: options.Model = None
    precision: options.PrecisionOption = Precision.auto
    device: options.Device = "auto"
    overwrite: options.Overwrite = False
    as_json: options.Json = False
    quiet: options.Quiet = False
    verbose: options.Verbose = False

    @property
    def reporter(self) -> console.Reporter:
        return console.Reporter(self.as_json, self.quiet)

    def output(
        self,
        text: str,
        *,
        kinds: "Collection[OutputKind] | None" = None,
        payload: str = "image",
        stdout_format: "StdoutFormat | None" = None,
        default_format: "StdoutFormat" = "png",
    ) -> "Output":
        """Read -o and --format; `payload` is what stdout carries by default. Raises RequestError, FileError."""
        from polyinr_core.rendering import writers

        console.refuse_two_payloads(text, as_json=self.as_json)
        kinds = writers.IMAGE_KINDS if kinds is None else kinds
        if stdout_format is not None and text != "-":
            raise RequestError("--format is for -o -; the suffix of a file gives its format")
        stdout = partial(console.binary_stdout, stdout_format or payload)
        format = stdout_format or default_format
        return writers.parse_output(text, overwrite=self.overwrite, kinds=kinds, stdout=stdout, stdout_format=format)

    def open(self, *, is_8_bit: bool = True) -> "Model":
        """Find the model and load it onto its device, in its dtype. Raises PolyinrError.

        A missing GPU is a warning, and the CPU is used. --precision auto is float32 for a model whose images
        bfloat16 would change visibly.
        """
        options.check_paths(self.model)
        import torch

        from polyinr_core.rendering.model import Model

        device = rank_device(choose_device(self.device, otherwise_cpu=True))
        dtype = choose_dtype(self.precision, device, is_8_bit=is_8_bit)
        checkpoint, path = load_model(self.model, quiet=self.quiet)
        model = Model(checkpoint, device=device, dtype=dtype, path=path)
        if self.precision is Precision.auto and dtype == torch.bfloat16 and not model.is_faithful():
            logger.info("bfloat16 would change the images of %s: rendering in float32", path.name)
            model = Model(checkpoint, device=device, path=path)
        logger.info("%s (SHA-256 %s) on %s in %s", path, model.sha256[:12], device, str(model.dtype)[6:])
        return model

    def open_for(
        self, target: "Output", viewport: ViewportOptions, *, bits: int = 8, tolerance: float = 0.0
    ) -> "tuple[Model, Renderer]":
        """Return the model, and the renderer of a viewport for an output. Raises PolyinrError."""
        kind = target.kind.value
        model = self.open(is_8_bit=bits == 8 and kind not in ("array", "latents"))
        return model, renderer_for(model, viewport, bits=bits, is_sized=kind != "latents", tolerance=tolerance)

    def write(
        self, target: "Output", renderer: "Renderer", images: "ImageRequests", *, grid: "GridSpec | None" = None
    ) -> None:
        """Render this process's images, write them, and report each. Raises PolyinrError."""
        from polyinr_core.rendering.writers import SQUARE, check_output, count_steps, write_images

        images, grid = split_over_ranks(images, target, quiet=self.quiet), SQUARE if grid is None else grid
        check_output(target, renderer, count=len(images), grid=grid)
        total, start = count_steps(target, renderer, len(images)), time.monotonic()
        with console.row_progress("rendering", total=total, quiet=self.quiet) as done:
            for path, metadata in write_images(target, renderer, images, grid=grid, progress=done):
                self.reporter.json(path, metadata)
        seconds = time.monotonic() - start
        logger.info("%s in %.3g s, %.3g s each", console.count(len(images), "image"), seconds, seconds / len(images))
        if target.stream is None:
            count = console.count(len(images), "image")
            is_latents = target.kind.value == "latents"
            what = f"latents of {count}" if is_latents else f"{count} of {renderer.width}x{renderer.height}"
            self.reporter.say(f"{what} in {target.path}")

    def write_animation(
        self,
        target: "Output",
        renderer: "Renderer",
        frames: "ImageRequests",
        *,
        fps: float,
        metadata: dict[str, Any],
    ) -> None:
        """Render frames into an animation, or to stdout as raw RGB bytes. Raises PolyinrError."""
        from polyinr_core.rendering.edits import write_frames

        frames = split_over_ranks(frames, target, quiet=self.quiet)
        size = f"{renderer.width}x{renderer.height}"
        if target.stream is not None:
            self.reporter.say(f"read it with: ffmpeg -f rawvideo -pix_fmt rgb24 -s {size} -r {fps:g} -i - path.mkv")
        with console.row_progress("rendering", total=renderer.height * len(frames), quiet=self.quiet) as done:
            write_frames(target, renderer, frames, fps=fps, metadata=metadata, progress=done)
        if target.stream is None:
            self.reporter.say(f"{len(frames)} frames of {size} in {target.path}")


def fit_to_photo(
    renderer: "Renderer", window: WindowOptions, options: ViewportOptions, images: "ImageRequests"
) -> "Renderer":
    """Return the renderer with the shape of the photo that the images were inverted from, if there is one.

    What the options give stays: --size, --grid, --center and --zoom, a coordinate map; --res sets the longer side.
    """
    photo = images.photo
    if photo is None or options.coordinate_map is not None or options.center is not None:
        return renderer
    size = None if window.size is None else options.size
    explicit = options.window if window.grid is not None or window.stretch else None
    shape = renderer.model.viewport(resolution=window.res, size=size, window=explicit, photo=photo)
    fitted = replace(options, size=(shape.width, shape.height), window=shape.window)
    return replace(renderer, viewport=fitted.viewport(renderer.model.resolution or 1))


def split_over_ranks(images: "ImageRequests", output: "Output", *, quiet: bool) -> "ImageRequests":
    """Return the images of this process, all of them if it is alone. Raises RequestError."""
    is_folder = output.kind.value == "folder"
    if not several():
        if is_folder:
            warn_if_alone()
        return images
    if not is_folder:
        raise RequestError(f"several processes write into a folder, each its images; -o {output.path} is not one")
    mine, me = rank_range(len(images)), job()
    message = f"polyinr: rank {me.rank} of {me.world_size}: rendering {len(mine)} of {len(images)} images"
    console.say(message, quiet=quiet, always=True)
    return images.select(mine)


def check_stdin_once(*words: str) -> None:
    """Raise RequestError if - is among the words more than once."""
    if words.count("-") > 1:
        raise RequestError("- is given twice; stdin can be read only once")


def load_model(model: Path | None, *, quiet: bool = False) -> tuple["Checkpoint", Path]:
    """Find a model, read it, and apply the deltas that are named with it.

    Returns the checkpoint and its file; with deltas the file's name is that of all, joined by plus signs.
    Raises PolyinrError.
    """
    from polyinr_core.checkpoints.locate import load_model_file

    return load_model_file(find_model(model, quiet=quiet))


def find_model(model: Path | None, *, quiet: bool = False) -> Path:
    """Return the model file to use, and report it if none or a folder was named. Raises PolyinrError."""
    from polyinr_core.checkpoints.locate import BUNDLED, RUNS, bundled_model, newest_checkpoint, split_deltas

    if model is not None:
        return resolve_folder(model, "-m", quiet=quiet)
    if named := os.environ.get(VARIABLE):
        path = resolve_folder(Path(named), f"${VARIABLE}", quiet=quiet)
        if path != Path(named):
            return path
        if not path.is_file() and not all(part.exists() or str(part) == BUNDLED for part in split_deltas(path)):
            raise FileError(named, f"no such file (named by ${VARIABLE}); name another with -m")
        return _report(path, f"from ${VARIABLE}", quiet=quiet)
    if newest := newest_checkpoint(RUNS):
        return _report(newest, "the newest below ./runs", quiet=quiet)
    if (bundled := bundled_model()).is_file():
        return _report(bundled, "the bundled one", quiet=quiet)
    raise PolyinrError(
        f"no model found: none below ./runs, and ${VARIABLE} is not set; train one (`polyinr train`), convert a "
        "released one (`polyinr convert`), or name one with -m"
    )


def resolve_folder(model: Path, named_by: str, *, quiet: bool) -> Path:
    """Return a model as it is named, the newest checkpoint of a folder, or the cached file of a model on the hub.

    Also in FOLDER+DELTA. Raises FileError, RequestError.
    """
    from polyinr_core.checkpoints.hub import is_hub_name, local_file, model_name
    from polyinr_core.checkpoints.locate import PLUS, newest_in, split_deltas

    base, *deltas = split_deltas(model)
    if is_hub_name(base):
        found = local_file(base, progress=console.is_terminal(sys.stderr) and not quiet)
        console.say(f"polyinr: model {model_name(found)} (named by {named_by})", quiet=quiet, always=True)
    elif base.is_dir():
        found = _report(newest_in(base), f"the newest below {base}, named by {named_by}", quiet=quiet)
    else:
        return model
    return Path(PLUS.join(map(str, [found, *deltas])))


def _report(path: Path, source: str, *, quiet: bool) -> Path:
    from polyinr_core.checkpoints.locate import split_deltas, trained_kimg

    kimg = trained_kimg(split_deltas(path)[0])
    seen = "untrained" if kimg is None else f"trained on {kimg:g} kimg" if kimg else "of unknown kimg"
    console.say(f"polyinr: model {path} ({source}; {seen})", quiet=quiet, always=True)
    return path


def renderer_for(
    model: "Model", viewport: ViewportOptions, *, bits: int = 8, is_sized: bool = True, tolerance: float = 0.0
) -> "Renderer":
    """Return the renderer of a viewport; without `is_sized` the size does not matter. Raises RequestError."""
    from polyinr_core.rendering.render import Renderer

    resolution = model.resolution
    if not resolution:
        if is_sized and not viewport.is_sized:
            raise RequestError(f"{model.path} does not state its resolution; give --res or --size")
        resolution = 1
    return Renderer(model, viewport.viewport(resolution), bits=bits, tolerance=tolerance)
