"""Several images at once: each gets what it would get alone; frames of a video start at the one before."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import polyinr_core as polyinr
from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.errors import FileError, RequestError
from polyinr_core.images.animation import read_video, write_animation
from polyinr_core.inversion import search
from polyinr_core.inversion.invert import InversionResult, invert, invert_images
from polyinr_core.inversion.loss import (
    MAX_BATCH,
    InversionLoss,
    PerceptualDistance,
    TargetImage,
    images_at_once,
    load_targets,
)
from polyinr_core.latents.latents import Space
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.rendering.model import Model

PIXELS = InversionLoss("pixels")


def colors(x: Tensor) -> list[Tensor]:
    """Features at two depths: the colors, and their sums."""
    return [x, torch.cat([x.sum(dim=1, keepdim=True), torch.ones_like(x[:, :1])], dim=1)]


def targets_of(model: Model, seeds: range, size: tuple[int, int] = (16, 16)) -> list[TargetImage]:
    images = model.sample(seeds, size=size)
    return [TargetImage(f"seed {seed}", image, *size) for seed, image in zip(seeds, images, strict=True)]


@pytest.mark.parametrize("space", ["affine", "w", "z"])
def test_together_as_alone(tiny_class_checkpoint: Path, space: Space):
    """In float64, for images of two sizes, two starting points and a loss with features.

    Adam's first steps are the signs of gradients, also of what rounding leaves of nought: in w, where some entries
    hardly matter, two searches differ by more than rounding, but not visibly.
    """
    tolerance = 1e-3 if space == "w" else 1e-6
    model = polyinr.load(tiny_class_checkpoint)
    checkpoint = Checkpoint(load_checkpoint(tiny_class_checkpoint).generator.double())
    targets = targets_of(model, range(3))
    targets[1:1] = targets_of(model, range(3, 4), size=(12, 8))
    loss = InversionLoss("own", PerceptualDistance(colors))
    options = {"space": space, "loss": loss, "steps": 10, "restarts": 2}
    together = invert_images(checkpoint, targets, **options)
    for target, one in zip(targets, together, strict=True):
        alone = invert(checkpoint, target, **options)
        assert one.target is target
        assert (one.steps, one.start) == (alone.steps, alone.start)
        assert one.loss == pytest.approx(alone.loss, rel=tolerance)
        assert one.perceptual == pytest.approx(alone.perceptual, rel=tolerance)
        assert np.abs(one.image.astype(int) - alone.image).max() <= 1
        if space != "w":
            assert torch.allclose(one.affine, alone.affine, rtol=1e-6, atol=1e-6)
        assert one.latents.label.tolist() == alone.latents.label.tolist()


def test_an_image_that_is_done_leaves_the_batch(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    """The mean image itself, quantized, starts at 59 dB; another image goes on, as it would alone."""
    monkeypatch.setattr(search, "EXACT_PSNR", 50.0)
    checkpoint = Checkpoint(load_checkpoint(tiny_checkpoint).generator.double())
    (mean,) = polyinr.load(tiny_checkpoint).sample([0], psi=0.0)
    targets = [TargetImage("mean", mean, 16, 16), *targets_of(polyinr.load(tiny_checkpoint), range(4, 5))]
    done, other = invert_images(checkpoint, targets, steps=60, loss=PIXELS)
    alone = invert(checkpoint, targets[1], steps=60, loss=PIXELS)
    assert done.steps < other.steps == alone.steps
    assert other.loss == pytest.approx(alone.loss, rel=1e-6)


def test_batches_fit_into_memory():
    config = GeneratorConfig(levels=3, channels=16, z_dim=8, w_dim=12)
    one = 4 * 5 * 16 * 3 * 64  # a quarter of it holds the activations of 8 x 8 pixels
    assert images_at_once(config, width=8, height=8) == MAX_BATCH
    assert images_at_once(config, width=8, height=8, memory=3 * one + 1) == 3
    assert images_at_once(config, width=8, height=8, memory=1) == 1


def test_a_stop_keeps_all_that_were_begun(tiny_checkpoint: Path):
    model = polyinr.load(tiny_checkpoint)
    targets = [*targets_of(model, range(2)), *targets_of(model, range(2, 3), size=(9, 9))]
    calls = iter(range(100))
    found = invert_images(model, targets, steps=50, loss=PIXELS, stop=lambda: next(calls) == 9)
    assert [(one.target.name, one.steps, one.is_interrupted) for one in found] == [
        ("seed 0", 9, True),
        ("seed 1", 9, True),
    ]
    assert all(one.loss < invert(model, one.target, loss=PIXELS, stop=lambda: True).loss for one in found)


def test_progress_of_all(tiny_checkpoint: Path):
    model = polyinr.load(tiny_checkpoint)
    targets = [*targets_of(model, range(2)), *targets_of(model, range(2, 3), size=(9, 9))]
    seen: list[tuple[int, int, float]] = []
    invert_images(model, targets, steps=4, loss=PIXELS, progress=lambda *numbers: seen.append(numbers))
    done = [one[0] for one in seen]
    assert done == sorted(done)
    assert {one[1] for one in seen} == {2 * 20}
    assert done[-1] <= 40
    assert all(np.isfinite(one[2]) for one in seen)


def frames_of(model: Model, count: int) -> list[np.ndarray]:
    """Return frames from one image to another, uint8."""
    one, two = (model.latents([seed]) for seed in (3, 4))
    path = polyinr.interpolate([one, two], steps=count)
    return [((frame.permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).byte().numpy() for frame in model.render(path)]


def test_a_frame_starts_at_the_one_before(tiny_checkpoint: Path):
    model = polyinr.load(tiny_checkpoint)
    frames = frames_of(model, 4)
    found = invert_images(model, frames, is_video=True, steps=40, loss=PIXELS)

    def again(frame: np.ndarray, before: InversionResult) -> InversionResult:
        return invert(model, frame, steps=10, loss=PIXELS, start=before.latents)

    for before, one, frame in zip(found[:-1], found[1:], frames[1:], strict=True):
        assert torch.equal(one.affine, again(frame, before).affine)
        assert one.steps <= 5 * 10


@pytest.fixture
def clip(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    pytest.importorskip("av")
    frames = frames_of(polyinr.load(tiny_checkpoint), 5)
    write_animation(tmp_path / "clip.mp4", frames, count=5, fps=12.5)
    return tmp_path / "clip.mp4"


def test_the_frames_of_a_video(tiny_checkpoint: Path, clip: Path):
    """H.264 at rate factor 18 with half the resolution of colors: near to what was written."""
    frames = frames_of(polyinr.load(tiny_checkpoint), 5)
    read = list(read_video(clip))
    assert [fps for _, fps in read] == [12.5] * 5
    for (pixels, _), frame in zip(read, frames, strict=True):
        assert pixels.shape == frame.shape
        assert np.abs(pixels.astype(float) - frame).mean() < 12
    targets, fps = load_targets([clip], resolution=8)
    assert (len(targets), fps) == (5, 12.5)
    assert targets[3].name == f"{clip} frame 3"
    assert targets[3].pixels.shape == (8, 8, 3)


def test_what_is_inverted(clip: Path):
    folder = clip.parent / "photos"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "b.png")
    Image.new("RGB", (6, 3)).save(folder / "a.png")
    (folder / "notes.txt").touch()
    targets, fps = load_targets([folder, (folder / "b.png").read_bytes()])
    assert [Path(one.name).name for one in targets] == ["a.png", "b.png", "stdin"]
    assert fps is None
    with pytest.raises(RequestError, match="a video is inverted alone"):
        load_targets([clip, folder])
    (clip.parent / "empty").mkdir()
    with pytest.raises(FileError, match="holds no images"):
        load_targets([clip.parent / "empty"])
    clip.write_bytes(b"no video at all" * 100)
    with pytest.raises(FileError, match="is not a whole video"):
        load_targets([clip])
