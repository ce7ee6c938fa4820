"""Principal directions: their mathematics, moving along them, and their file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
from rounding import assert_rounded

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.errors import FileError, RequestError
from polyinr_core.latents import directions as module
from polyinr_core.latents.direction_files import check_directions, encode_directions, read_directions, write_directions
from polyinr_core.latents.directions import (
    Directions,
    find_directions,
    fit_directions,
    move,
    parse_moves,
    principal_components,
)
from polyinr_core.latents.io import encode_latents
from polyinr_core.latents.latents import Latents, from_seeds
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.tensor_files import encode_tensors


@pytest.fixture(scope="module")
def checkpoint(tiny_class_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_class_checkpoint)


@pytest.fixture(scope="module")
def generator(checkpoint: Checkpoint) -> Generator:
    return checkpoint.generator


@pytest.mark.parametrize(("samples", "dim"), [(40, 7), (12, 50), (9, 9)])
def test_principal_against_numpy(monkeypatch: pytest.MonkeyPatch, samples: int, dim: int):
    """Oracle: numpy.linalg.svd of the centerd rows, float64; chunks of 5 so that there are several."""
    monkeypatch.setattr(module, "CHUNK", 5)
    rows = torch.randn(samples, dim, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 1, dim) + 2
    mean, components, deviations, shares = principal_components(rows, 4)
    centerd = rows.double().numpy() - rows.double().numpy().mean(axis=0)
    _, lengths, vectors = np.linalg.svd(centerd, full_matrices=False)
    assert mean.numpy() == pytest.approx(rows.double().numpy().mean(axis=0))
    assert deviations.numpy() == pytest.approx(lengths[:4] / np.sqrt(samples - 1))
    assert shares.numpy() == pytest.approx(lengths[:4] ** 2 / (lengths**2).sum())
    for ours, theirs in zip(components.numpy(), vectors, strict=False):
        assert abs(ours @ theirs) == pytest.approx(1, abs=1e-9)
        assert ours[np.abs(ours).argmax()] > 0


def test_fewer_directions_than_asked():
    rows = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)) @ torch.ones(2, 6)
    with pytest.raises(RequestError, match="only 1 directions vary"):
        principal_components(rows, 2)
    with pytest.raises(RequestError, match="only 0"):
        principal_components(torch.ones(5, 3), 1)


@pytest.mark.parametrize("space", ["w", "affine"])
def test_of_a_model(generator: Generator, checkpoint: Checkpoint, space):
    """Directions stand at right angles; the seeds vary along them as they say; the same again is the same."""
    found = find_directions(checkpoint, space=space, samples=60, count=3)
    flat = found.components.flatten(1)
    assert_rounded(flat @ flat.T, torch.eye(3), terms=flat.shape[1])
    held = torch.cat([getattr(from_seeds(generator, [seed]), space) for seed in range(60)])
    along = (held.double() - found.mean).flatten(1) @ flat.T.double()
    assert_rounded(along.std(dim=0), found.deviations, terms=flat.shape[1])
    again = find_directions(checkpoint, space=space, samples=60, count=3)
    assert encode_directions(found) == encode_directions(again)
    assert 0 < float(found.shares.sum()) <= 1 + 1e-6


def test_one_class(generator: Generator, checkpoint: Checkpoint):
    found = find_directions(checkpoint, space="w", samples=20, count=2, label=1, psi=0.5)
    held = torch.cat([from_seeds(generator, [seed], label=1, psi=0.5).w for seed in range(20)])
    assert_rounded(found.mean, held.double().mean(dim=0), terms=20)
    assert (found.label, found.psi, found.samples) == (1, 0.5, 20)


@pytest.mark.parametrize(("samples", "count"), [(5, 5), (5, 0), (1, 1)])
def test_counts(generator: Generator, checkpoint: Checkpoint, samples: int, count: int):
    with pytest.raises(RequestError, match="directions"):
        find_directions(checkpoint, space="w", samples=samples, count=count)


@pytest.mark.parametrize("space", ["w", "affine"])
def test_moved(generator: Generator, checkpoint: Checkpoint, space):
    """Oracle: tensor + sum of amount x deviation x component, at the levels alone."""
    found = find_directions(checkpoint, space=space, samples=30, count=3)
    image = from_seeds(generator, [99])
    result = move(image, found, {0: 1.5, 2: -1.0}, levels=[1])
    step = 1.5 * found.deviations[0] * found.components[0] - found.deviations[2] * found.components[2]
    expected = getattr(image, space).clone()
    expected[0, 1] += step[1]
    assert_rounded(getattr(result, space), expected, terms=6)
    assert result.space == space
    assert torch.equal(move(image, found, {0: 0.0}).tensor, getattr(image, space))
    both = move(from_seeds(generator, [98, 99]), found, {0: 1.5, 2: -1.0}, levels=[1])
    assert torch.equal(both[1].tensor, result.tensor)


def test_moved_refuses(generator: Generator, checkpoint: Checkpoint):
    found = find_directions(checkpoint, space="w", samples=9, count=2)
    image = from_seeds(generator, [1])
    with pytest.raises(RequestError, match="direction 2 is outside 0-1"):
        move(image, found, {2: 1.0})
    with pytest.raises(RequestError, match="not w"):
        move(Latents(affine=image.affine), found, {0: 1.0})


def test_takes():
    assert parse_moves("2:1.5, 0:-1") == {2: 1.5, 0: -1.0}
    assert parse_moves("coat=a:b:2, 0:-1", names=("x", "coat=a:b")) == {1: 2.0, 0: -1.0}
    with pytest.raises(RequestError, match="the file has x"):
        parse_moves("y:1", names=("x",))


def labeled(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents [N, 3, 5] of unequal spread and two attributes, each of another entry."""
    latents = torch.randn(count, 3, 5, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 1, 5) + 2
    return latents, torch.stack([latents[:, 0, 1] > 3, latents[:, 2, 4] < 2], dim=1)


def test_a_classifier_is_the_optimum_of_its_objective():
    """Oracle: the gradient of the weighted, regularized logistic loss vanishes, with the bias that fits best."""
    latents, labels = labeled()
    scores = latents.flatten(1).double()
    scores = (scores - scores.mean(dim=0)) / scores.std(dim=0)
    found = module._classifier(scores, labels).numpy()
    for weights, label in zip(found, labels.double().numpy().T, strict=True):
        balance = np.where(label > 0, 0.5 / label.mean(), 0.5 / (1 - label.mean()))

        def error(bias: float, weights=weights, label=label, balance=balance) -> np.ndarray:
            return balance * (1 / (1 + np.exp(-(scores.numpy() @ weights + bias))) - label)

        bias = scipy.optimize.brentq(lambda bias: error(bias).mean(), -20, 20)
        gradient = scores.numpy().T @ error(bias) / len(label) + module.RIDGE * weights
        assert np.abs(gradient).max() < 1e-4 * np.abs(module.RIDGE * weights).max() + 1e-5


def test_directions_of_labels():
    """Each points along its own entry, with its deviation; the file keeps the names."""
    latents, labels = labeled(1000)
    found = fit_directions(latents, labels, names=("b", "not n"), model_sha256="ab")
    flat = found.components.flatten(1)
    # whitened gradients of 1000 images stray from the entry by about 1/sqrt(1000) along each of the 15 axes
    assert flat[0, 1] > 0.9
    assert flat[1, 14] < -0.9
    along = (latents.double() - found.mean).flatten(1) @ flat.T.double()
    assert_rounded(along.std(dim=0), found.deviations, terms=15)
    assert_rounded(along.var(dim=0) / latents.double().flatten(1).var(dim=0).sum(), found.shares, terms=15)
    kept = read_directions(encode_directions(found))
    assert (kept.names, kept.samples, kept.name(1)) == (("b", "not n"), 1000, "not n")
    assert kept.describe()["names"] == ["b", "not n"]
    with pytest.raises(FileError, match="its facts"):
        encode_directions(replace(found, names=("b",)))
    few = labels.clone()
    few[:, 0] = torch.arange(1000) == 7
    with pytest.raises(RequestError, match="1 of 1000 images are b"):
        fit_directions(latents, few, names=("b", "not n"))


@pytest.mark.parametrize("text", ["", "2", "2:", ":1", "a:1", "-1:1", "1:nan", "1:inf", "1:1,1:2", "²:1"])
def test_nonsense_takes(text: str):
    with pytest.raises(RequestError):
        parse_moves(text)


def test_the_file(generator: Generator, checkpoint: Checkpoint, tmp_path: Path):
    found = find_directions(checkpoint, space="affine", samples=9, count=2, psi=0.8)
    write_directions(tmp_path / "d.safetensors", found)
    for source in (tmp_path / "d.safetensors", encode_directions(found)):
        kept = read_directions(source)
        for name in ("mean", "components", "deviations", "shares"):
            assert torch.equal(getattr(kept, name), getattr(found, name))
        assert (kept.space, kept.samples, kept.psi, kept.label) == ("affine", 9, 0.8, None)
        assert kept.model_sha256 == checkpoint.sha256
    check_directions(found, generator.config, source=Path("d"))
    with pytest.raises(FileError, match="not \\[3, 3, 16\\]"):
        check_directions(replace(found, mean=found.mean[:2]), generator.config, source=Path("d"))


def unchecked(directions: Directions) -> bytes:
    """Write directions as they are, which `encode_directions` refuses where `read_directions` does."""
    facts = {"format": 1, "space": directions.space, "samples": directions.samples, "psi": directions.psi}
    tensors = {name: getattr(directions, name) for name in ("mean", "components", "deviations", "shares")}
    return encode_tensors(tensors, key="polyinr_directions", facts={**facts, "label": None, "model_sha256": ""})


def test_damaged_and_foreign_files(generator: Generator, checkpoint: Checkpoint):
    found = find_directions(checkpoint, space="w", samples=9, count=2)
    nan = replace(found, mean=found.mean * float("nan"))
    short = replace(found, deviations=found.deviations[:1])
    flat = replace(found, mean=found.mean[0], components=found.components[:, 0])
    for bad, words in [(nan, "NaN or Inf"), (short, "damaged: deviations"), (flat, "its facts")]:
        with pytest.raises(FileError, match=words):  # which the writer refuses as well
            read_directions(unchecked(bad))
        with pytest.raises(FileError, match=words):
            encode_directions(bad)
    for data, words in [
        (b"", "not a directions file"),
        (b"nonsense", "not a directions file"),
        (encode_directions(found)[:-3], "not a directions file"),
        (encode_latents(from_seeds(generator, [1])), "not a directions file"),
        (encode_directions(found).replace(b'\\"format\\": 1', b'\\"format\\": 7'), "format 7.*reads 1"),
        (
            encode_directions(found).replace(b'\\"samples\\": 9', b'\\"samples\\": x'),
            "damaged .its metadata are not valid JSON",
        ),
        (encode_directions(found).replace(b'\\"w\\"', b'\\"z\\"'), "its facts"),
    ]:
        with pytest.raises(FileError, match=words):
            read_directions(data)
