"""Which image: read from text, drawn as `sample` and `mix` draw it, spelled out as their commands."""

from pathlib import Path

import pytest
import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.errors import RequestError
from polyinr_core.latents.interpolation import mix
from polyinr_core.latents.latents import from_seeds
from polyinr_core.viewer.tiles import Selection, parse_selection


@pytest.fixture(scope="module")
def checkpoint(tiny_class_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_class_checkpoint)


def test_what_is_not_said_is_as_in_sample(checkpoint: Checkpoint) -> None:
    assert parse_selection({}, checkpoint) == parse_selection({"seed": " ", "psi": ""}, checkpoint) == Selection()
    selection = parse_selection({"seed": "7", "label": "class b", "psi": "0.5"}, checkpoint)
    assert selection == Selection(seed=7, label=1, psi=0.5)
    expected = from_seeds(checkpoint.generator, [7], label=1, psi=0.5).affine
    assert torch.equal(selection.latents(checkpoint).affine, expected)
    assert selection.command() == ["polyinr", "sample", "--seeds", "7", "--label", "1", "--psi", "0.5"]


def test_levels_come_from_the_other_seed(checkpoint: Checkpoint) -> None:
    selection = parse_selection({"seed": "7", "other": "8", "levels": "2,0-1"}, checkpoint)
    assert selection == Selection(seed=7, other=8, levels=(0, 1, 2))
    seven, eight = (from_seeds(checkpoint.generator, [seed]) for seed in (7, 8))
    two = Selection(seed=7, other=8, levels=(1, 2))
    expected = mix(seven, eight, levels=[1, 2]).affine
    assert torch.equal(two.latents(checkpoint).affine, expected)
    assert not torch.equal(expected, seven.affine)
    assert two.command() == ["polyinr", "mix", "--source=8", "--target=7", "--levels", "1-2"]


def test_the_class_is_said_if_it_is_one(checkpoint: Checkpoint) -> None:
    drawn = [Selection(seed=seed).label_shown(checkpoint) for seed in range(8)]
    assert drawn == [int(from_seeds(checkpoint.generator, [seed]).label) for seed in range(8)]
    assert Selection(label=2).label_shown(checkpoint) == 2
    unlike = next(seed for seed in range(8) if drawn[seed] != drawn[0])
    assert Selection(0, other=unlike, levels=(0,)).label_shown(checkpoint) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seed": "-1"}, "seed '-1' is not an integer"),
        ({"seed": "4294967296"}, "0-4294967295"),
        ({"seed": "1.5"}, "seed"),
        ({"seed": "²"}, "seed"),
        ({"psi": "much"}, "psi 'much' is out of range"),
        ({"psi": "nan"}, "psi"),
        ({"psi": "1e7"}, "psi"),
        ({"label": "cat"}, "class 'cat' is unknown"),
        ({"label": "4"}, "class 4 is .* 0-3"),
        ({"other": "1"}, "both"),
        ({"levels": "1"}, "both"),
        ({"other": "1", "levels": "3"}, "level 3 is .* 0-2"),
        ({"other": "x", "levels": "1"}, "seed 'x'"),
        ({"zoom": "3"}, "'zoom' is not a field"),
    ],
)
def test_what_is_no_image_is_refused(checkpoint: Checkpoint, fields: dict[str, str], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        parse_selection(fields, checkpoint)


def test_a_model_without_classes_takes_no_label(tiny_checkpoint: Path) -> None:
    plain = load_checkpoint(tiny_checkpoint)
    assert Selection(seed=3).label_shown(plain) is None
    with pytest.raises(RequestError, match="no classes"):
        parse_selection({"label": "0"}, plain)
