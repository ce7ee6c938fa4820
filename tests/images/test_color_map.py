"""Color maps: colorcet's colors, even in lightness."""

import colorcet
import numpy as np
import pytest
from skimage.color import rgb2lab

from polyinr_core.errors import PolyinrError, RequestError
from polyinr_core.images.grid import NAMES, color


@pytest.mark.parametrize("name", NAMES)
def test_lightness_rises_all_the_way(name: str):
    """Lightness of CIELAB by scikit-image; 8 bits leave steps of less than one unit, never back."""
    lightness = rgb2lab(color(np.linspace(0, 1, 256), name))[:, 0]
    steps = np.diff(lightness)
    assert steps.min() >= -0.05
    assert steps.max() < 1
    assert lightness[-1] - lightness[0] > 75


def test_colors_are_colorcets():
    found = color(np.array([[0.0, 0.5], [1.0, 10 / 255]]))
    assert (found.shape, found.dtype) == ((2, 2, 3), np.uint8)
    expected = [colorcet.palette["fire"][i] for i in (0, 128, 255, 10)]
    assert ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in found.reshape(-1, 3)] == [c.lower() for c in expected]


def test_values_outside_are_clamped():
    assert np.array_equal(color(np.array([-3.0, 7.0, np.inf])), color(np.array([0.0, 1.0, 1.0])))


def test_unknown_names_and_what_is_no_number():
    with pytest.raises(RequestError, match=r"'viridis' is not known; use fire, bmy"):
        color(np.zeros(3), "viridis")
    with pytest.raises(PolyinrError, match="no numbers"):
        color(np.array([0.0, np.nan]))
