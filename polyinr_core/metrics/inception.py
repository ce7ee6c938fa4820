"""The Inception of 2015-12-05 in its TorchScript form, from a file that the user gives."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..files import sha256_of

FILE = "inception-2015-12-05.pt"
PROBE = 32  # pixels; the network resizes inside


class InceptionFeatures(nn.Module):
    """Pictures uint8 [N, 3, H, W] to pooled features [N, 2048]; the network resizes to 299 px by itself.

    `sha256` is that of the file, by which a result remembers what judged it.
    """

    dim = 2048

    def __init__(self, network: Any, sha256: str) -> None:
        super().__init__()
        self.network = network
        self.sha256 = sha256

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network(pixels, return_features=True)
        return features.flatten(1)


def load_inception(file: Path | None) -> InceptionFeatures:
    """Load the network from `file`, on the CPU, and try it on one picture. Raises WeightsError, FileError."""
    if file is None:
        raise WeightsError(
            f"fid needs the 2015 Inception, which nothing here carries: get {FILE} (as stylegan2-ada-pytorch "
            f"publishes it and clean-fid fetches it) and give --weights inception={FILE}; fd-lite2 and "
            "kd-lite2 need no file"
        )
    sha256 = sha256_of(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PyTorch announces the end of TorchScript
            network = torch.jit.load(str(file), map_location="cpu").eval()
        features = InceptionFeatures(network, sha256)
        shape = tuple(features(torch.zeros(1, 3, PROBE, PROBE, dtype=torch.uint8)).shape)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{file}: no TorchScript network of Inception's form; give {FILE}") from error
    if shape != (1, InceptionFeatures.dim):
        raise WeightsError(f"{file}: gives features of shape {shape}, not (1, 2048); give {FILE}")
    return features
