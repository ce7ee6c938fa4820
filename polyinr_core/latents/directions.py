"""Editing directions in w or in the affine parameters: principal components, and attributes learned from labels.

GANSpace, Härkönen et al., 2020; InterFaceGAN, Shen et al., 2020.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn import functional

from polyinr_core.errors import RequestError
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.resources import check_memory

from .latents import MAX_NUMBER, Latents, from_seeds, in_space

DirectionSpace = Literal["w", "affine"]
DIRECTION_SPACES: tuple[DirectionSpace, ...] = get_args(DirectionSpace)
CHUNK = 1024  # columns or rows in float64 at a time
MIN_DEVIATION = 1e-6  # of the largest; below it variation is rounding error
MAX_COMPONENTS = 64  # in which a classifier of labels works
RIDGE = 0.01  # of its weights, for scores of standard deviation 1
FIT_STEPS = 100  # of L-BFGS


@dataclass(frozen=True)
class Directions:
    """K directions of a space: principal ones by falling variance, or one for each attribute in `names`.

    Attributes:
        mean: [L, w_dim] or [L, 3, n], the mean of the samples.
        components: [K, *mean.shape], of Euclidean length 1; of a principal one the entry of largest magnitude is
            positive, and along that of an attribute images gain it.
        deviations: [K], the standard deviation along each direction.
        shares: [K], the fraction of all variance.
        samples: The number of seeds, from 0 on, that were analyzed, with `psi` and `label`; or of labeled images.
        names: The attributes; none for principal directions.
    """

    space: DirectionSpace
    mean: Tensor
    components: Tensor
    deviations: Tensor
    shares: Tensor
    samples: int
    psi: float = 1.0
    label: int | None = None
    model_sha256: str = ""
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.components)

    def name(self, index: int) -> str:
        """Return what an image says of a direction."""
        return self.names[index] if self.names else f"direction {index}"

    def describe(self) -> dict[str, Any]:
        """Return how the directions were found, and the fraction of the variance that each explains."""
        names = {"names": list(self.names)} if self.names else {}
        return {
            "kind": "directions",
            "count": len(self),
            "space": self.space,
            "shape": list(self.mean.shape),
            "samples": self.samples,
            "psi": self.psi,
            "label": self.label,
            "shares": [round(share, 4) for share in self.shares.tolist()],
            "deviations": [round(deviation, 4) for deviation in self.deviations.tolist()],
            "model": self.model_sha256,
            **names,
        }


class HasGenerator(Protocol):
    """A `Model` or a `Checkpoint`."""

    @property
    def generator(self) -> Generator: ...

    @property
    def sha256(self) -> str: ...


@torch.no_grad()
def find_directions(
    model: HasGenerator,
    *,
    space: DirectionSpace = "w",
    samples: int = 2000,
    count: int = 10,
    label: int | None = None,
    psi: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> Directions:
    """Find the principal directions of the latents of seeds 0 to samples-1.

    Args:
        model: A `Model` or a `Checkpoint`.
        space: "w" or "affine".
        samples: The number of seeds. All their latents are held in memory.
        count: The number of directions, less than `samples`.
        label: The class of all samples. By default each seed draws its own class.
        psi: Truncation of the samples.
        progress: Called with 1 after each sample.

    Raises RequestError, LabelError.
    """
    if not 1 <= count < samples:
        raise RequestError(f"{samples} samples have at most {samples - 1} directions, not {count}")
    config = model.generator.config
    dim = config.levels * (config.w_dim if space == "w" else 3 * config.channels)
    needed = 4 * samples * dim + 3 * 8 * min(dim, samples) ** 2  # latents, Gram matrix, eigenvectors
    check_memory(needed, purpose=f"finding directions in {samples} samples", advice="use fewer samples")
    rows: Tensor | None = None
    shape = torch.Size()
    for seed in range(samples):
        latents = from_seeds(model.generator, [seed], label=label, psi=psi)
        sample = in_space(latents, space)[0].float().cpu()
        if rows is None:
            shape = sample.shape
            rows = torch.empty(samples, sample.numel())
        rows[seed] = sample.flatten()
        if progress is not None:
            progress(1)
    assert rows is not None
    mean, components, deviations, shares = principal_components(rows, count)
    return Directions(
        space=space,
        mean=mean.view(shape).float(),
        components=components.view(count, *shape).float(),
        deviations=deviations.float(),
        shares=shares.float(),
        samples=samples,
        psi=psi,
        label=label,
        model_sha256=model.sha256,
    )


def principal_components(rows: Tensor, count: int, *, fewer: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean [D], components [K, D], deviations [K] and variance shares [K] of rows [N, D], in float64.

    Computed from the eigenvectors of the smaller Gram matrix of the centered rows, D x D or N x N. Deviations
    divide by N - 1. Raises RequestError if fewer directions vary, unless `fewer` will do, but for none.
    """
    samples, dim = rows.shape
    mean = rows.mean(dim=0, dtype=torch.float64)
    chunks = range(0, max(samples, dim), CHUNK)
    wide = dim > samples
    product = torch.zeros((samples, samples) if wide else (dim, dim), dtype=torch.float64)
    for start in chunks:
        if wide:
            part = rows[:, start : start + CHUNK].double() - mean[start : start + CHUNK]
            product += part @ part.T
        elif start < samples:
            part = rows[start : start + CHUNK].double() - mean
            product += part.T @ part
    total = float(product.trace())
    if not math.isfinite(total):
        raise RequestError("the latents hold NaN or Inf, or overflow; there are no directions")
    values, vectors = torch.linalg.eigh(product)  # rising
    values, vectors = values.flip(0)[:count].clamp(min=0), vectors.flip(1)[:, :count]
    varied = int((values.sqrt() > MIN_DEVIATION * values[0].sqrt()).sum()) if total > 0 else 0
    if varied < count and not (fewer and varied):
        raise RequestError(f"only {varied} directions vary in {samples} samples, not {count}")
    values, vectors = values[:varied], vectors[:, :varied]
    components = vectors.T
    if wide:
        parts = [
            vectors.T @ (rows[:, start : start + CHUNK].double() - mean[start : start + CHUNK])
            for start in range(0, dim, CHUNK)
        ]
        components = torch.cat(parts, dim=1)
    components = components / components.norm(dim=1, keepdim=True)
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return mean, components * largest.sign(), (values / (samples - 1)).sqrt(), values / total


def fit_directions(
    latents: Tensor,
    labels: Tensor,
    *,
    space: DirectionSpace = "w",
    names: Sequence[str] = (),
    model_sha256: str = "",
) -> Directions:
    """Fit a direction to each of K attributes, by a linear classifier of labeled latents.

    The classifier is a logistic regression on the scores of the principal components, divided by their deviations,
    with a small ridge; positive and negative labels weigh the same. The direction is its gradient there, mapped back:
    of all changes that raise the attribute as much, the likeliest under the Gaussian of the latents.

    Args:
        latents: [N, L, w_dim] or [N, L, 3, n], of labeled samples or encoded images.
        labels: bool [N, K]; each attribute needs two images with it and two without.
        space: "w" or "affine", in which the latents are.
        names: of the attributes.
        model_sha256: the model of the latents.

    Raises RequestError.
    """
    counts = labels.sum(dim=0)
    for index, count in enumerate(counts.tolist()):
        if not 2 <= count <= len(labels) - 2:
            name = names[index] if names else index
            raise RequestError(f"{count} of {len(labels)} images are {name}; two with it and two without are needed")
    rows = latents.float().flatten(1).cpu()
    count = min(MAX_COMPONENTS, len(rows) - 1, rows.shape[1])
    mean, components, deviations, shares = principal_components(rows, count, fewer=True)
    scores = (rows.double() - mean) @ components.T / deviations  # [N, C]
    change = (_classifier(scores, labels.cpu()) * deviations) @ components  # [K, D]
    change = change / change.norm(dim=1, keepdim=True)
    spread = (change @ components.T * deviations).norm(dim=1)  # [K]
    total = float(deviations[0] ** 2 / shares[0])
    shape = latents.shape[1:]
    return Directions(
        space=space,
        mean=mean.view(shape).float(),
        components=change.view(-1, *shape).float(),
        deviations=spread.float(),
        shares=(spread**2 / total).float(),
        samples=len(rows),
        model_sha256=model_sha256,
        names=tuple(names),
    )


def _classifier(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the weights [K, C] of K logistic regressions of labels [N, K] on scores [N, C], in float64."""
    labels = labels.double()
    share = labels.mean(dim=0)
    weights = torch.where(labels > 0, 0.5 / share, 0.5 / (1 - share))  # [N, K], of mean 1
    parameters = scores.new_zeros(labels.shape[1], scores.shape[1] + 1).requires_grad_()  # the last is the bias
    optimizer = torch.optim.LBFGS([parameters], max_iter=FIT_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        logits = scores @ parameters[:, :-1].T + parameters[:, -1]
        loss = functional.binary_cross_entropy_with_logits(logits, labels, weights, reduction="none").mean(dim=0).sum()
        loss = loss + RIDGE / 2 * parameters[:, :-1].square().sum()
        (parameters.grad,) = torch.autograd.grad(loss, parameters)
        return loss

    optimizer.step(closure)
    return parameters[:, :-1].detach()


def move(
    latents: Latents,
    directions: Directions,
    amounts: Mapping[int, float],
    *,
    levels: Sequence[int] | None = None,
) -> Latents:
    """Move images along directions.

    Args:
        latents: N images, held in the space of the directions.
        directions: From `find_directions` or `read_directions`.
        amounts: Standard deviations by direction, such as {2: 1.5, 0: -1.0}.
        levels: The levels that move; by default all.

    Returns:
        Latents in the space of the directions alone; `Model.render` completes them.

    Raises RequestError.
    """
    moved = in_space(latents, directions.space).clone()
    rows: list[int] = list(range(moved.shape[1]) if levels is None else levels)
    for index, amount in amounts.items():
        if not 0 <= index < len(directions):
            raise RequestError(f"direction {index} is outside 0-{len(directions) - 1}")
        step = directions.components[index].to(moved) * (amount * float(directions.deviations[index]))
        moved[:, rows] += step[rows]
    if directions.space == "affine":
        return Latents(affine=moved, label=latents.label)
    return Latents(w=moved, label=latents.label)


def parse_moves(text: str, *, names: Sequence[str] = ()) -> dict[int, float]:
    """Parse "2:1.5,0:-1" as {2: 1.5, 0: -1.0}: standard deviations by direction; it may have one of the names.

    Raises RequestError.
    """
    moves: dict[int, float] = {}
    for part in text.split(","):
        number, colon, amount = part.rpartition(":")
        if number.strip() in names:
            number = str(names.index(number.strip()))
        if not colon or not number.strip().isascii() or not number.strip().isdecimal():
            known = f" (the file has {', '.join(names)})" if names else ""
            raise RequestError(
                f"{part!r} is not understood; write DIRECTION:AMOUNT, such as 2:1.5 or 2:1.5,0:-1{known}"
            )
        if int(number) in moves:
            raise RequestError(f"direction {int(number)} is given twice")
        (moves[int(number)],) = parse_amounts([amount])
    return moves


def parse_amounts(parts: Iterable[str]) -> list[float]:
    """Parse amounts in standard deviations. Raises RequestError."""
    amounts = []
    for part in parts:
        try:
            amounts.append(float(part))
        except ValueError:
            raise RequestError(f"amount {part.strip()!r} is not a number; write one such as -3 or 1.5") from None
        if not abs(amounts[-1]) <= MAX_NUMBER:
            raise RequestError(f"amount {part.strip()} is outside -1e6 to 1e6; -3 to 3 is usual")
    return amounts
