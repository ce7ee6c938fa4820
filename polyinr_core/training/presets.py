"""Presets: whole configurations by name; every other option goes over them."""

from dataclasses import replace

from .config import TrainingConfig
from .stages import Stage

LARGE = TrainingConfig(state_every=40.0, snapshot_every=200.0, metric_every=50.0, keep=5)
SMALL = TrainingConfig(
    batch=16,
    channels=128,
    w_dim=128,
    start="balanced",
    backbones=("lite0",),
    critic_res=128,
    critic_channels=32,
    head_divisor=4,
    g_lr=2e-4,
    d_lr=1e-4,
    classifier="lite2",
    state_every=1.0,
    snapshot_every=5.0,
    metric_every=10.0,
)

PRESETS = {
    # the authors train each resolution to 10000 kimg with batch 64 in their example; 1024 wide, both backbones
    # guided above 32 px only, as StyleGAN-XL is; its weight of 8 stands beside a loss summed over 8 pictures
    "imagenet": replace(
        LARGE,
        stages=(Stage(32, 10000), *(Stage(r, 10000, guidance=1.0) for r in (64, 128, 256, 512))),
    ),
    "ffhq": replace(
        LARGE,
        stages=tuple(Stage(r, 10000) for r in (32, 64, 128, 256)),
        channels=512,
        mirror=True,
        cond=False,
    ),
    "emoji": SMALL,
    "tiny": replace(
        SMALL,
        stages=(Stage(16, 1),),
        batch=8,
        metric_every=0.0,
        levels=6,
        channels=64,
        w_dim=64,
        critic_res=64,
        head_resolution=128,
    ),
}
