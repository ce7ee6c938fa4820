"""Which objective there is on this machine: LPIPS-VGG, lite0 features, or pixels alone."""

from pathlib import Path
from typing import Literal

from ..critic.backbones import Lite0Features
from ..errors import RequestError
from ..weights import load_pretrained
from ..weights.lpips import cached_vgg16, load_lpips
from .objective import Objective, Perceptual

ObjectiveName = Literal["auto", "lpips", "lite0", "pixels"]

WORDS = {
    "lpips": "LPIPS-VGG and pixels",
    "lite0": "EfficientNet-lite0 features and pixels",
    "pixels": "pixels alone",
}


def choose_objective(name: ObjectiveName, *, vgg16: Path | None = None) -> Objective:
    """Return the objective of a name; auto: LPIPS-VGG where VGG16 is given or at hand, else lite0 features.

    Raises RequestError, WeightsError.
    """
    if vgg16 is not None and name not in ("auto", "lpips"):
        raise RequestError(f"--vgg16 is for LPIPS; the objective {name} does not read it")
    if name == "auto":
        name = "lite0" if vgg16 is None and cached_vgg16() is None else "lpips"
    if name == "lpips":
        features, heads = load_lpips(vgg16)
        return Objective(name, Perceptual(features, heads))
    if name == "lite0":
        return Objective(name, Perceptual(Lite0Features(load_pretrained("lite0"))))
    return Objective(name)
