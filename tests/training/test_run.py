"""Runs from start to end: resuming is exact, stages follow each other, what cannot be trained is refused."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import PolyinrError, TrainingError
from polyinr_core.report.run_reader import read_log
from polyinr_core.runtime.atomic_io import sha256_of
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.training.config import PRESETS, TrainingConfig, parse_stages
from polyinr_core.training.hooks import Hooks
from polyinr_core.training.loop import train
from polyinr_core.training.run_dir import RunFolder
from polyinr_core.training.state import SavedState, read_state, write_state

SMALL = replace(
    PRESETS["tiny"],
    stages=parse_stages("8:0.012,16:0.012"),
    batch=4,
    disc_channels=8,
    head_divisor=16,
    state_every=0.004,
    checkpoint_every=0.008,
)


@pytest.fixture(scope="module")
def weights() -> dict:
    return {"lite0": load_pretrained("lite0")}


def make_archive(path: Path, *, images: int = 12, labels: bool = True) -> Path:
    """Write an archive of noise at 16 px with three classes."""
    rng = np.random.default_rng(0)
    names = [f"00000/img{i:08d}.png" for i in range(images)]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "png")
            archive.writestr(name, file.getvalue())
        listed = [[name, i % 3] for i, name in enumerate(names)] if labels else None
        archive.writestr("dataset.json", json.dumps({"labels": listed}))
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ZipDataset:
    return ZipDataset.open(make_archive(tmp_path_factory.mktemp("data") / "noise.zip"))


def run(config: TrainingConfig, archive: ZipDataset, folder: Path, weights: dict, *, stop_after: int = 10**9) -> bool:
    """Train; stop after so many iterations."""
    left = iter(range(stop_after - 1))
    return train(archive, run_dir=folder, config=config, weights=weights, stop=lambda: next(left, None) is None)


def losses_in(folder: Path) -> list[dict]:
    """Return the log's lines about iterations."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if '"loss_d"' in line]


def last_state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "state").glob("*.safetensors")))


@pytest.fixture(scope="module")
def whole(archive: ZipDataset, weights: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(SMALL, archive, folder, weights)
    return folder


@pytest.mark.parametrize("stops", [[1, 1, 1, 1, 1], [3, 1], [4]])
def test_resuming_gives_the_run_that_was_never_stopped(
    archive: ZipDataset, weights: dict, whole: Path, tmp_path: Path, stops: list[int]
) -> None:
    """Every tensor of the last state, to the bit: weights, average, discriminator, both optimizers."""
    folder = tmp_path / "run"
    for iterations in stops:
        assert not run(SMALL, archive, folder, weights, stop_after=iterations)
    assert run(SMALL, archive, folder, weights)
    expected, resumed = last_state(whole), last_state(folder)
    assert expected.keys() == resumed.keys()
    assert {name.partition("/")[0] for name in expected} == {
        "generator",
        "ema",
        "discriminator",
        "g_optimizer",
        "d_optimizer",
    }
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_a_run_of_format_1_goes_on_exactly(archive: ZipDataset, weights: dict, whole: Path, tmp_path: Path) -> None:
    """A run folder as polyinr 0.1 left it: other folder names, configuration keys, and names of the tensors."""
    folder = tmp_path / "run"
    assert not run(SMALL, archive, folder, weights, stop_after=3)
    to_format_1(folder)
    assert run(SMALL, archive, folder, weights)
    expected, resumed = last_state(whole), last_state(folder)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "pictures",
        "snapshots",
        "state",
        "tensorboard",
    ]
    assert read_log(folder / "log.jsonl").series("loss_d") == read_log(whole / "log.jsonl").series("loss_d")


def to_format_1(folder: Path) -> None:
    """Rename in a run folder what polyinr 0.1 named otherwise."""
    (folder / "samples").rename(folder / "pictures")
    (folder / "checkpoints").rename(folder / "snapshots")
    log = folder / "log.jsonl"
    log.write_text(log.read_text().replace('"loss_d"', '"critic"').replace('"loss_g"', '"generator"'))
    config = folder / "config.json"
    text = config.read_text().replace('"format": 2', '"format": 1').replace('"images"', '"pictures"')
    config.write_text(text.replace('"disc_', '"critic_').replace('"checkpoint_every"', '"snapshot_every"'))
    for manifest in (folder / "state").glob("*.json"):
        weights = manifest.with_suffix(".safetensors")
        tensors = {name.replace("discriminator/", "critic/"): tensor for name, tensor in load_file(weights).items()}
        save_file(tensors, weights)
        facts = json.loads(manifest.read_text())
        assert facts["format"] == 2
        manifest.write_text(json.dumps(facts | {"format": 1, "sha256": sha256_of(weights)}))


def test_the_log_is_appended_to(archive: ZipDataset, weights: dict, whole: Path, tmp_path: Path) -> None:
    """What a crash left stays, the line that it cut off as well; then comes a line that says so, and the rest."""
    folder = tmp_path / "run"
    assert not run(SMALL, archive, folder, weights, stop_after=4)
    log = folder / "log.jsonl"
    with log.open("a") as file:
        file.write('{"kimg": 0.0')
    before = log.read_text()
    assert run(SMALL, archive, folder, weights)
    assert log.read_text().startswith(before + "\n")
    progressed = [json.loads(line) for line in log.read_text()[len(before) :].splitlines() if line]
    assert progressed[0].pop("time").startswith("20")
    assert progressed[0] == {"kimg": 0.016, "stage": 1, "resolution": 16, "resumed": True}
    last, again = losses_in(whole)[-1], losses_in(folder)[-1]
    for name in ("img_per_sec", "cpu_mem_mib"):
        assert last.pop(name) > 0 < again.pop(name)
    assert last.pop("time") <= again.pop("time")
    assert again == last


@pytest.mark.no_numbers
def test_a_stop_is_heeded_in_the_last_batch_but_one(archive: ZipDataset, weights: dict, tmp_path: Path) -> None:
    """Stages of 10 and 9 images, four at a time, are 24 images; a stop at 20 is before the end."""
    config = replace(SMALL, stages=parse_stages("8:0.01,16:0.009"))
    progressed: list[tuple[int, int, int]] = []
    finished = train(
        archive,
        run_dir=tmp_path / "run",
        config=config,
        weights=weights,
        stop=lambda: progressed[-1][0] >= 20,
        progress=lambda at: progressed.append((at.total_images, at.stage, at.images)),
    )
    assert not finished
    assert progressed == [(4, 0, 4), (8, 0, 8), (12, 0, 12), (16, 1, 4), (20, 1, 8)]


@pytest.mark.no_numbers
def test_a_stop_writes_once(
    archive: ZipDataset, weights: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a stage's end all is written anyway."""
    written: list[int] = []
    save = Hooks.save_state
    monkeypatch.setattr(
        Hooks, "save_state", lambda self, state: (written.append(state.total_images), save(self, state))
    )
    assert not run(SMALL, archive, tmp_path / "run", weights, stop_after=3)
    assert written == [4, 8, 12]


def test_micro_batches_train_to_the_end(archive: ZipDataset, weights: dict, whole: Path, tmp_path: Path) -> None:
    """As many images are seen; another run comes out, as the discriminator's BatchNorm sees other batches."""
    assert run(replace(SMALL, micro_batch=2), archive, tmp_path / "run", weights)
    assert (tmp_path / "run/checkpoints/000000024.safetensors").exists()
    one, two = last_state(whole), last_state(tmp_path / "run")
    assert not torch.equal(one["generator/synthesis.to_rgb.bias"], two["generator/synthesis.to_rgb.bias"])


def test_what_a_run_leaves(whole: Path, archive: ZipDataset) -> None:
    assert sorted(path.name for path in whole.iterdir()) == [
        "checkpoints",
        "config.json",
        "log.jsonl",
        "samples",
        "state",
        "tensorboard",
    ]
    events = losses_in(whole)
    assert [event["resolution"] for event in events] == [8, 16]
    assert all(np.isfinite(event["loss_g"]) for event in events)
    checkpoint = load_checkpoint(max((whole / "checkpoints").glob("*.safetensors")))
    assert (checkpoint.resolution, checkpoint.kimg) == (16, 0.024)
    assert checkpoint.data_sha256 == archive.sha256
    assert checkpoint.generator.config.classes == 3
    sheets = sorted((whole / "samples").glob("fakes-*.png"))
    assert len(sheets) == 5  # at 0, 8, 16 and 24 images, and at the first stage's end
    with Image.open(sheets[0]) as first, Image.open(sheets[-1]) as last:
        assert last.width > first.width


def test_a_new_stage_has_a_new_discriminator_and_goes_on_from_the_average(
    archive: ZipDataset, weights: dict, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert not run(SMALL, archive, folder, weights, stop_after=4)
    state = last_state(folder)
    assert int(state["g_optimizer/0.step"]) == 1
    before = load_file(sorted((folder / "state").glob("*.safetensors"))[0])
    moved = state["generator/synthesis.to_rgb.weight"] - before["ema/synthesis.to_rgb.weight"]
    assert 0 < moved.abs().max() <= 1.01 * SMALL.g_lr
    assert not torch.equal(
        state["discriminator/heads.lite0.0.out.weight"], before["discriminator/heads.lite0.0.out.weight"]
    )


def test_another_configuration_is_refused_by_field(archive: ZipDataset, weights: dict, whole: Path) -> None:
    with pytest.raises(TrainingError, match=r"batch 4 \(now 6\)"):
        run(replace(SMALL, batch=6), archive, whole, weights)


def test_other_data_is_refused(weights: dict, whole: Path, tmp_path: Path) -> None:
    other = ZipDataset.open(make_archive(tmp_path / "noise.zip", images=13))
    with pytest.raises(TrainingError, match="images 12"):
        run(SMALL, other, whole, weights)


def test_the_same_data_may_have_another_name(archive: ZipDataset, weights: dict, whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "moved.zip"
    copy.write_bytes(archive.path.read_bytes())
    assert run(SMALL, ZipDataset.open(copy), whole, weights)


@pytest.mark.parametrize("damage", ["no json", "[]", '{"format": 1}', '{"format": 1, "training": 3, "data": 4}'])
def test_a_damaged_configuration_is_refused(archive: ZipDataset, weights: dict, tmp_path: Path, damage: str) -> None:
    (tmp_path / "config.json").write_text(damage)
    with pytest.raises(TrainingError, match="choose another --run-dir"):
        run(SMALL, archive, tmp_path, weights)


def test_bookkeeping_may_change(archive: ZipDataset, weights: dict, whole: Path) -> None:
    assert run(replace(SMALL, checkpoint_every=1.0), archive, whole, weights)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 16}, "fewer than the batch"),
        ({"stages": parse_stages("32:1")}, "16 px"),
        ({"disc_res": 100}, "100 pixels"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(
    archive: ZipDataset, weights: dict, tmp_path: Path, change: dict, words: str
) -> None:
    with pytest.raises(PolyinrError, match=words):
        run(replace(SMALL, **change), archive, tmp_path / "run", weights)
    assert not (tmp_path / "run").exists()


@pytest.mark.no_numbers
def test_without_classes(weights: dict, tmp_path: Path) -> None:
    unlabeled = ZipDataset.open(make_archive(tmp_path / "plain.zip", labels=False))
    assert run(replace(SMALL, stages=parse_stages("8:0.004")), unlabeled, tmp_path / "run", weights)
    checkpoint = load_checkpoint(max((tmp_path / "run/checkpoints").glob("*.safetensors")))
    assert checkpoint.generator.config.classes == 0


def test_a_weight_that_is_no_number_stops_the_run(archive: ZipDataset, weights: dict, tmp_path: Path) -> None:
    """The last good state stays, and the message names the tensor."""
    folder = tmp_path / "run"
    assert not run(SMALL, archive, folder, weights, stop_after=1)
    good = sorted(path.name for path in (folder / "state").iterdir())
    huge = replace(SMALL, g_lr=0.9, state_every=1.0)
    config = json.loads((folder / "config.json").read_text())
    config["training"]["g_lr"] = 0.9
    (folder / "config.json").write_text(json.dumps(config))
    state = RunFolder(folder).state
    tensors = last_state(folder)
    tensors["generator/synthesis.products.1.bias"][0] = float("nan")  # in all features, whatever the discriminator says
    write_state(state, SavedState(tensors, read_state(state)[0].counters), images=4)
    with pytest.raises(TrainingError, match=r"loss is not finite, generator\.synthesis\.products\.1\.bias first"):
        run(huge, archive, folder, weights)
    assert sorted(path.name for path in state.iterdir()) == good
