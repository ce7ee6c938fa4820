"""Build a gallery: a folder with an HTML page, the images that it shows, their latents, and gallery.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyinr_core.checkpoints.locate import is_bundled, model_argument
from polyinr_core.errors import FileError, RequestError
from polyinr_core.latents.io import write_latents
from polyinr_core.latents.latents import concatenate
from polyinr_core.models.generator import flops_per_pixel
from polyinr_core.rendering.metadata import model_metadata
from polyinr_core.rendering.model import Model
from polyinr_core.rendering.requests import from_seed_numbers
from polyinr_core.runtime.atomic_io import PathLike, check_place, explain, written_beside
from polyinr_core.runtime.resources import check_disk
from polyinr_core.runtime.strict_json import JsonError, are_texts, format_json, parse_json, to_unicode

from .page import LATENTS, export_webgl, fits_webgl, render_page
from .plan import DEFAULT_FRAMES, DEFAULT_PSI, DEFAULT_SEEDS, LIVE_SEEDS, GalleryPlan, plan_gallery
from .sections import Progress, RenderJobs, plan_sections

PAGE, FACTS = "index.html", "gallery.json"
BYTES_PER_PIXEL = 3  # of a PNG at worst


def build_gallery(
    model: Model,
    folder: PathLike,
    *,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    psi_values: Sequence[float] = DEFAULT_PSI,
    label: int | str | None = None,
    resolution: int | None = None,
    frames: int = DEFAULT_FRAMES,
    overwrite: bool = False,
    progress: Progress = lambda pixels: None,
) -> dict[str, Any]:
    """Build the gallery of a model in a folder, which appears once it is complete.

    Args:
        model: the model.
        folder: the folder to make; `index.html` in it is the page.
        seeds: 1 to 128 seeds; each section shows the first of them.
        psi_values: 1 to 24 truncations in -100 to 100.
        label: the class of all images, by name or number; by default each seed draws its own.
        resolution: of most images, 8 to 1024 pixels; by default the training resolution, at least 128 and at most 256.
        frames: of the interpolation, 2 to 480.
        overwrite: replace a gallery or an empty folder, but no other files.
        progress: called with the number of pixels that were rendered.

    Returns:
        The facts in `gallery.json`.

    Raises RequestError, LabelError, FileError.
    """
    path = check_gallery_folder(folder, overwrite=overwrite)
    plan = plan_gallery(
        model.generator.config,
        model.resolution,
        seeds=seeds,
        psi_values=psi_values,
        resolution=resolution,
        frames=frames,
        label=model.class_index(label),
    )
    return GalleryBuilder(model, plan).write(path, overwrite=overwrite, progress=progress)


class GalleryBuilder:
    """A planned gallery: its sections and render jobs. Raises RequestError."""

    def __init__(self, model: Model, plan: GalleryPlan) -> None:
        self.model = model
        self.plan = plan
        self.is_bundled = is_bundled(model.sha256)
        self.model_file = "model.safetensors" if model.path is None else model_argument(model.path)
        self.jobs = RenderJobs(model, plan, model_option=self.model_file)
        self.sections = plan_sections(self.jobs)

    @property
    def pixels(self) -> int:
        """The number of pixels to render."""
        return self.jobs.pixels

    @property
    def teraflops(self) -> float:
        """The floating-point operations of all pixels, in 10^12."""
        return self.pixels * flops_per_pixel(self.model.generator.config) / 1e12

    def write(
        self, folder: Path, *, overwrite: bool = False, progress: Progress = lambda pixels: None
    ) -> dict[str, Any]:
        """Render all images, write the folder, and return the facts. Raises PolyinrError."""
        check_disk(folder, BYTES_PER_PIXEL * self.pixels)
        page = self._page()
        with written_beside(folder, overwrite=overwrite) as draft:
            draft.mkdir()
            self.jobs.write(draft, progress)
            images = from_seed_numbers(self.model, self.plan.seeds, label=self.plan.label)
            write_latents(draft / LATENTS, concatenate([image.latents for image in images]))
            (draft / PAGE).write_text(to_unicode(page), encoding="utf-8")
            facts = self._facts(draft)
            (draft / FACTS).write_text(format_json(facts, indent=1, sort_keys=False) + "\n", encoding="utf-8")
        return facts

    def _page(self) -> str:
        generator, network = self.model.generator, None
        if fits_webgl(generator):
            images = from_seed_numbers(self.model, self.plan.seeds[:LIVE_SEEDS], label=self.plan.label)
            network = export_webgl(generator, [image.latents for image in images])
        return render_page(
            self.model.checkpoint,
            self.plan,
            self.sections,
            network=network,
            model_file=self.model_file,
            is_bundled=self.is_bundled,
        )

    def _facts(self, folder: Path) -> dict[str, Any]:
        """Return what the gallery shows, and the list of its files."""
        images = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
        plan = self.plan
        return {
            "kind": "gallery",
            **model_metadata(self.model),
            "seeds": list(plan.seeds),
            "psi": list(plan.psi_values),
            "label": plan.label,
            "classes": list(plan.classes),
            "size": plan.resolution,
            "frames": plan.frames,
            "pixels": self.pixels,
            "files": [PAGE, FACTS, LATENTS, *images],
        }


def check_gallery_folder(folder: PathLike, *, overwrite: bool) -> Path:
    """Return the path of a gallery to be written. Raises RequestError, FileError."""
    path = Path(folder)
    if path.suffix.lower() in (".html", ".htm"):
        raise RequestError(f"{path}: a gallery is a folder that holds {PAGE}; name the folder")
    path = path if path.name not in ("", "..") else path.resolve()
    if path.exists():
        if not path.is_dir():
            raise FileError(path, "is a file; name a folder for the gallery")
        if not overwrite:
            raise FileError(path, "exists already; choose another name or give --overwrite")
        if path.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise FileError(path, "is the current folder or holds it, and cannot be replaced; name a folder inside it")
        _refuse_other_files(path)
    check_place(path)
    return path


def _refuse_other_files(path: Path) -> None:
    """Raise FileError if a folder holds files that are not those of a gallery."""
    try:
        existing = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
        facts = parse_json((path / FACTS).read_bytes()) if FACTS in existing else {}
        files = facts.get("files") if isinstance(facts, dict) else None
        known = set(files) if isinstance(files, list) and are_texts(files) else set()
    except OSError as error:
        raise explain(path, error) from error
    except JsonError:
        known = set()
    if others := sorted(existing - known):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise FileError(path, f"holds files that do not belong to a gallery ({others[0]}{more}); name another folder")
