"""Read the golden discriminators: the release's names turned into ours."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from polyinr_core.discriminator.config import DiscriminatorConfig
from polyinr_core.discriminator.discriminator import ProjectedDiscriminator
from polyinr_core.runtime.pretrained import load_pretrained

REFERENCE = Path(__file__).parent / "reference"
BACKBONES = {"tf_efficientnet_lite0": "lite0", "deit_tiny_distilled_patch16_224": "deit-tiny"}


def our_name(name: str) -> str | None:
    """Turn the released name of a tensor outside the pretrained networks into ours; None for test vectors.

    Release: head i is `mini_discs.i`, its block j `main.j.main` with convolution 0 and BatchNorm 1; the last
    convolution is the next `main.j` itself, or `cls` in a conditional head.
    """
    top, _, rest = name.partition(".")
    backbone, _, rest = rest.partition(".")
    if top not in ("discriminators", "feature_networks"):
        return None
    ours = BACKBONES[backbone]
    rules = (
        (r"mini_discs\.(\d+)\.main\.(\d+)\.main\.0\.", rf"heads.{ours}.\1.blocks.\2.conv."),
        (r"mini_discs\.(\d+)\.main\.(\d+)\.main\.1\.", rf"heads.{ours}.\1.blocks.\2.norm."),
        (r"mini_discs\.(\d+)\.(?:main\.\d+|cls)\.(?=weight)", rf"heads.{ours}.\1.out."),
        (r"mini_discs\.(\d+)\.embed\.", rf"heads.{ours}.\1.table."),
        (r"mini_discs\.(\d+)\.embed_proj\.", rf"heads.{ours}.\1.label_proj."),
        (r"scratch\.layer(\d)_ccm\.", rf"projections.{ours}.across_channels.\1."),
        (r"scratch\.layer(\d)_csm\.out_conv\.", rf"projections.{ours}.across_scales.\1."),
        (
            r"pretrained\.layer(\d)\.([34])\.",
            None,
        ),  # DeiT readers: counted from 1, after the hook, token and view
    )
    for pattern, replacement in rules:
        if not (match := re.match(pattern, rest)):
            continue
        if replacement is None:
            stem = f"features.{ours}.readers.{int(match[1]) - 1}.{int(match[2]) - 3}."
        else:
            stem = match.expand(replacement)
        leaf = rest[match.end() :]
        return stem + {"weight_orig": "weight", "weight_u": "u", "weight_v": "v"}.get(leaf, leaf)
    return None


def probed_lite0() -> dict[str, Tensor]:
    """The weights of EfficientNet-lite0 with the BatchNorm statistics that the release's probe pass left.

    Released names: layer0 holds the stem's BatchNorm as item 1 and block groups 0, 1 as items 3, 4; layer1 has
    group 2, layer2 groups 3, 4, layer3 groups 5, 6.
    """
    weights = load_pretrained("lite0")
    first_group = {"0": -3, "1": 2, "2": 3, "3": 5}
    for name, value in load_file(REFERENCE / "efficientnet_lite0_bn_after_probe.safetensors").items():
        layer, item, rest = name.partition(".pretrained.layer")[2].split(".", 2)
        stem = "bn1" if layer == "0" and item == "1" else f"blocks.{first_group[layer] + int(item)}"
        key = f"{stem}.{rest}"
        assert weights[key].shape == value.shape
        weights[key] = value
    return weights


def released_disc(
    file: str,
    weights: Mapping[str, Tensor],
    *,
    resolution: int | None = 224,
    dtype: torch.dtype = torch.float64,
) -> tuple[ProjectedDiscriminator, dict[str, Tensor]]:
    """Build the discriminator of a golden file in train mode, every own tensor from the file, on a backbone's weights.

    Returns the discriminator and the file's test vectors. The backbone is built in `dtype` from the start, since
    merging its BatchNorms rounds.
    """
    note = json.loads((REFERENCE / f"{file}.json").read_text())["config"]
    config = DiscriminatorConfig(
        backbones=tuple(BACKBONES[name] for name in note["backbones"]),
        resolution=resolution,
        channels=note["cout"],
        taps=note["num_discs"],
        classes=note["c_dim"],
        table_rows=note["embedding_rows"],
        head_dim=note["cmap_dim"] or 64,
        head_divisor=note["width_table_divisor"],
    )
    weights = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
    discriminator = ProjectedDiscriminator(config, {config.backbones[0]: weights}).to(dtype)
    tensors = load_file(REFERENCE / f"{file}.safetensors")
    named = {our_name(name): value for name, value in tensors.items()}
    discriminator.load_compact_state({name: value for name, value in named.items() if name is not None})
    return discriminator, {name: value for name, value in tensors.items() if our_name(name) is None}


def relative_l2(actual: Tensor, expected: Tensor) -> float:
    """The distance of two tensors relative to the expected one's length."""
    return float(torch.linalg.norm(actual - expected) / torch.linalg.norm(expected))
