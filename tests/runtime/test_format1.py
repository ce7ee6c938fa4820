"""Files as polyinr 0.1 wrote them (tests/format1/) are read under today's names, and its runs go on exactly."""

import json
from pathlib import Path

import pytest

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.checkpoints.delta import apply_delta, load_delta
from polyinr_core.evaluation.results import read_result
from polyinr_core.images.io import read_metadata
from polyinr_core.latents.direction_files import read_directions
from polyinr_core.latents.io import read_latents
from polyinr_core.report.run_reader import read_log
from polyinr_core.runtime.strict_json import FORMAT, run_subfolder, upgrade, upgrade_event, upgrade_tensor_name
from polyinr_core.training.config import TrainingConfig
from polyinr_core.training.run_dir import RunFolder

FILES = Path(__file__).parents[1] / "format1"


def test_format_2_comes_back_as_it_is() -> None:
    facts = {"format": FORMAT, "training": {"disc_res": 64}, "card": {"kind": "images", "words": ["--colors"]}}
    assert upgrade(facts) == facts
    assert upgrade([1, "pictures", None]) == [1, "pictures", None]
    event = {"kimg": 1.0, "loss_g": 2.0, "loss_d": 0.5, "img_per_sec": 9.0}
    assert upgrade_event(event) == event


def test_nothing_but_the_old_names_is_renamed() -> None:
    assert upgrade({"format": True, "class_names": ["critic", "pictures"], "provenance": {"kind": 3}}) == {
        "format": True,
        "class_names": ["critic", "pictures"],
        "provenance": {"kind": 3},
    }
    assert upgrade_tensor_name("critic/heads.0.weight") == "discriminator/heads.0.weight"
    assert upgrade_tensor_name("ema/critic") == "ema/critic"


def test_weights_latents_and_directions_of_0_1() -> None:
    checkpoint = load_checkpoint(FILES / "checkpoint.safetensors")
    assert checkpoint.class_names == ("class a", "class b", "class c", "class d")
    latents = read_latents(FILES / "latents.safetensors")
    assert (latents.seeds, latents.model_sha256) == ((0, 1), checkpoint.sha256)
    assert read_directions(FILES / "directions.safetensors").model_sha256 == checkpoint.sha256
    delta = FILES / "photo.delta.safetensors"
    tuned = apply_delta(checkpoint, load_delta(delta), source=delta)
    assert read_latents(FILES / "photo.safetensors").model_sha256 == tuned.sha256


@pytest.mark.parametrize(("name", "window"), [("image.png", [-0.25, -0.25, 1.25, 1.25]), ("sheet.tif", [0, 0, 1, 1])])
def test_image_metadata_of_0_1(name: str, window: list[float]) -> None:
    assert read_metadata(FILES / name)["window"] == window


def test_words_and_options_of_a_command() -> None:
    note = {"words": ["--alpha", "0.5", "--colours", "fire", "pictures"], "bounds": [0, 0, 1, 1]}
    assert upgrade(note) == {"words": ["--alpha", "0.5", "--colors", "inferno", "pictures"], "window": [0, 0, 1, 1]}


def test_a_result_of_0_1() -> None:
    result = read_result(FILES / "result.json")
    assert result.metrics["fd-lite2"]["value"] == 1004.3694416804833
    assert result.card["quantization"] == "uint8, x * 127.5 + 128, clamped"
    assert result.card["reals"]["kind"] == "images"
    old = {"protocols": {"pr-lite2": {"rule": "balls to neighbour 3"}, "speed": {"rule": "a picture at a time"}}}
    assert upgrade(old) == {
        "protocols": {"pr-lite2": {"rule": "balls to neighbor 3"}, "speed": {"rule": "an image at a time"}}
    }


def test_the_configuration_and_the_log_of_a_run_of_0_1() -> None:
    folder = RunFolder(FILES / "run")
    stored = folder.read()
    assert stored["training"].keys() == TrainingConfig().to_dict().keys()
    assert folder.settings().to_dict() == stored["training"]
    assert (stored["training"]["penalty"], stored["training"]["augment"]) == (0.0, "diffaugment")
    assert (stored["training"]["disc_res"], stored["data"]["images"]) == (64, 1562)
    log = read_log(folder.log)
    assert log.series("loss_d").values == (0.2486419677734375,)
    assert log.series("loss_g").values == (1.8853759765625,)
    assert log.series("img_per_sec").values == (12.31,)


def test_a_run_keeps_the_folder_names_it_began_with(tmp_path: Path) -> None:
    assert run_subfolder(tmp_path, "checkpoints") == tmp_path / "checkpoints"
    (tmp_path / "snapshots").mkdir()
    assert run_subfolder(tmp_path, "checkpoints") == tmp_path / "snapshots"
    (tmp_path / "checkpoints").mkdir()
    assert run_subfolder(tmp_path, "checkpoints") == tmp_path / "checkpoints"
    assert run_subfolder(tmp_path, "samples") == tmp_path / "samples"


def test_the_fixtures_are_of_format_1() -> None:
    assert json.loads((FILES / "result.json").read_text())["format"] == 1
    assert json.loads((FILES / "run/config.json").read_text())["format"] == 1
