"""Push a model to the hub, with a model card: a YAML header, sample images, facts, results, how to use it."""

import copy
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from polyinr_core.checkpoints.checkpoint import CARD, describe_checkpoint, save_checkpoint
from polyinr_core.checkpoints.hub import CARD_FILE, MODEL_FILE, HubName, parse_hub_name, upload
from polyinr_core.errors import RequestError
from polyinr_core.images.grid import make_grid
from polyinr_core.images.io import encode_image
from polyinr_core.runtime.atomic_io import PathLike, sha256_of, written_beside

if TYPE_CHECKING:
    from .model import Model

TEMPLATE = "model_card.md.jinja"
TASK = "unconditional-image-generation"  # the hub's name, also of class-conditional models without text
TAGS = ["polyinr", "gan", "implicit-neural-representation", "image-generation"]
COLUMNS, ROWS = 8, 4  # of the grid of samples; in a conditional model at most MAX_CLASSES rows, a class each
MAX_CLASSES = 8
MAX_SIDE = 256  # pixels of an image in the grids
DEFAULT_SIDE = 128  # of a model that does not state its resolution
WIDER = (-0.25, -0.25, 1.25, 1.25)
MAX_LISTED = 40  # classes

Results = Mapping[str, Mapping[str, Any]]


def push_model(
    model: "Model",
    repository: str,
    *,
    results: Results | None = None,
    license: str | None = None,
    private: bool | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> HubName:
    """Upload a model, its card and its images to the hub, as one commit. See `Model.push_to_hub`."""
    name = parse_hub_name(repository)
    with TemporaryDirectory() as folder:
        files = model_files(model, name, Path(folder), results=results, license=license)
        origin = f"{model.resolution} px, {model.checkpoint.kimg:g} kimg"
        message = f"Upload {name.repository.partition('/')[2]}: {origin}"
        return upload(name, files, message=message, private=private, overwrite=overwrite, progress=progress)


def write_repository(
    model: "Model",
    repository: str,
    folder: PathLike,
    *,
    results: Results | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write what `push_model` uploads into a folder, to be looked at or pushed by other means. Raises FileError."""
    name = parse_hub_name(repository)
    with written_beside(Path(folder), overwrite=overwrite) as draft:
        draft.mkdir()
        for path, content in model_files(model, name, draft, results=results, license=license).items():
            if isinstance(content, bytes):
                (draft / path).write_bytes(content)
            elif content != draft / path:
                shutil.copyfile(content, draft / path)


def model_files(
    model: "Model", name: HubName, folder: Path, *, results: Results | None, license: str | None
) -> dict[str, bytes | Path]:
    """Return the files of a repository: the model, its card, its images. `folder` may take the model's file."""
    check_results(results or {}, model.sha256)
    file = checkpoint_file(model, folder)
    facts = describe_checkpoint(replace(model.checkpoint, sha256=sha256_of(file)))
    card = model_card(facts, name, results=results or {}, license=license)
    return {MODEL_FILE: file, CARD_FILE: card.encode(), **sample_images(model)}


def check_results(results: Results, sha256: str) -> None:
    """Raise RequestError unless all results are of the model with that hash."""
    for name, result in results.items():
        fakes = result.get("card", {}).get("fakes", {})
        if fakes.get("kind") != "model" or fakes.get("sha256") != sha256:
            raise RequestError(
                f"result {name} is not of this model ({sha256[:12]}...); evaluate this one, or leave it out"
            )


def checkpoint_file(model: "Model", folder: Path) -> Path:
    """Return the file that the model was loaded from, if it is still that; else write the model into `folder`."""
    if model.path is not None and model.path.is_file() and sha256_of(model.path) == model.sha256:
        return model.path
    path = folder / MODEL_FILE
    generator = copy.deepcopy(model.generator).cpu().float()
    save_checkpoint(path, replace(model.checkpoint, generator=generator))
    return path


def sample_images(model: "Model") -> dict[str, bytes]:
    """Return the card's images as PNG files by name: samples, a row for each class, and some beyond the square."""
    side = min(model.resolution or DEFAULT_SIDE, MAX_SIDE)
    seeds = range(COLUMNS)
    if classes := min(model.generator.config.classes, MAX_CLASSES):
        rows = np.concatenate([model.sample(seeds, label=label, resolution=side) for label in range(classes)])
    else:
        rows = model.sample(range(COLUMNS * ROWS), resolution=side)
    wider = model.sample(seeds, resolution=side, window=WIDER)
    return {
        "samples.png": encode_image(make_grid(rows, COLUMNS)),
        "extrapolation.png": encode_image(make_grid(wider, COLUMNS)),
    }


def model_card(facts: Mapping[str, Any], name: HubName, *, results: Results, license: str | None = None) -> str:
    """Return README.md of a model: the hub's YAML header and the text.

    Args:
        facts: What `describe_checkpoint` returns.
        name: Of the model on the hub.
        results: What `polyinr evaluate` writes, by name: {"metrics": {metric: {"value", ...}}, "card"}.
        license: Its identifier on the hub, such as "mit"; by default that of the card within the checkpoint, if any.
    """
    from huggingface_hub import ModelCardData
    from jinja2 import Environment, StrictUndefined

    own = facts["origin"].get(CARD)
    own = own if isinstance(own, dict) else {}
    license = license or next(
        (own[key].lower() for key in ("license", "licence") if isinstance(own.get(key), str)), None
    )
    header = ModelCardData(
        license=license,
        library_name="polyinr",
        pipeline_tag=TASK,
        tags=TAGS,
        model_name=name.repository.partition("/")[2],
        eval_results=eval_results(results) or None,
    )
    classes, resolution = facts["classes"], facts["resolution"]
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string((resources.files("polyinr_core") / "assets" / TEMPLATE).read_text("utf-8"))
    count = f"Seeds 0 to {COLUMNS - 1} in each of the first {min(classes, MAX_CLASSES)} classes, a row each"
    text = template.render(
        title=plain(own.get("name") or name.repository.partition("/")[2]),
        about=plain(own.get("about", "")),
        name=name,
        repository=name.repository,
        samples_text=f"{count if classes else f'Seeds 0 to {COLUMNS * ROWS - 1}'}, not selected, without truncation.",
        res_option="" if resolution else f" --res {DEFAULT_SIDE}",
        res_argument="" if resolution else f", resolution={DEFAULT_SIDE}",
        facts=fact_rows(facts),
        classes=", ".join(map(plain, facts["class_names"][:MAX_LISTED]))
        + (f" and {len(facts['class_names']) - MAX_LISTED} more" if len(facts["class_names"]) > MAX_LISTED else ""),
        limits=[plain(limit) for limit in own.get("limits", ()) if isinstance(limit, str)],
        metrics=metric_rows(results),
        license_text=f"The license is `{license}`."
        if license
        else "Not stated. Ask the owner before you use the model.",
    )
    return f"---\n{header.to_yaml()}\n---\n{text}"


def fact_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the table of a model's facts, without those that are unknown."""
    origin = facts["origin"]
    rows = {
        "architecture": f"{facts['levels']} levels of {facts['channels']} channels, z [{facts['z_dim']}], "
        f"w [{facts['w_dim']}], in the form of the {facts['form']}",
        "parameters": f"{facts['parameters']['total']:,}",
        "cost": f"{facts['flops_per_pixel']:,} FLOPs a pixel",
        "classes": facts["classes"] or "none",
        "trained at": f"{facts['resolution']} px" if facts["resolution"] else None,
        "trained for": f"{facts['kimg']:g} thousand images" if facts["kimg"] else None,
        "stages": origin.get("stages"),
        "data": origin.get("data"),
        "SHA-256 of the data": facts["data_sha256"],
        "weights": origin.get("weights"),
        "SHA-256 of the file": facts["sha256"],
    }
    return [(name, plain(value)) for name, value in rows.items() if value]


def metric_rows(results: Results) -> list[tuple[str, ...]]:
    """Return the table of all results: metric, value, interval, counts of fakes and reals, rule."""
    rows = []
    for result in results.values():
        card = result["card"]
        fakes, reals = card.get("fakes", {}), card.get("reals") or {}
        for metric, estimate in result["metrics"].items():
            rule = card.get("protocols", {}).get(metric.partition("/")[0], {})
            interval = f"{estimate['low']:.4g} to {estimate['high']:.4g}" if "low" in estimate else ""
            real = f"{reals.get('count', '')} of {reals['name']}" if "name" in reals else ""
            size = (
                f"{fakes['count']} at {card.get('resolution', '?')} px, psi {fakes.get('psi', 1):g}"
                if "count" in fakes
                else ""
            )
            network = f"{rule['network']}: " if "network" in rule else ""
            cells = (metric, f"{estimate['value']:.5g}", interval, size, real, f"{network}{rule.get('rule', '')}")
            rows.append(tuple(map(plain, cells)))
    return rows


def eval_results(results: Results) -> list[Any]:
    """Return the comparisons with real images as the hub's model index takes them, each with its dataset."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=TASK,
            dataset_type="image-folder",
            dataset_name=str(result["card"]["reals"]["name"]),
            metric_type=metric.partition("-")[0].partition("/")[0],
            metric_name=metric,
            metric_value=estimate["value"],
        )
        for result in results.values()
        if "name" in (result["card"].get("reals") or {})
        for metric, estimate in result["metrics"].items()
    ]


def plain(value: object) -> str:
    """Return text on one line that does not end a cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")
