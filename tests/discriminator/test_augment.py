"""DiffAugment and the blur schedule against the golden files."""

import json

import pytest
import torch
from released_disc import REFERENCE
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from polyinr_core.discriminator import diffaugment as rules
from polyinr_core.discriminator.diffaugment import Draws, augment, blur, blur_kernel, draw_augmentation
from polyinr_core.training.config import Stage, TrainingConfig

EXACT = {"atol": 1e-5, "rtol": 0}  # float32: of colors about [-1, 1], a mean of 3072 or a sum of 25 products


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(REFERENCE / "diffaug_golden.safetensors")


def golden_draws(golden: dict[str, Tensor], prefix: str) -> Draws:
    names = ("brightness_u01", "saturation_u01", "contrast_u01", "translation_rows", "translation_cols")
    names += ("cutout_center_rows", "cutout_center_cols")
    return Draws(*(golden[f"{prefix}.{name}"].flatten() for name in names))


@pytest.mark.parametrize("size", [24, 32])
def test_each_step_is_the_release_s(golden: dict[str, Tensor], size: int) -> None:
    x = golden[f"input.diffaug.res{size}.x"]
    draws = golden_draws(golden, f"input.diffaug.res{size}")
    steps = {
        "brightness": rules.change_brightness(x, draws.brightness),
        "saturation": rules.change_saturation(x, draws.saturation),
        "contrast": rules.change_contrast(x, draws.contrast),
        "translation": rules.translate(x, draws.shift_rows, draws.shift_columns),
        "cutout": rules.cut_hole(x, draws.hole_row, draws.hole_column),
    }
    for name, result in steps.items():
        torch.testing.assert_close(result, golden[f"output.diffaug.res{size}.{name}"], **EXACT)


@pytest.mark.parametrize("size", [24, 32])
def test_the_whole_chain_is_the_release_s(golden: dict[str, Tensor], size: int) -> None:
    draws = golden_draws(golden, f"input.diffaug.res{size}.all")
    result = augment(golden[f"input.diffaug.res{size}.x"], draws)
    torch.testing.assert_close(result, golden[f"output.diffaug.res{size}.all"], **EXACT)


@pytest.mark.parametrize("sides", [(7, 5), (4, 4)])
def test_translation_is_padding_on_one_side_and_cropping_on_the_other(sides: tuple[int, int]) -> None:
    """Bit for bit, values and gradients, to shifts up to the border; what is not finite does not spread."""
    height, width = sides
    shifts = [(row, column) for row in range(-height, height + 1) for column in range(-width, width + 1)]
    rows, columns = torch.tensor(shifts).T
    x = torch.randn(len(shifts), 3, *sides, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0, 0] = torch.nan
    x.requires_grad_()
    padded = [functional.pad(image, (-c, c, -r, r)) for image, (r, c) in zip(x, shifts, strict=True)]
    expected, found = torch.stack(padded), rules.translate(x, rows, columns)
    assert torch.equal(found.nan_to_num(9.0), expected.nan_to_num(9.0))
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(*(torch.autograd.grad(result, x, weights)[0] for result in (found, expected)))


def test_draws_move_to_a_device_unchanged() -> None:
    draws = draw_augmentation(5, 32, torch.Generator().manual_seed(3), p=0.5)
    moved = draws.to(torch.device("cpu"))
    for name in draws.drawn():
        value = getattr(draws, name)
        assert torch.equal(getattr(moved, name), value)
        assert getattr(moved, name).dtype == value.dtype


@pytest.mark.parametrize(("size", "reach", "last_center"), [(32, 4, 32), (24, 3, 23), (64, 8, 63)])
def test_draws_fill_their_ranges_and_no_more(size: int, reach: int, last_center: int) -> None:
    draws = draw_augmentation(20_000, size, torch.Generator().manual_seed(1))
    for shift in (draws.shift_rows, draws.shift_columns):
        assert (int(shift.min()), int(shift.max())) == (-reach, reach)
    for center in (draws.hole_row, draws.hole_column):
        assert (int(center.min()), int(center.max())) == (0, last_center)
    for u in (draws.brightness, draws.saturation, draws.contrast):
        assert u.min() >= 0
        assert u.max() < 1
        assert abs(float(u.mean()) - 0.5) < 0.01  # five standard errors


def test_draws_follow_the_generator() -> None:
    first, again, other = (draw_augmentation(4, 32, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.brightness, again.brightness)
    assert torch.equal(first.hole_row, again.hole_row)
    assert not torch.equal(first.brightness, other.brightness)


def test_gradients_flow_through_the_whole_chain() -> None:
    """Oracle: finite differences in float64."""
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    draws = draw_augmentation(1, 6, torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda images: augment(images, draws), x)


def released_blur(images: int) -> float:
    """The blur's width by the schedule that training follows, in a stage as long as the release's."""
    return TrainingConfig().blur_at(images, Stage(32, 10000))


def test_the_blur_schedule_is_the_release_s() -> None:
    schedule = json.loads((REFERENCE / "loss_golden.json").read_text())["blur_schedule"]["values"]
    for row in schedule:
        sigma = released_blur(row["cur_nimg"])
        assert sigma == pytest.approx(row["sigma"], abs=1e-15)
        assert len(blur_kernel(sigma)) == max(1, row["taps"])


def test_blurred_images_are_the_release_s() -> None:
    golden = load_file(REFERENCE / "loss_golden.safetensors")
    x = golden["input.blur.image"]
    for nimg in (0, 100_000, 225_000, 240_000):
        result = blur(x, released_blur(nimg))
        torch.testing.assert_close(result, golden[f"output.blur.image_seen_by_D_nimg{nimg}"], **EXACT)
    for sigma in (0.4, 0.5, 1.0, 4 / 3, 2.0):
        result = blur(x[:1].double(), sigma)  # the golden kernel was rounded to float32, hence 1e-7
        expected = golden[f"output64.blur.filtered_sigma{sigma:.4f}"]
        torch.testing.assert_close(result, expected, atol=1e-7, rtol=0)


def test_a_faded_blur_changes_nothing() -> None:
    x = torch.randn(1, 3, 8, 8)
    assert blur(x, released_blur(250_000)) is x


def test_at_probability_0_nothing_happens() -> None:
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    draws = draw_augmentation(6, 32, torch.Generator().manual_seed(1), p=0.0)
    torch.testing.assert_close(augment(x, draws), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_each_operation_happens_as_often_as_asked(p: float) -> None:
    """A turn by a multiple of four quarters, one in four, leaves the image as it is."""
    count = 20_000
    draws = draw_augmentation(count, 32, torch.Generator().manual_seed(1), p=p)
    matrix, shift = draws.geometry[:, :, :2], draws.geometry[:, :, 2]
    scale = torch.linalg.det(matrix.double())
    happened = {
        "brightness": draws.brightness != 0.5,
        "saturation": draws.saturation != 0.5,
        "contrast": draws.contrast != 0.5,
        "hole": draws.hole_row >= 0,
        "scale": (scale - 1).abs() > 1e-4,
        "shift": shift.abs().amax(dim=1) > 0,
    }
    for name, mask in happened.items():
        assert abs(float(mask.double().mean()) - p) < 5 * (p * (1 - p) / count) ** 0.5 + 1e-3, name
    turned = (matrix[:, 0, 0] <= 0).double().mean()
    assert abs(float(turned) - 0.75 * p) < 0.02


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turns_are_exact(turns: int) -> None:
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cos, sin = (1.0, 0.0, -1.0, 0.0)[turns], (0.0, 1.0, 0.0, -1.0)[turns]
    geometry = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])
    torch.testing.assert_close(rules.transform(x, geometry), torch.rot90(x, turns, (2, 3)), atol=1e-12, rtol=0)


def test_shifts_and_scales_go_where_they_say() -> None:
    """By whole pixels a shift is a translation; a scale of 2 shows the middle half of a ramp."""
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.tensor([[[1.0, 0.0, 2 * 3 / 16], [0.0, 1.0, -2 * 2 / 16]]])
    moved = rules.translate(x, torch.tensor([-2]), torch.tensor([3]))
    torch.testing.assert_close(rules.transform(x, shift), moved, atol=1e-12, rtol=0)
    ramp = torch.linspace(-1 + 1 / 16, 1 - 1 / 16, 16, dtype=torch.float64).expand(1, 3, 16, 16)
    larger = rules.transform(ramp, torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]]))
    torch.testing.assert_close(larger, ramp / 2, atol=1e-12, rtol=0)


def test_gradients_flow_through_adaptive_augmentation() -> None:
    x = (torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    augment(x, draw_augmentation(4, 16, torch.Generator().manual_seed(2), p=0.8)).square().sum().backward()
    assert (x.grad.flatten(1).abs().amax(dim=1) > 0).all()
