"""Export a generator, from z and coordinates to colors, as ONNX or as a program of torch.export (.pt2)."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polyinr_core.errors import RequestError
from polyinr_core.models.generator import AffineNetwork, Generator
from polyinr_core.models.layers import rms_normalize
from polyinr_core.runtime.atomic_io import PathLike, written_beside

from .checkpoint import Checkpoint

OPSET = 23  # of ONNX; also of onnxruntime-web
EXTRA = ("onnx", "onnxscript")  # what torch's exporter imports
METADATA = "polyinr"  # the key of the facts, JSON, in either file
OUTPUT = "colors"
EXAMPLE_IMAGES, EXAMPLE_PIXELS = 2, 5  # 1 would be taken for a constant

ExportFormat = Literal["onnx", "pt2"]


class ExportedGenerator(nn.Module):
    """Mapping, affine and synthesis network in one forward pass without data-dependent branches.

    The formulas are those of `Generator`, whose checks of labels and in-place steps a program cannot hold. Labels are
    not checked: one outside the classes is an error, or undefined, in whatever runs the program.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, coordinates: Tensor, psi: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the colors [N, P, 3], about [-1, 1], of the images of z [N, z_dim] and label [N], int64.

        Coordinates (x, y, 1) are [P, 3]; psi is [N].
        """
        mapping = self.generator.mapping
        h = rms_normalize(z)
        if label is not None:
            h = torch.cat([h, rms_normalize(mapping.label_proj(mapping.table(label)))], dim=-1)
        for layer in mapping.layers:
            h = layer(h)
        w = torch.lerp(mapping.w_avg_for(label).expand_as(h), h, psi[:, None])  # [N, w_dim]
        matrices, synthesis = affine_matrices(self.generator.affine, w), self.generator.synthesis
        h = synthesis.activate(torch.matmul(coordinates, synthesis.fold_first(matrices[0])))  # [N, P, n]
        for product, matrix in zip(list(synthesis.products)[1:], matrices[1:], strict=True):
            h = synthesis.activate(product(h * synthesis.modulation(matrix, coordinates)))
        return synthesis.to_rgb(h)


def affine_matrices(affine: AffineNetwork, w: Tensor) -> list[Tensor]:
    """Return the affine parameters [N, 3, n] of each level for one w [N, w_dim]; as `AffineNetwork.forward`."""
    chain = torch.eye(3, dtype=w.dtype, device=w.device).expand(w.shape[0], 3, 3)
    matrices = []
    for level in affine.levels:
        own, step = level(w)
        if step is not None:
            chain = torch.cat([chain @ step, chain[:, :, 2:]], dim=-1)  # [N, 3, 3]
            own = chain @ own
        matrices.append(own)
    return matrices


def export_format(path: PathLike) -> ExportFormat:
    """Return the format that a file's suffix names. Raises RequestError."""
    formats: dict[str, ExportFormat] = {".onnx": "onnx", ".pt2": "pt2"}
    if (format := formats.get(Path(path).suffix.lower())) is None:
        raise RequestError(f"{path}: a model is exported as .onnx (ONNX) or .pt2 (torch.export); name it so")
    return format


def check_extra(format: ExportFormat) -> None:
    """Raise RequestError if a library that a format needs is not installed."""
    from importlib.util import find_spec

    if format == "onnx" and (missing := [name for name in EXTRA if find_spec(name) is None]):
        raise RequestError(f"ONNX needs {' and '.join(missing)}; run pip install {' '.join(missing)}, or export a .pt2")


def export_model(path: PathLike, checkpoint: Checkpoint, *, overwrite: bool = False) -> dict[str, Any]:
    """Export a checkpoint's generator, in float32, with batch and pixels as free axes.

    Args:
        path: A .onnx file, or a .pt2 file for `torch.export.load`.
        checkpoint: The model.
        overwrite: Replace the file.

    Returns: The facts that the file's metadata holds. Raises RequestError, FileError.
    """
    path, format = Path(path), export_format(path)
    check_extra(format)
    facts = export_facts(checkpoint)
    program = trace(copy.deepcopy(checkpoint.generator).cpu().float())
    data = BytesIO()  # first, as a full disk is no OSError in PyTorch's own writer
    if format == "pt2":
        torch.export.save(program, data, extra_files={METADATA: json.dumps(facts)})
    else:
        data.write(encode_onnx(program, facts))
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data.getvalue())
    return facts


def export_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a user of the exported program needs to know: sizes, classes, resolution, the model's hash."""
    config = checkpoint.generator.config
    return {
        "z_dim": config.z_dim,
        "classes": config.classes,
        "class_names": list(checkpoint.class_names),
        "resolution": checkpoint.resolution,
        "window": [0, 0, 1, 1],
        "model_sha256": checkpoint.sha256,
        "inputs": list(input_names(checkpoint.generator)),
    }


def input_names(generator: Generator) -> tuple[str, ...]:
    """Return the names of the program's inputs, in order."""
    return ("z", "coordinates", "psi", *(("label",) if generator.config.classes else ()))


def trace(generator: Generator) -> torch.export.ExportedProgram:
    """Return the generator as a program whose batch and pixel axes are free."""
    batch, pixels = torch.export.Dim("batch"), torch.export.Dim("pixels")
    like, config = generator.mapping.w_avg, generator.config
    inputs = {  # an example, and its free axis
        "z": (like.new_ones(EXAMPLE_IMAGES, config.z_dim), batch),
        "coordinates": (like.new_ones(EXAMPLE_PIXELS, 3), pixels),
        "psi": (like.new_ones(EXAMPLE_IMAGES), batch),
        "label": (torch.zeros(EXAMPLE_IMAGES, dtype=torch.int64), batch),
    }
    names = input_names(generator)
    examples, shapes = tuple(inputs[name][0] for name in names), {name: {0: inputs[name][1]} for name in names}
    with torch.no_grad(), quiet_exporter():
        return torch.export.export(ExportedGenerator(generator).eval(), examples, dynamic_shapes=shapes)


def encode_onnx(program: torch.export.ExportedProgram, facts: dict[str, Any]) -> bytes:
    """Return a program as the bytes of an ONNX file, with the facts in its metadata."""
    import onnx

    with quiet_exporter():
        exported: Any = torch.onnx.export(
            program, input_names=facts["inputs"], output_names=[OUTPUT], opset_version=OPSET, dynamo=True, verbose=False
        )
    model = exported.model_proto
    name_axes(model.graph)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(facts)})
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def name_axes(graph: Any) -> None:
    """Name the free axes of inputs and outputs batch and pixels; the exporter numbers them."""
    graph.ClearField("value_info")  # shapes in between, by the old names
    first = {value.name: value.type.tensor_type.shape.dim[0].dim_param for value in graph.input}
    names = {first["z"]: "batch", first["coordinates"]: "pixels"}
    for value in (*graph.input, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = names[axis.dim_param]


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings and messages about its own workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
