"""Rounding to pixels, and filling an image band by band."""

import numpy as np
import pytest
import torch

from polyinr_core.errors import PolyinrError
from polyinr_core.images.grid import fill_rows, to_uint8


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
