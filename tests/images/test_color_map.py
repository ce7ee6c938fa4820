"""Color maps: matplotlib's colors, even in lightness."""

import numpy as np
import pytest
from matplotlib import colormaps
from skimage.color import rgb2lab

from polyinr_core.errors import PolyinrError, RequestError
from polyinr_core.images.grid import COLORMAPS, apply_colormap


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
