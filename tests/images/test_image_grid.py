"""Pixels: quantized colors, grids, captions, frames and color maps."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from skimage.color import rgb2lab

from polyinr_core.errors import PolyinrError, RequestError
from polyinr_core.images.grid import (
    COLORMAPS,
    apply_colormap,
    caption,
    draw_frame,
    fill_rows,
    grid_layout,
    make_grid,
    to_uint8,
)


def test_images_stand_row_by_row():
    images = np.stack([np.full((3, 4, 3), i, dtype=np.uint8) for i in range(5)])
    page = make_grid(images, 2, gap=1, background=(9, 9, 9))
    assert page.shape == (3 * 3 + 2, 2 * 4 + 1, 3)
    assert (page[:3, :4] == 0).all()
    assert (page[4:7, 5:] == 3).all()
    assert (page[8:, :4] == 4).all()
    assert (page[3] == 9).all()
    assert (page[8:, 5:] == 9).all()


def test_one_image_is_its_own_sheet():
    image = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    assert np.array_equal(make_grid(image), image[0])


@pytest.mark.parametrize(
    ("count", "size", "columns"), [(16, (8, 8), 4), (8, (8, 8), 3), (4, (80, 8), 1), (2, (8, 80), 2)]
)
def test_sheets_are_about_square(count: int, size: tuple[int, int], columns: int):
    assert grid_layout(count, *size).columns == columns


def ink(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Return the rows and columns between which anything is dark."""
    rows, columns = np.nonzero(pixels[..., 0] < 128)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_a_label_is_centerd_black_on_white():
    label = caption("HOH", width=101, height=21)
    assert (label.shape, label.dtype) == ((21, 101, 3), np.uint8)
    top, bottom, left, right = ink(label)
    assert abs((left + right) / 2 - 50) <= 1
    assert abs((top + bottom) / 2 - 10) <= 2
    assert set(label[0].ravel()) == {255}
    assert label.min() < 40


@pytest.mark.parametrize("width", [20, 64, 110])
def test_what_is_too_long_is_cut_short_and_stays_inside(width: int):
    text = "smiling face with heart-shaped eyes"
    label = caption(text, width=width, height=20)
    _, _, left, right = ink(label)
    assert left >= 1
    assert right < width - 1
    assert not np.array_equal(label, caption(text[:-1] + "z", width=400, height=20)[:, :width])
    assert np.array_equal(label, caption(text + " and more", width=width, height=20))


def test_large_labels_have_large_letters_and_tall_ones_do_not():
    def height(width: int, height: int) -> int:
        top, bottom, *_ = ink(caption("psi", width=width, height=height))
        return bottom - top

    assert height(500, 60) > 2 * height(500, 20)
    assert height(110, 256) < 20
    assert height(32, 20) > 4


def test_words_that_are_hard_to_write():
    assert np.array_equal(caption("née", width=90, height=20), caption("nee", width=90, height=20))
    assert np.array_equal(caption("猫", width=90, height=20), caption("?", width=90, height=20))
    assert np.array_equal(caption("a\n b", width=90, height=20), caption("a b", width=90, height=20))
    assert caption("", width=9, height=9).min() == 255
    assert caption("word", width=1, height=1).shape == (1, 1, 3)


def test_labels_in_sixteen_bits():
    assert np.array_equal(
        caption("a", width=30, height=20, bits=16), 257 * caption("a", width=30, height=20).astype(int)
    )


def test_a_frame_lies_just_around_its_box():
    pixels = np.zeros((9, 10, 3), dtype=np.uint8)
    draw_frame(pixels, (2.4, 3.0, 6.6, 5.9), (255, 221, 0), thickness=2)
    expected = np.zeros((9, 10), dtype=bool)
    expected[1:8, 0:9] = True
    expected[3:6, 2:7] = False
    assert np.array_equal(pixels.any(axis=2), expected)
    assert {tuple(color) for color in pixels[expected]} == {(255, 221, 0)}


def test_a_frame_partly_or_wholly_outside_is_cut_off():
    pixels = np.zeros((6, 6, 3), dtype=np.uint8)
    draw_frame(pixels, (-3.0, 4.0, 3.0, 20.0), thickness=1)
    assert np.argwhere(pixels.any(axis=2)).tolist() == [[3, 0], [3, 1], [3, 2], [3, 3], [4, 3], [5, 3]]
    pixels[:] = 0
    for box in ((-9.0, -9.0, 20.0, 20.0), (10.0, 0.0, 20.0, 6.0), (0.0, -30.0, 6.0, -20.0), (0.0, 0.0, 6.0, 6.0)):
        draw_frame(pixels, box, thickness=2)
        assert not pixels.any(), box


def test_tiles_framed_apart_fit_together():
    whole = np.zeros((40, 40, 3), dtype=np.uint8)
    draw_frame(whole, (5.5, 6.25, 30.5, 33.75), thickness=3)
    for top in range(0, 40, 8):
        for left in range(0, 40, 8):
            tile = np.zeros((8, 8, 3), dtype=np.uint8)
            draw_frame(tile, (5.5 - left, 6.25 - top, 30.5 - left, 33.75 - top), thickness=3)
            assert np.array_equal(tile, whole[top : top + 8, left : left + 8])


def test_a_frame_in_sixteen_bits():
    pixels = np.zeros((4, 4, 3), dtype=np.uint16)
    draw_frame(pixels, (1, 1, 3, 3), (255, 221, 0), thickness=1)
    assert pixels[0, 0].tolist() == [65535, 221 * 257, 0]


@pytest.mark.parametrize("name", COLORMAPS)
def test_lightness_rises_all_the_way(name: str):
    """Lightness of CIELAB by scikit-image; 8 bits leave steps of less than one unit, never back."""
    lightness = rgb2lab(apply_colormap(np.linspace(0, 1, 256), name))[:, 0]
    steps = np.diff(lightness)
    assert steps.min() >= -0.05
    assert steps.max() < 1
    assert lightness[-1] - lightness[0] > 75


def test_colors_are_matplotlibs():
    found = apply_colormap(np.array([[0.0, 0.5], [1.0, 10 / 255]]))
    assert (found.shape, found.dtype) == ((2, 2, 3), np.uint8)
    expected = [colormaps["inferno"](i, bytes=True)[:3] for i in (0, 128, 255, 10)]
    assert found.reshape(-1, 3).tolist() == np.array(expected).tolist()


def test_values_outside_are_clamped():
    assert np.array_equal(apply_colormap(np.array([-3.0, 7.0, np.inf])), apply_colormap(np.array([0.0, 1.0, 1.0])))


def test_unknown_names_and_what_is_no_number():
    with pytest.raises(RequestError, match=r"'jet' is unknown; use inferno, viridis"):
        apply_colormap(np.zeros(3), "jet")
    with pytest.raises(PolyinrError, match="NaN has no color"):
        apply_colormap(np.array([0.0, np.nan]))


def test_to_uint8_follows_the_release():
    """Oracle: the rule written out, trunc(clamp((x + 1) 127.5, 0, 255)), at its edges; exact."""
    x = torch.tensor([-9.0, -1.0, -0.9961, 0.0, 0.9999, 1.0, 9.0])
    assert to_uint8(x).tolist() == [0, 0, 0, 127, 254, 255, 255]


def test_to_uint8_equals_numpy():
    """Oracle: the same rule in NumPy's float32 on random colors; exact."""
    x = torch.randn(50, 40, 3, generator=torch.Generator().manual_seed(0))
    expected = np.clip((x.numpy() + np.float32(1)) * np.float32(127.5), 0, 255).astype(np.uint8)
    assert np.array_equal(to_uint8(x), expected)


def test_bfloat16_is_widened_before_it_is_scaled():
    x = torch.linspace(-1, 1, 99).bfloat16()
    assert np.array_equal(to_uint8(x), to_uint8(x.float()))


def test_fill_rows_draws_into_a_part_of_a_sheet():
    bands = [torch.full((2, 4, 3), -1.0), torch.full((1, 4, 3), 1.0)]
    target = np.full((5, 6, 3), 7, dtype=np.uint8)
    seen: list[int] = []
    fill_rows(target[1:4, 1:5], bands, progress=seen.append)
    assert target[1:3, 1:5].max() == 0
    assert target[3, 1:5].min() == 255
    assert (target[0] == 7).all()
    assert (target[:, 0] == 7).all()
    assert seen == [2, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_color_that_is_no_number_is_an_error(bad: float):
    with pytest.raises(PolyinrError, match="NaN or Inf"):
        fill_rows(np.zeros((1, 2, 3), dtype=np.uint8), [torch.full((1, 2, 3), bad)])
