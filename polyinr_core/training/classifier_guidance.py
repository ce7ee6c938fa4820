"""The classifier that guides a generator: a frozen network that says which class an image shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.data.dataset import ImageDataset
from polyinr_core.data.resample import ResizedDataset, normalized
from polyinr_core.discriminator.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Frozen,
    replace_convolutions,
    store_weights,
)
from polyinr_core.discriminator.discriminator import Weights
from polyinr_core.errors import ConfigError, WeightsError
from polyinr_core.runtime.pretrained import fold_batch_norms, pretrained_network

from .config import TrainingConfig

MODELS = {"lite2": "tf_efficientnet_lite2", "deit-small": "deit_small_distilled_patch16_224"}
OWN_HEADS = {"lite2": ("classifier",), "deit-small": ("head", "head_dist")}
OWN_CLASSES = 1000  # ImageNet's, in its order
DEIT_RESOLUTION = 224


class Classifier(Frozen):
    """Images [N, 3, r, r] in [-1, 1] and labels [N] to their mean cross-entropy, which teaches images only.

    `weights` are timm's for the network of `name`, in whose dtype it computes. Images are looked at
    bilinearly resized to `side`: any for lite2 (it was trained at 260 px), 224 for deit-small. Without a
    `head`, the logits are the network's own 1000 of ImageNet, for deit-small the mean of its two heads; with
    one, `head` of the pooled features. Raises ConfigError, and WeightsError for weights without heads.
    """

    network: Any  # timm's
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: Mapping[str, Tensor], *, side: int, head: nn.Module | None = None) -> None:
        super().__init__()
        if name not in MODELS:
            raise ConfigError(f"classifier {name!r} is unknown; choose from {', '.join(MODELS)}")
        self.name = name
        self.side = DEIT_RESOLUTION if name == "deit-small" else side
        heads = OWN_HEADS[name]
        if head is None and (missing := [part for part in heads if f"{part}.weight" not in weights]):
            raise WeightsError(
                f"the {name} weights have no {missing[0]}, which classifies; give a file of the whole {MODELS[name]}"
            )
        kept = {key: value for key, value in weights.items() if head is None or not key.startswith(heads)}
        self.network = pretrained_network(MODELS[name], kept, num_classes=OWN_CLASSES if head is None else 0)
        if name == "lite2":
            fold_batch_norms(self.network.eval())
            replace_convolutions(self.network)
            self.network.to(memory_format=torch.channels_last)
        self.head = nn.Identity() if head is None else head
        mean = torch.tensor(IMAGENET_MEAN, dtype=next(self.network.parameters()).dtype)[:, None, None]
        self.register_buffer("mean", mean, persistent=False)
        std = torch.tensor(IMAGENET_STD, dtype=next(self.network.parameters()).dtype)[:, None, None]
        self.register_buffer("std", std, persistent=False)
        self.freeze()

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the mean over images of -log p(label), []."""
        return functional.cross_entropy(self.logits(x), label)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of images."""
        features: Tensor = self.network(self.seen(x))  # [N, d], or logits already
        return self.head(features)

    def seen(self, x: Tensor) -> Tensor:
        """Bring images to the size, the dtype and the range that the network was trained on."""
        x = x.to(self.mean.dtype)
        if x.shape[-1] != self.side:
            larger = x.shape[-1] > self.side
            x = functional.interpolate(x, size=(self.side,) * 2, mode="bilinear", align_corners=False, antialias=larger)
        if self.name == "deit-small":
            return ((x + 1) / 2 - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)


MAX_OF_A_CLASS, MIN_OF_A_CLASS, MOST = 64, 8, 4096  # images that the head is fitted on
AT_ONCE = 32
SHRINKAGE = 0.5  # of the covariance, towards one variance along every axis
FOLDS = 5  # every fifth image sets the sharpness
SHARPNESS = (1e-3, 1.0)


def uses_guidance(config: TrainingConfig) -> bool:
    """Say whether the classifier's loss has a weight at any stage."""
    return any(config.at(stage).guidance for stage in config.stages)


def check_classes(config: TrainingConfig, data: ImageDataset) -> None:
    """Raise ConfigError where a classifier is to guide and there are no classes."""
    if uses_guidance(config) and not config.class_count(data.classes):
        why = "the data has no classes" if config.cond else "the run is unconditional"
        raise ConfigError(f"a classifier cannot guide where {why}: give guidance 0 at every stage")


def make_classifier(
    config: TrainingConfig,
    data: ImageDataset,
    weights: Weights,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Classifier | None:
    """Return the classifier that guides a run, or None where it has no weight at any stage.

    For data of 1000 classes it answers with its own logits: the classes must be ImageNet's, in its order. For
    any other, a linear head is fitted on the data's own images (`fit_head`). lite2 looks at the discriminator's
    side, deit-small at 224 px. A GPU stores its weights in bfloat16 if that is the `dtype` of the products. Sauer et
    al., "StyleGAN-XL", section 3.3. Raises ConfigError in an unconditional run or without weights, WeightsError,
    DatasetError.
    """
    if not uses_guidance(config):
        return None
    check_classes(config, data)
    name = config.classifier
    if name not in weights:
        raise ConfigError(f"the classifier has no weights for {name}")
    head = None if data.classes == OWN_CLASSES else nn.Identity()
    guide = Classifier(name, weights[name], side=config.disc_res, head=head).to(device)
    if head is not None:
        features, label = features_of_data(guide, config, data, device=device)
        counts = np.bincount(data.labels, minlength=data.classes)  # type: ignore[arg-type]
        guide.head = fit_head(features, label, torch.from_numpy(counts)).to(device)
        guide.freeze()
    if device.type == "cuda" and dtype == torch.bfloat16:
        store_weights(guide.network, dtype)
    return guide


@torch.no_grad()
def features_of_data(
    network: Classifier, config: TrainingConfig, data: ImageDataset, *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return features [M, d] of at most 64 images a class and about 4096 in all, and their labels [M].

    They are spread evenly over each class, and over the resolutions of the stages, to which they are brought by
    averaging: the head shall know a class at any stage.
    """
    assert data.labels is not None
    most = min(MAX_OF_A_CLASS, max(MIN_OF_A_CLASS, MOST // data.classes))
    sides = sorted({min(stage.resolution, data.resolution) for stage in config.stages})
    readers = [ResizedDataset(data, side) for side in sides]
    features, labels = [], []
    for label in range(data.classes):
        members = np.flatnonzero(data.labels == label)
        chosen = members[np.linspace(0, len(members) - 1, min(most, len(members))).round().astype(int)]
        for number, reader in enumerate(readers):
            part = chosen[number :: len(readers)]
            for indices in np.array_split(part, -(-len(part) // AT_ONCE) or 1):
                if len(indices):
                    images = normalized(reader.read(indices.tolist()))
                    features.append(network.logits(images.to(device)).cpu())
                    labels += [label] * len(indices)
    return torch.cat(features), torch.tensor(labels)


def fit_head(features: Tensor, label: Tensor, counts: Tensor) -> nn.Linear:
    """Return the linear head that a regularized linear discriminant analysis makes of features [M, d].

    The logits of class c are log p_c + s (w_c x + b_c), with w_c = S^-1 m_c and b_c = -w_c m_c / 2: m_c the
    class's mean, S the covariance within the classes, half of it replaced by the same variance along every
    axis (Friedman, "Regularized Discriminant Analysis", 1989), and p_c from the data's `counts` [classes] with
    one image added to each. Far from enough images for d axes make such logits much too sure of
    themselves, so their sharpness s is the one with the least cross-entropy on every fifth image, under a
    fit on the others (Guo et al., "On Calibration of Modern Neural Networks", 2017; there with the shares of
    the classes among the images fitted on). Float64 inside; no draws.
    """
    x = features.double()
    held = torch.arange(len(x)) % FOLDS == 0
    weight, bias = discriminant(x[~held], label[~held], classes=len(counts))
    scores = x[held] @ weight.T + bias
    fitted = log_shares(torch.bincount(label, minlength=len(counts)))

    def loss(sharpness: float) -> float:
        return functional.cross_entropy(sharpness * scores + fitted, label[held]).item()

    sharpness = float(minimize_scalar(loss, bounds=SHARPNESS, method="bounded").x)
    weight, bias = discriminant(x, label, classes=len(counts))
    head = nn.Linear(x.shape[1], len(counts), device="meta")
    state = {"weight": sharpness * weight, "bias": sharpness * bias + log_shares(counts)}
    head.load_state_dict({name: value.to(features.dtype) for name, value in state.items()}, assign=True)
    return head.requires_grad_(False)


def log_shares(counts: Tensor) -> Tensor:
    """Return the logarithms of the classes' shares [classes], one image added to each class."""
    return ((counts + 1) / (counts + 1).sum()).double().log()


def discriminant(x: Tensor, label: Tensor, *, classes: int) -> tuple[Tensor, Tensor]:
    """Return w [classes, d] and b [classes] of features x [M, d]; a class without images has the whole mean."""
    center = x.mean(dim=0)
    x = x - center
    means = torch.stack([x[label == c].mean(dim=0) if (label == c).any() else 0 * center for c in range(classes)])
    within = x - means[label]
    covariance = within.T @ within / len(x)
    even = covariance.trace() / len(covariance) + 1e-9  # of features that do not vary at all, too
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * even * torch.eye(len(covariance), dtype=x.dtype)
    weight = torch.linalg.solve(covariance, means.T).T
    return weight, -(weight * (means / 2 + center)).sum(dim=1)
