"""The whole discriminator against the golden discriminators of the release."""

import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from released_disc import our_name, probed_lite0, relative_l2, released_disc
from torch import Tensor

from polyinr_core.discriminator.discriminator import ProjectedDiscriminator
from polyinr_core.discriminator.losses import generator_loss
from polyinr_core.runtime.pretrained import expected_shapes, load_pretrained

SMALL, COND, DEIT = (f"projected_discriminator_{name}" for name in ("small", "cond_small", "deit_small"))
# Of the largest logit. Sixty layers of up to 1152 products a channel: 60 sqrt(1152) epsilon of float32 is 2.4e-4.
TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-10}
PREFIX = {torch.float32: "output", torch.float64: "output64"}
BOTH = pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])


def label_of(vectors: dict[str, Tensor]) -> Tensor | None:
    """The labels of the golden images, where the discriminator is conditional."""
    return vectors["input.c_onehot"].argmax(dim=1) if "input.c_onehot" in vectors else None


def random_deit() -> dict[str, Tensor]:
    """DeiT-tiny with the goldens' seeded random weights, made by the rule in their note."""
    weights = {}
    for key, shape in expected_shapes("deit_tiny_distilled_patch16_224").items():
        x = np.random.RandomState(zlib.crc32(f"deit:{key}".encode())).randn(*shape)
        if "norm" in key and key.endswith("weight"):
            x = 1 + 0.1 * x
        elif key in ("cls_token", "dist_token", "pos_embed"):
            x = 0.3 * x
        elif key.endswith("bias"):
            x = 0.05 * x
        else:
            x = x / np.sqrt(3 * 16 * 16 if key == "patch_embed.proj.weight" else shape[-1])
        weights[key] = torch.from_numpy(x).float()
    return weights


@BOTH
@pytest.mark.parametrize(
    ("file", "tag"),
    [(SMALL, "x64_interp1"), (SMALL, "x128_interp0"), (COND, "x64_interp1"), (COND, "x128_interp0")],
)
def test_lite0_logits_are_the_release_s(file: str, tag: str, dtype: torch.dtype) -> None:
    side, resized = tag.split("_interp")
    resolution = 224 if resized == "1" else None
    discriminator, vectors = released_disc(file, probed_lite0(), resolution=resolution, dtype=dtype)
    check_logits(discriminator, vectors, side=side, tag=tag, dtype=dtype)


@pytest.mark.parametrize("file", [SMALL, COND])
def test_lite0_logits_without_the_probe_pass(file: str) -> None:
    """Our own case: the pretrained statistics as they are."""
    discriminator, vectors = released_disc(file, load_pretrained("lite0"), dtype=torch.float32)
    check_logits(discriminator, vectors, side="x64", tag="x64_interp1_cleanbn", dtype=torch.float32)


@BOTH
def test_deit_logits_are_the_release_s(dtype: torch.dtype) -> None:
    discriminator, vectors = released_disc(DEIT, random_deit(), dtype=dtype)
    check_logits(discriminator, vectors, side="x64", tag="x64_interp1", dtype=dtype)


def check_logits(
    discriminator: ProjectedDiscriminator, vectors: dict[str, Tensor], *, side: str, tag: str, dtype: torch.dtype
) -> None:
    """Compare logits in eval and in train mode, then the input's gradient where the file has it."""
    x, label = vectors[f"input.{side}"].to(dtype), label_of(vectors)
    golden = f"{PREFIX[dtype]}.{tag}"
    scale = float(vectors[f"{golden}.logits_train"].abs().max())
    close = {"atol": TOLERANCE[dtype] * scale, "rtol": 0}
    discriminator.eval()
    with torch.no_grad():
        (logits,) = discriminator(x[:1], None if label is None else label[:1])  # in eval mode each stands alone
    torch.testing.assert_close(logits, vectors[f"{golden}.logits_eval"][:1], **close)
    discriminator.train()
    x.requires_grad_()
    (logits,) = discriminator(x, label)
    torch.testing.assert_close(logits, vectors[f"{golden}.logits_train"], **close)
    if (gradient := vectors.get(f"{golden}.gloss_input_grad")) is not None:
        (len(logits) * generator_loss([logits])).backward()  # the release sums over samples
        # kinks of ReLU6 make single pixels differ in float32, hence the length in that case
        assert relative_l2(x.grad, gradient) < (1e-2 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize(("file", "backbone"), [(SMALL, probed_lite0), (COND, probed_lite0), (DEIT, random_deit)])
def test_one_training_pass_moves_the_buffers_as_the_release_does(
    file: str, backbone: Callable[[], dict[str, Tensor]]
) -> None:
    """One power iteration and one BatchNorm update; float32 as the goldens."""
    discriminator, vectors = released_disc(file, backbone(), dtype=torch.float32)
    with torch.no_grad():
        discriminator(vectors["input.x64"], label_of(vectors))
    state = discriminator.state_dict()
    names = [name for name in vectors if name.startswith("post_train.")]
    assert len(names) == 10
    for name in names:
        actual = state[our_name(name.removeprefix("post_train."))]
        scale = float(vectors[name].abs().max())
        torch.testing.assert_close(actual, vectors[name], atol=TOLERANCE[torch.float32] * scale, rtol=0)
