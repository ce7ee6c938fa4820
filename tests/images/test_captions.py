"""Words and frames on images."""

import numpy as np
import pytest

from polyinr_core.images.grid import caption, draw_frame


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
