"""A seed is one image, to the last bit: wherever its weights stand in memory, whatever is drawn beside it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import Run
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.evaluation.image_sources import GeneratedImages, sample_w
from polyinr_core.latents.latents import Latents, draw_labels, draw_z, from_seeds, to_affine
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid, SubGrid
from polyinr_core.models.generator import Generator
from polyinr_core.models.layers import ALIGNMENT, aligned, batch_invariant
from polyinr_core.rendering.render import render_rows
from polyinr_core.training.samples import render_seeds

OFFSETS = range(ALIGNMENT // 4)  # where a float32 may begin in a cache line


def at_offset(x: Tensor, offset: int) -> Tensor:
    """Return a copy that begins so many numbers behind a cache line's begin."""
    room = torch.empty(x.numel() + 2 * ALIGNMENT, dtype=x.dtype)
    start = -(room.data_ptr() // x.element_size()) % ALIGNMENT + offset
    moved = room[start : start + x.numel()].view(x.shape).copy_(x)
    assert moved.data_ptr() % ALIGNMENT == offset * x.element_size() % ALIGNMENT
    return moved


def moved_weights(generator: Generator, offset: int) -> Generator:
    """Return the generator with each of its tensors elsewhere in its cache line."""
    other = Generator(generator.config).requires_grad_(False)
    state = generator.state_dict()
    tensors = {name: at_offset(x, (offset + 5 * i) % len(OFFSETS)) for i, (name, x) in enumerate(state.items())}
    other.load_state_dict(tensors, assign=True)
    return other


@dataclass(frozen=True)
class Model:
    generator: Generator
    label: int | None


@pytest.fixture(scope="module", params=["release", "paper", "classes", "odd widths"])
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    sizes = {"levels": 3, "channels": 16, "z_dim": 8, "w_dim": 12, "table_dim": 6}
    if request.param == "odd widths":
        sizes |= {"channels": 7, "z_dim": 5, "w_dim": 9}
    form = "paper" if request.param == "paper" else "release"
    classes = 4 if request.param == "classes" else 0
    generator = Generator(GeneratorConfig(form=form, classes=classes, **sizes)).requires_grad_(False)
    for parameter in generator.synthesis.parameters():
        parameter.mul_(2.5)
    return Model(generator, 2 if classes else None)


def render_image(generator: Generator, seed: int, label: int | None) -> tuple[Latents, Tensor]:
    latents = from_seeds(generator, [seed], label=label, psi=0.7)
    return latents, torch.cat(list(render_rows(generator.synthesis, latents.affine[0], RegularGrid(50, 47))))


def test_where_the_weights_stand_does_not_matter(model: Model) -> None:
    """MKL on AMD orders the sums of a product of few rows by the alignment of what is multiplied."""
    expected, image = render_image(model.generator, 3, model.label)
    for offset in OFFSETS:
        found, again = render_image(moved_weights(model.generator, offset), 3, model.label)
        assert torch.equal(found.w, expected.w), offset
        assert torch.equal(found.affine, expected.affine), offset
        assert torch.equal(again, image), offset


def test_where_the_latents_stand_does_not_matter(model: Model) -> None:
    expected, image = render_image(model.generator, 3, model.label)
    grid = RegularGrid(50, 47)
    for offset in OFFSETS:
        z = Latents(z=at_offset(expected.z, offset), label=expected.label)
        w = Latents(w=at_offset(expected.w, offset), label=expected.label)
        assert torch.equal(to_affine(model.generator, z, psi=0.7).affine, expected.affine)
        assert torch.equal(to_affine(model.generator, w).affine, expected.affine)
        maps = at_offset(expected.affine, offset)[0]
        assert torch.equal(torch.cat(list(render_rows(model.generator.synthesis, maps, grid))), image)


@pytest.mark.parametrize("seeds", [[3], [3, 1], [0, 1, 2, 3], [*range(9)], [5, 4, 3, 2, 1, 0], [*range(40)]])
def test_what_is_mapped_beside_a_seed_does_not_matter(model: Model, seeds: list[int]) -> None:
    generator = model.generator
    z = draw_z(seeds, generator.config.z_dim)
    label = None if model.label is None else torch.full((len(seeds),), model.label)
    w = generator.w_each(z, label, psi=0.7)
    affine, own = generator.affine_each(w), seeds.index(3)
    expected, _ = render_image(generator, 3, model.label)
    assert torch.equal(w[own], expected.w[0])
    assert torch.equal(affine[own], expected.affine[0])


@pytest.mark.parametrize("count", [4, 5, 16, 17])
def test_training_s_samples_and_evaluation_s_images_do_not_depend_on_their_number(model: Model, count: int) -> None:
    generator = model.generator
    seeds = list(range(count))
    drawn = torch.cat(list(render_seeds(generator, seeds, resolution=40)))
    for seed in (0, 3):
        assert torch.equal(drawn[seed], next(render_seeds(generator, [seed], resolution=40))[0])
    checkpoint = Checkpoint(generator=generator, resolution=40)
    few = torch.cat(list(GeneratedImages(checkpoint, name="m", count=count).batches()))
    more = torch.cat(list(GeneratedImages(checkpoint, name="m", count=23).batches()))
    assert torch.equal(few, more[:count])
    w = sample_w(checkpoint, range(count), psi=1.0, label_seeds=range(count))
    label = int(draw_labels([3], 4)[0]) if model.label is not None else None
    assert torch.equal(w[3], from_seeds(generator, [3], label=label).w[0])


@pytest.mark.parametrize("channels", [7, 10, 16, 24, 96, 160])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_a_pixel_stands_in_a_block_does_not_matter(channels: int, dtype: torch.dtype) -> None:
    """A tile's pixels are those of the whole image; a stripe of 1365 rows, as of 96 channels, ended apart."""
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(levels=3, channels=channels, z_dim=8, w_dim=12)).to(dtype)
    affine, grid = from_seeds(generator, [3]).affine[0], RegularGrid(90, 70)
    whole = torch.cat(list(render_rows(generator.synthesis, affine, grid)))
    for left, top, width, height in ((0, 0, 90, 35), (13, 5, 60, 60), (89, 69, 1, 1), (1, 0, 88, 70)):
        tile = torch.cat(list(render_rows(generator.synthesis, affine, SubGrid(grid, left, top, width, height))))
        assert torch.equal(tile, whole[top : top + height, left : left + width])


def test_a_copy_only_where_one_is_needed() -> None:
    x = torch.randn(6, 16)
    assert aligned(x) is x
    moved = at_offset(x, 3)
    assert aligned(moved).data_ptr() % ALIGNMENT == 0
    assert torch.equal(aligned(moved), x)
    assert torch.equal(aligned(x.T), x.T)
    assert aligned(x.T).is_contiguous()
    weight = nn.Parameter(moved)
    aligned(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones(6, 16))


def test_rows_are_mapped_in_one_shape() -> None:
    shapes = []

    def mapped(x: Tensor, y: Tensor | None) -> Tensor:
        shapes.append(len(x))
        return 2 * x

    x = torch.randn(3, 5)
    assert torch.equal(batch_invariant(mapped, x, None), 2 * x)
    assert shapes == [8, 8, 8]
    assert batch_invariant(mapped, x[:0], None).shape == (0, 5)


@pytest.mark.parametrize("padding", range(0, 64, 4))
def test_where_a_file_holds_the_weights_does_not_matter(
    polyinr: Run, tiny_class_checkpoint, tmp_path, padding: int
) -> None:
    """The header's length decides where the numbers of a safetensors file begin; one more text moves them."""
    from safetensors import safe_open

    with safe_open(tiny_class_checkpoint, "pt") as file:
        metadata = file.metadata()
    other = tmp_path / "other.safetensors"
    save_file(load_file(tiny_class_checkpoint), other, metadata={**metadata, "padding": "x" * padding})
    for name, model in (("a.npy", tiny_class_checkpoint), ("b.npy", other)):
        assert polyinr("sample", "--seeds", "0-2", "-m", model, "-o", name, "--overwrite").code == 0
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))
    assert all(x.data_ptr() % ALIGNMENT == 0 for x in load_checkpoint(other).generator.state_dict().values())
