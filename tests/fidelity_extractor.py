"""A network as torch-fidelity wants it, to measure what we measure."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

torch_fidelity = pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")

TAPS = ("pooled", "logits")


def register(name: str, network: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    """Let torch-fidelity know a network, from uint8 [N, 3, H, W] to features and logits, by that name."""

    class Extractor(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return TAPS

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "pooled"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
            found = dict(zip(TAPS, network(pixels), strict=True))
            return tuple(found[name] for name in self.features_list)

    torch_fidelity.register_feature_extractor(name, Extractor)
