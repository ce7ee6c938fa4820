"""Released checkpoints convert bit for bit, and the images they draw are the golden ones."""

import hashlib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from forging import CLASSES, LEVELS, ROWS, SIDE, WIDTH, W, Z, forge, released_tensors, storage_blob, stored
from rounding import assert_rounded, terms_of, terms_to_affine
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from polyinr_core.checkpoints.official import load_official_checkpoint
from polyinr_core.errors import CheckpointError, FileError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import LearnedGrid, RegularGrid

REFERENCE = Path(__file__).parent.parent / "reference"
FILES = {
    "official_like.pkl": "generator_small",
    "official_like_full.pkl": "generator_small",
    "official_like_uncond.pkl": "generator_uncond_small",
    "generator_small.safetensors": "generator_small",
    "generator_uncond_small.safetensors": "generator_uncond_small",
}


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, Tensor]]:
    return {name: load_file(REFERENCE / f"{name}.safetensors") for name in set(FILES.values())}


@pytest.fixture(scope="module")
def converted() -> dict[str, Checkpoint]:
    return {name: load_official_checkpoint(REFERENCE / name) for name in FILES}


def rows_of(ours: dict[str, Tensor], level: int, n: int) -> dict[str, Tensor]:
    """Name the rows of our joined layers, and level's products, as the release does: (row, col) is (y, x)."""
    at = f"synthesis.fb{level}" if level else "synthesis"
    product = f"{at}.fb0.fc1" if level else f"{at}.fc0_0"
    expected = {}
    for kind in ("weight", "bias"):
        x, y, constant = ours[f"affine.levels.{level}.map.{kind}"].split(n)
        xx, xy, yx, yy, bx, by = ours[f"affine.levels.{level}.chain.{kind}"].split(1)
        expected[f"{at}.fc0_1.{kind}"] = torch.cat([y, x])
        expected[f"{at}.fc0_2.{kind}"] = constant
        expected[f"{at}.fc0_3.{kind}"] = torch.cat([yy, yx, xy, xx])
        expected[f"{at}.fc0_4.{kind}"] = torch.cat([by, bx])
        expected[f"{product}.{kind}"] = ours[f"synthesis.products.{level}.{kind}"]
        if level:
            expected[f"{at}.fc0_5.{kind}"] = ours[f"affine.levels.{level}.style.{kind}"]
    return expected


def released_form(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Write our tensors under their released names again: the conversion, the other way round."""
    ours, config = checkpoint.generator.state_dict(), checkpoint.generator.config
    grid = checkpoint.learned_grid[:, [1, 0]].unsqueeze(0)
    found = {"gridt": grid, "synthesis.grid": grid, "mapping.w_avg": ours["mapping.w_avg"]}
    found["mapping.embed.weight"] = ours["mapping.table.weight"]
    for kind in ("weight", "bias"):
        if config.classes:
            found[f"mapping.embed_proj.{kind}"] = ours[f"mapping.label_proj.{kind}"]
        for i in range(config.mapping_layers):
            found[f"mapping.fc{i}.{kind}"] = ours[f"mapping.layers.{i}.{kind}"]
        rgb = ours[f"synthesis.to_rgb.{kind}"]
        found[f"synthesis.to_rgb.{kind}"] = rgb[..., None, None] if kind == "weight" else rgb
    for level in range(config.levels):
        found |= rows_of(ours, level, config.channels)
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_number_arrives_bit_for_bit(name, converted, golden):
    weights = golden[FILES[name]]
    expected = {k: v for k, v in weights.items() if k.startswith(("gridt", "mapping.", "synthesis."))}
    if name == "official_like_full.pkl":  # its table was cut when the file was made
        expected["mapping.embed.weight"] = expected["mapping.embed.weight"][:12]
    found = released_form(converted[name])
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].numpy().tobytes() == tensor.numpy().tobytes(), key


@pytest.mark.parametrize("name", FILES)
def test_sizes_and_facts_come_from_the_file(name, converted):
    conditional = "uncond" not in name
    rows = 12 if "full" in name else 1000
    checkpoint = converted[name]
    assert checkpoint.generator.config == GeneratorConfig(
        channels=64, w_dim=64, classes=10 if conditional else 0, table_rows=rows
    )
    assert checkpoint.resolution == 32
    assert checkpoint.kimg == (80.064 if name.endswith(".pkl") else 0)
    assert not checkpoint.generator.training


@pytest.mark.parametrize("name", FILES)
def test_the_origin_is_the_released_file(name, converted):
    digest = hashlib.sha256((REFERENCE / name).read_bytes()).hexdigest()
    expected = {"converter": f"polyinr {version('polyinr')}", "file": name, "sha256": digest}
    assert converted[name].origin == expected


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("psi", ["0", "0.7", "1"])
@pytest.mark.parametrize("side", [16, 32])
def test_images_are_the_golden_ones(name, psi, side, converted, golden):
    # oracle: the release's own code
    vectors, generator = golden[FILES[name]], converted[name].generator
    label = vectors.get("input.class_id")
    points = RegularGrid(side, side).coordinates()
    terms = terms_to_affine(generator.config) + terms_of(generator.config)
    for kind, dtype in [("output", torch.float32), ("output64", torch.float64)]:
        generator.to(dtype)
        w = generator.w(vectors["input.z"].to(dtype), label, psi=float(psi))
        colors = generator.synthesis(generator.affine(w), points.to(dtype))
        generator.float()
        expected = vectors[f"{kind}.image_psi{psi}_res{side}"].flatten(2).mT
        assert_rounded(colors, expected, terms=terms)


def test_the_learned_grid_serves_at_its_own_resolution(converted, golden):
    checkpoint = converted["official_like.pkl"]
    grid = checkpoint.grid(32, 32)
    assert isinstance(grid, LearnedGrid)
    points = grid.at(torch.arange(1024), dtype=torch.float32)
    assert points[:, :2].equal(golden["generator_small"]["gridt"][0].flip(-1))
    assert isinstance(checkpoint.grid(16, 16), RegularGrid)
    assert isinstance(checkpoint.grid(32, 32, window=(-0.25, -0.25, 1.25, 1.25)), RegularGrid)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_forged_files_of_every_protocol_convert(protocol, tmp_path):
    tensors = released_tensors()
    path = tmp_path / "forged.pkl"
    nimg = torch.tensor([12_345])
    path.write_bytes(forge(tensors, protocol=protocol, progress={"cur_nimg": nimg, "best_fid": 9999}))
    checkpoint = load_official_checkpoint(path)
    assert checkpoint.kimg == 12.345
    assert checkpoint.resolution == SIDE
    assert checkpoint.generator.config == GeneratorConfig(
        levels=LEVELS, channels=WIDTH, z_dim=Z, w_dim=W, classes=CLASSES, table_rows=ROWS
    )
    found = released_form(checkpoint)
    assert found.keys() == tensors.keys()
    assert all(found[key].equal(tensor) for key, tensor in tensors.items())


def test_swapped_coordinates_draw_the_release_formula(tmp_path):
    # oracle: method 2.4, 2.5 written out level by level in float64 on (row, col), for a grid that was trained
    path = tmp_path / "forged.pkl"
    released = released_tensors(3)
    path.write_bytes(forge(released))
    checkpoint = load_official_checkpoint(path)
    generator = checkpoint.generator.double()
    t = {key: tensor.double() for key, tensor in released.items()}
    z = torch.randn(2, Z, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([1, 0])
    w = generator.w(z, label)
    grid = checkpoint.grid(SIDE, SIDE)
    found = generator.synthesis(generator.affine(w), grid.at(torch.arange(SIDE**2), dtype=w.dtype))

    def linear(name: str, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, t[f"{name}.weight"].flatten(1), t[f"{name}.bias"])

    def lrelu(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    g, x = t["gridt"], None
    for level in range(LEVELS):
        at = f"synthesis.fb{level}" if level else "synthesis"
        f = w[:, level]
        if level:
            f = 2**0.5 * lrelu(f @ t[f"{at}.fc0_5.weight"].T / W**0.5 + t[f"{at}.fc0_5.bias"])
        g = g @ linear(f"{at}.fc0_3", f).view(-1, 2, 2) + linear(f"{at}.fc0_4", f)[:, None]
        m = g @ linear(f"{at}.fc0_1", f).view(-1, 2, WIDTH) + linear(f"{at}.fc0_2", f)[:, None]
        product = f"{at}.fb0.fc1" if level else f"{at}.fc0_0"
        x = lrelu(linear(product, m if x is None else x * lrelu(m))).clamp(-256, 256)
    assert torch.allclose(found, linear("synthesis.to_rgb", x), rtol=1e-10, atol=1e-9)


def test_a_converted_checkpoint_is_saved_and_read_again(tmp_path, converted):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, converted["official_like_uncond.pkl"])
    again = load_checkpoint(path)
    assert again.origin == converted["official_like_uncond.pkl"].origin
    assert again.generator.config == converted["official_like_uncond.pkl"].generator.config
    assert released_form(again).keys() == released_form(converted["official_like_uncond.pkl"]).keys()
    with pytest.raises(CheckpointError, match="polyinr checkpoint already"):
        load_official_checkpoint(path)


def change(name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    """Return the released tensors with one replaced, added or (None) left out."""
    tensors = released_tensors() | ({} if tensor is None else {name: tensor})
    if tensor is None:
        del tensors[name]
    return {key: value.clone() for key, value in tensors.items()}


CHANGES = {
    "missing level part": (change("synthesis.fb1.fc0_3.bias", None), "fb1.fc0_3.bias is missing"),
    "missing table": (change("mapping.embed.weight", None), "mapping.embed.weight is missing"),
    "missing mean": (change("mapping.w_avg", None), "mapping.w_avg is missing"),
    "missing product": (change("synthesis.fc0_0.weight", None), "synthesis.fc0_0.weight is missing"),
    "a level in the middle": (change("synthesis.fb1.fb0.fc1.weight", None), "is in no released generator"),
    "too many": (change("synthesis.fb1.fc0_9.bias", torch.zeros(3)), "fc0_9.bias is in no released generator"),
    "strange name": (change("synthesis.x\ny", torch.zeros(3)), r"synthesis.x\\ny is in no released"),
    "wrong width": (change("synthesis.fb2.fc0_1.weight", torch.zeros(2, 2)), r"has shape \[2, 2\], expected"),
    "too few axes": (change("synthesis.fc0_0.weight", torch.tensor(1.0)), "0 axes, too few"),
    "no square": (change("gridt", torch.zeros(1, 15, 2)), r"expected \[1, 9, 2\]"),
    "flat grid": (change("gridt", torch.zeros(16, 2)), "gridt has shape"),
    "two grids": (change("gridt", torch.zeros(1, 16, 2)), "differ"),
    "not a number": (
        change("mapping.fc1.bias", torch.full((W,), torch.nan)),
        "fc1.bias holds values that are not",
    ),
    "few rows": (change("mapping.embed.weight", torch.zeros(1, 320)), "1 rows cannot hold 2 classes"),
    "double": (change("mapping.fc1.bias", torch.zeros(W).double()), "float64|DoubleStorage"),
}


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
@pytest.mark.parametrize("case", CHANGES)
def test_a_tensor_missing_misshapen_or_unknown_is_named(case, suffix, tmp_path):
    tensors, message = CHANGES[case]
    path = tmp_path / f"broken{suffix}"
    if suffix == ".pkl":
        path.write_bytes(forge(tensors))
    else:
        save_file(tensors, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_official_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_vectors_beside_the_tensors_are_ignored(tmp_path):
    path = tmp_path / "tensors.safetensors"
    vectors = {"input.z": torch.zeros(1), "output64.x": torch.zeros(1), "debug.a": torch.zeros(1)}
    tensors = released_tensors() | vectors | {"post_train.gridt": torch.zeros(1)}
    save_file({key: value.clone() for key, value in tensors.items()}, path)
    assert load_official_checkpoint(path).resolution == SIDE


def test_a_view_into_a_larger_storage_is_read(tmp_path):
    tensors = released_tensors()
    numbers = torch.arange(float(2 * W))
    tensors["mapping.fc1.bias"] = numbers[::2]
    path = tmp_path / "view.pkl"
    path.write_bytes(forge(tensors))
    assert load_official_checkpoint(path).generator.state_dict()["mapping.layers.1.bias"].equal(numbers[::2])


def test_a_storage_far_larger_than_its_tensor_is_refused(tmp_path):
    tensors = released_tensors()
    tensors["mapping.w_avg"] = stored(storage_blob(torch.zeros(100_000)), (CLASSES, W), (W, 1))
    path = tmp_path / "large.pkl"
    path.write_bytes(forge(tensors))
    with pytest.raises(CheckpointError, match="far more than are needed"):
        load_official_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"\x80", b"hello\n", b"PK\x03\x04" + bytes(40), bytes(100), b"\x89PNG\r\n"])
def test_other_kinds_of_files_are_refused(content, tmp_path):
    path = tmp_path / "other.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a released checkpoint"):
        load_official_checkpoint(path)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        load_official_checkpoint(tmp_path / "absent.pkl")
    with pytest.raises(FileError, match="not a regular file"):
        load_official_checkpoint(tmp_path)
    with pytest.raises(FileError, match="not a regular file"):
        load_official_checkpoint(Path("/dev/zero"))
