"""Both forms against their definition, written level by level, uncollapsed and unfolded, in float64."""

import pytest
import torch
from rounding import assert_rounded, terms_of, terms_to_affine
from torch import Tensor
from torch.nn import functional

from polyinr_core.errors import LabelError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator


def literal(generator: Generator, w: Tensor, points: Tensor) -> Tensor:
    """Draw as the definition reads: a chain of grids in the release's form, Eq. 3 in the paper's."""
    release = generator.config.form == "release"
    grid, h = points[:, :2].expand(len(w), -1, -1), None
    for i, (level, product) in enumerate(zip(generator.affine.levels, generator.synthesis.products, strict=True)):
        f = level.style(w[:, i]) if release and i else w[:, i]
        if release:
            step = level.chain(f)
            grid = grid @ step[:, :4].unflatten(1, (2, 2)) + step[:, None, 4:]
        own = level.map(f).unflatten(1, (3, -1))
        m = grid @ own[:, :2] + own[:, 2:]
        if h is not None:
            m = h * (functional.leaky_relu(m, 0.2) if release else m)
        h = functional.leaky_relu(product(m), 0.2)
        if release:
            h = h.clamp(-256, 256)
    return generator.synthesis.to_rgb(h)


@pytest.mark.parametrize("form", ["release", "paper"])
@pytest.mark.parametrize(("levels", "classes"), [(1, 0), (3, 0), (10, 5)])
def test_collapsed_equals_literal(form: str, levels: int, classes: int) -> None:
    """Both compute the same polynomial; 1e-10 leaves room for another order of float64 additions."""
    torch.manual_seed(0)
    config = GeneratorConfig(form=form, levels=levels, channels=16, z_dim=8, w_dim=12, classes=classes)
    generator = Generator(config).double()
    z = torch.randn(3, 8, dtype=torch.float64)
    label = torch.tensor([0, 4, 2]) if classes else None
    points = torch.cat([torch.randn(20, 2), torch.ones(20, 1)], dim=1).double()
    w = generator.w(z, label)
    expected = literal(generator, w, points)
    assert expected.std() > 0
    torch.testing.assert_close(generator(z, points, label), expected, atol=1e-10, rtol=1e-10)


def test_points_may_differ_from_image_to_image() -> None:
    generator = Generator(GeneratorConfig(levels=3, channels=16, z_dim=8, w_dim=12))
    z, points = torch.randn(2, 8), torch.rand(2, 5, 3)
    both = generator(z, points)
    terms = terms_to_affine(generator.config) + terms_of(generator.config)
    assert_rounded(both[1:], generator(z[1:], points[1]), terms=terms)


@pytest.mark.parametrize(("classes", "label"), [(0, [0]), (4, None), (4, [4]), (4, [-1])])
def test_labels_that_do_not_fit(classes: int, label: list | None) -> None:
    generator = Generator(GeneratorConfig(levels=2, channels=8, z_dim=8, w_dim=8, classes=classes))
    with pytest.raises(LabelError, match=r"^[^\n]+$"):
        generator.w(torch.randn(1, 8), None if label is None else torch.tensor(label))
