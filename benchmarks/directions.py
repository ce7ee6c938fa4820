"""What edits along directions of labels change and leave: python benchmarks/directions.py ENCODER DATASET TABLE

For the animals, whose table says what each face is made of (examples/animals_split.py). Directions are learned from
encoded faces of the training part, by `fit_directions`. Held-out faces are encoded, those without an attribute are
moved along its direction, and a classifier judges the images: a logistic regression of EfficientNet-lite0 features,
which shares nothing with the encoder and learned from real training faces. Prints a table and writes it as JSON below
benchmarks/results/.
"""

import csv
import io
import sys
from pathlib import Path
from typing import Annotated, Any
from zipfile import ZipFile

import numpy as np
import torch
import typer
from PIL import Image
from results_io import facts, write
from torch import Tensor
from torch.nn import functional

from polyinr_core.discriminator.backbones import Lite0Features
from polyinr_core.inversion.encoder import Encoder, load_encoder
from polyinr_core.inversion.loss import load_target
from polyinr_core.latents.directions import DirectionSpace, fit_directions, move
from polyinr_core.latents.latents import Latents, concatenate, in_space
from polyinr_core.rendering.model import Model, load
from polyinr_core.runtime.pretrained import load_pretrained

sys.path.append(str(Path(__file__).parent.parent / "examples"))
from animals_split import BLUE, GRAY, GREEN, split

FEATURE_SIDE = 64  # pixels
ATTRIBUTES = {  # by rows of the table; the archive's dogs are deer, see animals_split.NAMES
    "antlers": lambda row: row["label"] in ("dog", "stag"),
    "green coat": lambda row: row["coat"] in GREEN,
    "blue or gray coat": lambda row: row["coat"] in (*BLUE, *GRAY),
    "hair": lambda row: row["hair"] != "-1",
    "patch": lambda row: row["patch"] != "-1",
    "dark ground": lambda row: luminance(row["ground"]) < 225,
}


def luminance(color: str) -> float:
    """Return the luma of a color such as #c8cf8a, 0-255."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def read_images(archive: Path, indices: list[int], side: int) -> np.ndarray:
    """Return images of the dataset, uint8 [N, side, side, 3]."""
    with ZipFile(archive) as zipped:
        names = sorted(name for name in zipped.namelist() if name.endswith(".png"))
        images = [Image.open(io.BytesIO(zipped.read(names[index]))).convert("RGB") for index in indices]
    return np.stack([np.array(image.resize((side, side), Image.Resampling.BOX)) for image in images])


def encode(encoder: Encoder, model: Model, images: np.ndarray) -> Latents:
    """Return the latents of all images."""
    targets = [load_target(one) for one in images]
    return concatenate([encoder.encode_all(model, targets[at : at + 64]) for at in range(0, len(targets), 64)])


@torch.no_grad()
def features(network: Lite0Features, images: Tensor) -> Tensor:
    """Return the mean and the spread of each channel at all depths, for images [N, 3, H, W] in [-1, 1]."""
    rows = []
    for batch in images.split(32):
        size = (FEATURE_SIDE, FEATURE_SIDE)
        taps = network(functional.interpolate(batch, size=size, mode="bilinear", align_corners=False))
        cells = [functional.adaptive_avg_pool2d(tap, min(4, tap.shape[-1])).flatten(1) for tap in taps]
        rows.append(torch.cat(cells, dim=1))
    return torch.cat(rows)


class Classifier:
    """A logistic regression for each attribute, with a ridge."""

    def __init__(self, rows: Tensor, labels: Tensor, *, ridge: float = 3e-3) -> None:
        self.mean, self.spread = rows.mean(dim=0), rows.std(dim=0) + 1e-3
        self.parameters = torch.zeros(labels.shape[1], rows.shape[1] + 1, requires_grad=True)
        optimizer = torch.optim.LBFGS([self.parameters], max_iter=60, line_search_fn="strong_wolfe")
        scaled, share = (rows - self.mean) / self.spread, labels.float().mean(dim=0)
        weights = torch.where(labels, 0.5 / share, 0.5 / (1 - share))

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = scaled @ self.parameters[:, :-1].T + self.parameters[:, -1]
            loss = functional.binary_cross_entropy_with_logits(logits, labels.float(), weights)
            loss = loss + ridge / 2 * self.parameters[:, :-1].square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return which images have which attribute, bool [N, K]."""
        with torch.no_grad():
            return (rows - self.mean) / self.spread @ self.parameters[:, :-1].T + self.parameters[:, -1] > 0


def colors_of(images: np.ndarray) -> Tensor:
    """Return images [N, H, W, 3] as [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1


def balanced(is_: Tensor, true: Tensor) -> float:
    """Return the mean of the accuracies on the images with and without an attribute."""
    return float((is_[true].float().mean() + (~is_[~true]).float().mean()) / 2)


def main(
    encoder: Path,
    dataset: Path,
    table: Path,
    model: str = "bundled",
    space: str = "w",
    images: int = 2000,
    starts: int = 64,
    amounts: Annotated[str, typer.Option(help="In standard deviations.")] = "1,2,3",
    output: Path = Path("benchmarks/results/directions.json"),
) -> None:
    """Learn directions, edit held-out faces, and count what changed."""
    opened, loaded = load(model), load_encoder(encoder)
    side = loaded.config.resolution
    kind: DirectionSpace = "w" if space == "w" else "affine"
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    parts = split(rows)
    train = parts["train"][:: max(1, len(parts["train"]) // images)][:images]
    held_out = parts["report"]
    labels, truth = (
        torch.tensor([[has(rows[index]) for has in ATTRIBUTES.values()] for index in part])
        for part in (train, held_out)
    )
    real, unseen = read_images(dataset, train, side), read_images(dataset, held_out, side)
    network = Lite0Features(load_pretrained("lite0"))
    judge = Classifier(features(network, colors_of(real)), labels)
    seen_as = judge(features(network, colors_of(unseen)))
    encoded = encode(loaded, opened, real)
    found = fit_directions(in_space(encoded, kind), labels, space=kind, names=tuple(ATTRIBUTES))
    coin = torch.rand(len(labels), 1, generator=torch.Generator().manual_seed(0)) < 0.5
    chance = fit_directions(in_space(encoded, kind), coin, space=kind)  # of labels that mean nothing
    origin = in_space(encode(loaded, opened, unseen), kind)
    before = judge(features(network, rendered(opened, latents_in(kind, origin))))
    figures: list[dict[str, Any]] = []
    for number, name in enumerate(ATTRIBUTES):
        chosen = torch.nonzero(~truth[:, number] & ~before[:, number]).flatten()
        chosen = chosen[:: max(1, len(chosen) // starts)][:starts]
        start = latents_in(kind, origin[chosen])
        others = [column for column in range(len(found)) if column != number]
        for amount in map(float, amounts.split(",")):
            after = judge(features(network, rendered(opened, move(start, found, {number: amount}))))
            kept = (after == before[chosen])[:, others].float().mean(dim=0)
            control = judge(features(network, rendered(opened, move(start, chance, {0: amount}))))
            row = {
                "attribute": name,
                "amount": amount,
                "images": len(chosen),
                "gained": round(float(after[:, number].float().mean()), 3),
                "others_kept": round(float(kept.mean()), 3),
                "kept_by_chance": round(float((control == before[chosen])[:, others].float().mean()), 3),
                "least_kept": [found.name(others[int(kept.argmin())]), round(float(kept.min()), 3)],
            }
            figures.append(row)
            print(" | ".join(map(str, row.values())), flush=True)
    about = facts(
        model={"sha256": opened.sha256},
        encoder=loaded.facts,
        space=space,
        images=len(train),
        judge={name: round(balanced(seen_as[:, i], truth[:, i]), 3) for i, name in enumerate(ATTRIBUTES)},
        figures=figures,
    )
    print(about["judge"])
    write(output, about)


def latents_in(space: DirectionSpace, rows: Tensor) -> Latents:
    """Return latents that are held in that space alone, as moved ones are."""
    return Latents(w=rows) if space == "w" else Latents(affine=rows)


def rendered(model: Model, latents: Latents) -> Tensor:
    """Return the images [N, 3, R, R], clamped to [-1, 1]."""
    parts = [model.render(latents[at : at + 16]).clamp(-1, 1).float() for at in range(0, len(latents), 16)]
    return torch.cat(parts)


if __name__ == "__main__":
    typer.run(main)
