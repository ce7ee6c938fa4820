"""`polyinr train`: every option takes effect; a terminal sees a bar; Ctrl-C saves, the same command goes on."""

import inspect
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_files import archive
from conftest import Ran, Run, refused
from PIL import Image
from safetensors.torch import save_file

from polyinr_cli.commands.train import train
from polyinr_cli.options import preset_values
from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from polyinr_core.checkpoints.locate import bundled_model
from polyinr_core.models.generator import Generator
from polyinr_core.runtime import pretrained
from polyinr_core.training import loop as training
from polyinr_core.training.config import make_config, parse_stages

once = cache(pretrained.load_pretrained)
TINY = ("--preset", "tiny", "--stages", "8:0.008", "--batch", "4")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images of 16 px in three classes."""
    archive(tmp_path / "data.zip")
    return Path("data.zip")


@pytest.fixture(autouse=True)
def networks_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "load_pretrained", once)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[training.Trainer]:
    """Gather the trainers of the runs that are begun; none of them trains."""
    trainers: list[training.Trainer] = []

    def record(trainer: training.Trainer, *_: object, **__: object) -> bool:
        trainers.append(trainer)
        return True

    monkeypatch.setattr(training, "run_stages", record)
    return trainers


def config_of(folder: str = "run") -> dict[str, Any]:
    return json.loads(Path(folder, "config.json").read_text())["training"]


CONFIGURED = {
    "preset": (["--preset", "small"], "channels", 128),
    "stages": (["--stages", "4:0.5,16:1"], "stages", "4:0.5,16:1"),
    "batch": (["--batch", "6"], "batch", 6),
    "micro_batch": (["--micro-batch", "2"], "micro_batch", 2),
    "seed": (["--seed", "5"], "seed", 5),
    "channels": (["--channels", "24"], "channels", 24),
    "disc_res": (["--disc-res", "160"], "disc_res", 160),
    "cond": (["--no-cond"], "cond", False),
    "mirror": (["--mirror"], "mirror", True),
    "state_every": (["--state-every", "0.5"], "state_every", 0.5),
    "checkpoint_every": (["--checkpoint-every", "0.25"], "checkpoint_every", 0.25),
    "metric_every": (["--metric-every", "0.5"], "metric_every", 0.5),
    "auto_advance": (["--auto-advance", "3", "--metric-every", "1"], "auto_advance", 3),
    "metrics": (["--metrics", "kd-lite2,fd-lite2", "--metric-every", "1"], "metrics", ["kd-lite2", "fd-lite2"]),
    "keep": (["--keep", "2"], "keep", 2),
    "chunk": (["--chunk", "64"], "chunk", 64),
    "precision": (["--precision", "float64"], "precision", "float64"),
    "held_out": (["--held-out", "2"], "held_out", 2),
    "workers": (["--workers", "1"], "workers", 1),
    "guidance": (["--guidance", "2"], "guidance", 2.0),
    "classifier": (["--classifier", "deit-small"], "classifier", "deit-small"),
    "head_resolution": (["--head-resolution", "256", "--disc-res", "128"], "head_resolution", 256),
    "loss": (["--loss", "relativistic"], "loss", "relativistic"),
    "penalty": (["--penalty", "0"], "penalty", 0.0),
    "penalty_every": (["--penalty-every", "2"], "penalty_every", 2),
    "lecam": (["--lecam", "0.1"], "lecam", 0.1),
    "augment": (["--augment", "adaptive"], "augment", "adaptive"),
    "schedule": (["--schedule", "cosine"], "schedule", "cosine"),
    "blur_kimg": (["--blur-kimg", "5"], "blur_kimg", 5.0),
    "class_centering": (["--class-centering", "0.5"], "class_centering", 0.5),
}


@pytest.mark.parametrize("option", CONFIGURED)
def test_an_option_changes_the_configuration(polyinr: Run, data: Path, begun: list[training.Trainer], option: str):
    """config.json and the run itself hold the value; the preset holds another."""
    words, field, expected = CONFIGURED[option]
    common = ["--stages", "8:1", "--batch", "4"] if option == "preset" else ["--preset", "tiny"]
    assert polyinr("train", data, *common, *words, "--run-dir", "run").code == 0
    assert polyinr("train", data, "--preset", "tiny", "--run-dir", "plain").code == 0
    assert config_of("plain")[field] != config_of()[field] == expected
    assert begun[0].config.to_dict()[field] == expected
    if option == "cond":
        assert [run.classes for run in begun] == [0, 3]
    run = begun[0]
    feed = run.loader(run.config.stages[0])
    if option == "mirror":
        assert feed.sampler.epoch_size == 2 * len(run.data)
    if option == "held_out":
        assert len(feed) == len(run.data) - 2
    if option == "precision":
        assert run.dtype == torch.float64


def test_data_and_run_dir_have_defaults(polyinr: Run, data: Path, begun: list[training.Trainer]):
    assert polyinr("train", data, "--preset", "tiny").code == 0
    assert Path("runs/tiny-data/config.json").is_file()
    assert polyinr("train", "--run-dir", "here").code == 0
    assert (len(begun[1].data), begun[1].classes) == (2000, 8)
    assert config_of("here")["stages"] == "32:40,64:20"


@pytest.mark.parametrize(("given", "expected"), [("none", []), ("tensorboard", ["tensorboard"])])
def test_trackers_are_those_named(polyinr: Run, data: Path, given: str, expected: list[str]):
    assert polyinr("train", data, *TINY, "--run-dir", "run", "--track", given).code == 0
    assert [path.name for path in Path("run").iterdir() if path.name == "tensorboard"] == expected


def test_a_run_goes_on_with_its_own_settings(polyinr: Run, data: Path, begun: list[training.Trainer]):
    """Options are not repeated; one that contradicts the run is refused; a preset that is named counts."""
    assert polyinr("train", data, *TINY, "--channels", "24", "--penalty", "0.5", "--run-dir", "run").code == 0
    assert polyinr("train", data, "--run-dir", "run").code == 0
    assert begun[1].config == begun[0].config
    refused(polyinr("train", data, "--run-dir", "run", "--channels", "32"), "channels 24 (now 32)", code=1)
    refused(polyinr("train", data, "--run-dir", "run", "--preset", "tiny"), "channels 24 (now 64)", code=1)


def test_a_run_of_an_earlier_version_keeps_its_settings(polyinr: Run, data: Path, begun: list[training.Trainer]):
    """Its config.json lacks the fields that came later: they are off."""
    assert polyinr("train", data, *TINY, "--penalty", "0", "--class-centering", "0", "--run-dir", "run").code == 0
    path = Path("run/config.json")
    stored = json.loads(path.read_text())
    for name in ("loss", "penalty", "penalty_every", "lecam", "augment", "schedule", "class_centering"):
        del stored["training"][name]
    path.write_text(json.dumps(stored))
    assert polyinr("train", data, "--run-dir", "run").code == 0
    assert begun[1].config == begun[0].config
    stored["training"]["batch"] = "many"
    path.write_text(json.dumps(stored))
    refused(
        polyinr("train", data, "--run-dir", "run"), "run/config.json: the training configuration is damaged", code=1
    )


def test_backbones_weights_and_download_reach_the_loader(
    polyinr: Run, data: Path, begun: list[training.Trainer], monkeypatch: pytest.MonkeyPatch
):
    """No network is needed: what would load is asked for and recorded."""
    asked = {}

    def record(name: str, *, file: Path | None, download: bool) -> dict:
        asked[name] = (file, download)
        return {}

    monkeypatch.setattr(pretrained, "load_pretrained", record)
    common = ("train", data, "--preset", "tiny", "--disc-res", "224", "--run-dir", "run")
    ran = polyinr(*common, "--backbones", "deit-tiny", "--weights", "deit-tiny=d.pth", "--download")
    assert ran.code == 0, ran.stderr
    assert asked == {"deit-tiny": (Path("d.pth"), True), "lite0": (None, True)}
    assert config_of()["backbones"] == ["deit-tiny"]
    assert begun[0].config.backbones == ("deit-tiny",)
    asked.clear()
    polyinr("train", data, "--preset", "tiny", "--metric-every", "1", "--run-dir", "other")
    assert asked == {"lite0": (None, False), "lite2": (None, False)}


def test_an_option_goes_over_the_preset_s_stages():
    """The large preset guides at some of its stages; what is typed for a stage stays."""
    stages = make_config("imagenet", guidance=0.0, batch=32).stages
    assert {(stage.guidance, stage.batch) for stage in stages} == {(None, None)}
    for own in ({}, {"guidance": 0.0}):
        config = make_config("imagenet", stages=parse_stages("8:1:guidance=1"), **own)
        assert config.at(config.stages[0]).guidance == 1.0


def test_a_dry_run_prints_a_plan_and_writes_nothing(polyinr: Run, data: Path):
    """For people as columns, for programs as JSON lines; weights that are missing are a note."""
    common = ("train", data, *TINY, "--run-dir", "run", "--dry-run")
    planned = polyinr(*common)
    assert planned.code == 0, planned.stderr
    assert b"8 px" in planned.stdout
    assert b"peak memory" in planned.stdout
    lines = polyinr(*common, "--json").lines
    stage = next(line for line in lines if line["kind"] == "stage")
    assert (stage["resolution"], stage["batch"], stage["iterations"]) == (8, 4, 2)
    assert stage["seconds"] > 0 < stage["memory"]
    ran = polyinr("train", data, "--preset", "tiny", "--stages", "32:1", "--dry-run", "--run-dir", "run")
    assert (ran.code, "--res 32" in ran.stderr) == (1, True)
    assert not Path("run").exists()


@pytest.mark.parametrize("label", [0.37, -1, "cat", [0.1, 0.9, 1.0], None])
def test_without_cond_labels_that_cannot_be_used_do_not_matter(polyinr: Run, tmp_path: Path, label: object):
    labels = [[f"00000/img{index:08d}.png", label] for index in range(8)]
    archive(tmp_path / "bad.zip", images=8, facts={"labels": labels})
    common = ("train", "bad.zip", *TINY, "--run-dir", "run", "--dry-run", "--json")
    refused(polyinr(*common), "bad.zip: the label of", "--no-cond", code=1)
    ran = polyinr(*common, "--no-cond")
    assert ran.code == 0, ran.stderr
    assert (ran.lines[0]["images"], ran.lines[0]["classes"]) == (8, 0)


def test_what_is_passed_over_is_reported(polyinr: Run, tmp_path: Path):
    archive(tmp_path / "some.zip", **{"a.heic": b"x"})
    ran = polyinr("train", "some.zip", *TINY, "--run-dir", "run", "--dry-run")
    assert ran.code == 0
    assert "polyinr: some.zip: ignored: 1 file of other types (1 .heic)" in ran.stderr


def test_a_run_starts_from_a_model(
    polyinr: Run, data: Path, tiny_class_checkpoint: Path, begun: list[training.Trainer]
):
    """Its sizes are taken; an option that contradicts them is refused."""
    common = ("train", data, "--preset", "tiny", "--run-dir", "run", "--init-from")
    ran = polyinr(*common, tiny_class_checkpoint, "--channels", "24")
    assert (ran.code, "channels 24 contradicts" in ran.stderr) == (2, True)
    other = polyinr(*common, tiny_class_checkpoint)
    assert "table_dim" in other.stderr  # the fixture's table is 6 wide, training's 320
    assert polyinr("train", data, *TINY, "--run-dir", "first", "--channels", "24", "--max-time", "1h").code == 0
    model = Path("model.safetensors")
    checkpoint = Checkpoint(Generator(begun[0].config.generator(3)), ("a", "b", "c"), resolution=8, kimg=1.0)
    save_checkpoint(model, checkpoint)
    assert polyinr(*common, model).code == 0
    assert begun[1].config.channels == 24
    assert begun[1].config.init_from == load_checkpoint(model).sha256 != ""
    own = ("--stages", "16:1", "--batch", 4, "--run-dir", "named")
    assert polyinr("train", data, *own, "--init-from", "bundled").code == 0
    assert begun[2].config.channels == load_checkpoint(bundled_model()).generator.config.channels


def test_weights_of_ones_own_are_used(polyinr: Run, data: Path, begun: list[training.Trainer]):
    changed = {name: tensor.clone().contiguous() for name, tensor in once("lite0").items()}
    changed["conv_stem.weight"] += 1
    save_file(changed, "own.safetensors")
    ran = polyinr("train", data, "--preset", "tiny", "--weights", "lite0=own.safetensors", "--run-dir", "run")
    assert ran.code == 0, ran.stderr
    assert torch.equal(begun[0].weights["lite0"]["conv_stem.weight"], changed["conv_stem.weight"])


def test_the_device_is_the_runs(polyinr: Run, data: Path, begun: list[training.Trainer]):
    assert polyinr("train", data, "--preset", "tiny", "--device", "cpu", "--run-dir", "run").code == 0
    assert begun[0].device == torch.device("cpu")


def said(ran: Ran) -> list[str]:
    """The lines on stderr, without how many threads train and for how long, nor the progress of a slow machine."""
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("polyinr: stage ")]
    return [re.sub(r"\d+; .*", "", line) for line in lines]


def test_a_run_tells_keeps_and_stops(polyinr: Run, data: Path):
    """Two iterations in two sittings: --max-time, --json, --quiet, the three intervals."""
    often = ("--state-every", "0.004", "--checkpoint-every", "0.004", "--metric-every", "0.004")
    common = ("train", data, *TINY, "--run-dir", "run", *often)
    first = polyinr(*common, "--max-time", "0.001s", "--json")
    beginning = ["polyinr: training on the CPU, threads: ", "polyinr: --dry-run measures time and memory"]
    render = "polyinr: render images of this run with: polyinr sample -m run --seeds 0-7 -o images/"
    ending = "polyinr: training state saved to run; run the same command again to resume"
    assert (first.code, said(first)) == (0, [*beginning, render, ending])
    assert [line["fd-lite2"] >= 0 for line in first.lines if "fd-lite2" in line] == [True, True]
    checkpoints = sorted(path.stem for path in Path("run/checkpoints").iterdir())
    assert checkpoints == ["000000000", "000000004", "best"]
    second = polyinr(*common)
    resuming = "polyinr: resuming at 0.004 kimg"
    assert (second.code, second.stdout, said(second)) == (0, b"", [*beginning, resuming, render])
    again = polyinr(*common, "--quiet", "--json")
    assert again == Ran(0, b"", "")
    events = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert [event["kimg"] for event in events if "fd-lite2" in event] == [0, 0.004, 0.008]
    assert load_checkpoint(Path("run/checkpoints/000000008.safetensors")).resolution == 8
    with Image.open("run/samples/fakes-000000008.png") as image:
        assert image.width >= 8 * 8
    drawn = polyinr(*shlex.split(render.partition("with: polyinr ")[2]))
    assert (drawn.code, len(list(Path("images").iterdir()))) == (0, 8)


def test_help_shows_the_values_of_the_presets(polyinr: Run):
    shown = " ".join(polyinr("train", "--help").stdout.decode().split())
    for name, values in {
        "batch": "small: 32; imagenet, ffhq: 64; tiny: 8",
        "mirror": "small, imagenet, tiny: no; ffhq: yes",
        "backbones": "small, tiny: lite0; imagenet, ffhq: deit-base,lite0",
        "loss": "default: hinge",
    }.items():
        assert f"[{values}]" in shown, name
        assert preset_values(name) == f"[{values}]"
    assert preset_values("chunk") == ""
    assert "--loss <hinge|relativistic>" in shown


def test_verbose_shows_the_traceback(polyinr: Run, data: Path):
    assert "Traceback" in polyinr("train", data, "--batch", "64", "--run-dir", "run", "--verbose").stderr


def test_every_option_is_tested_here():
    """Each parameter of the command is an option typed somewhere in this file."""
    text = Path(__file__).read_text()
    typed = {"as_json": "json", "cond": "no-cond"}
    options = [typed.get(name, name).replace("_", "-") for name in inspect.signature(train).parameters]
    assert [option for option in options if f'"--{option}"' not in text] == ["data"]


class Terminal:
    """A process whose stderr is a terminal of ours; `shown` is what it has written there."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.master, slave = pty.openpty()
        code = "from polyinr_cli.main import run; run()"
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *command],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=slave,
            env=environment,
        )
        os.close(slave)
        self.shown = ""

    def read(self, seconds: float = 0.1) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self.shown += os.read(self.master, 100_000).decode()
            except OSError:  # the other side has closed
                time.sleep(seconds)

    def wait(self, reached: Any) -> None:
        """Read until `reached()`."""
        deadline = time.monotonic() + 240
        while not reached():
            assert self.process.poll() is None, self.shown
            assert time.monotonic() < deadline, self.shown
            self.read()

    def interrupt(self) -> int:
        """Send Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        while self.process.poll() is None:
            self.read()
        self.read()
        os.close(self.master)
        return self.process.returncode


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_saves_and_the_same_command_goes_on(tmp_path: Path):
    archive(tmp_path / "data.zip")
    command = ["train", "data.zip", "--preset", "tiny", "--stages", "8:4", "--batch", "4", "--run-dir", "run"]
    command += ["--state-every", "0.004"]

    def images() -> int:
        return max((int(path.stem) for path in (tmp_path / "run/state").glob("*.json")), default=0)

    first = Terminal(command, tmp_path)
    first.wait(lambda: images() >= 8 and "kimg" in first.shown)
    assert first.interrupt() == 130
    assert "images/s" in first.shown
    assert "polyinr: training state saved to run; run the same command again to resume" in first.shown
    assert first.shown.rstrip().endswith("polyinr: interrupted")
    assert "Traceback" not in first.shown
    kept = images()
    second = Terminal(command, tmp_path)
    second.wait(lambda: images() > kept)
    assert second.interrupt() == 130
    assert f"polyinr: resuming at {kept / 1000:g} kimg" in second.shown
    numbered = (tmp_path / "run/checkpoints").glob("[0-9]*")
    assert load_checkpoint(max(numbered)).kimg == images() / 1000
