"""Classifier guidance: who tells the generator whether its pictures show their class, and how it learned to."""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional

from ..critic.classifier import OWN_CLASSES, Classifier
from ..critic.discriminator import Weights
from ..data.averaging import normalised
from ..data.picture_set import PictureSet
from ..data.reader import Reader
from ..errors import ConfigError
from .config import TrainingConfig

MOST_OF_A_CLASS, FEWEST_OF_A_CLASS, MOST = 64, 8, 4096  # pictures that the head is fitted on
AT_ONCE = 32
SHRINKAGE = 0.5  # of the covariance, towards one variance along every axis
FOLDS = 5  # every fifth picture sets the sharpness
SHARPNESS = (1e-3, 1.0)


def is_guided(config: TrainingConfig) -> bool:
    """Say whether the classifier's loss has a weight at any stage."""
    return any(config.at(stage).guidance for stage in config.stages)


def check_classes(config: TrainingConfig, data: PictureSet) -> None:
    """Raise ConfigError where a classifier is to guide and there are no classes."""
    if is_guided(config) and not config.classes_of(data.classes):
        why = "the data has no classes" if config.cond else "the run is unconditional"
        raise ConfigError(f"a classifier cannot guide where {why}: give guidance 0 at every stage")


def make_guide(
    config: TrainingConfig, data: PictureSet, weights: Weights, *, device: torch.device
) -> Classifier | None:
    """Return the classifier that guides a run, or None where it has no weight at any stage.

    For data of 1000 classes it answers with its own logits: the classes must be ImageNet's, in its order. For
    any other, a linear head is fitted on the data's own pictures (`fit_head`). lite2 looks at the critic's
    side, deit-small at 224 px. Sauer et al., "StyleGAN-XL", section 3.3. Raises ConfigError in an
    unconditional run or without weights, WeightsError, ArchiveError.
    """
    if not is_guided(config):
        return None
    check_classes(config, data)
    name = config.classifier
    if name not in weights:
        raise ConfigError(f"the classifier has no weights for {name}")
    if data.classes == OWN_CLASSES:
        return Classifier(name, weights[name], side=config.critic_res).to(device)
    guide = Classifier(name, weights[name], side=config.critic_res, head=nn.Identity()).to(device)
    features, label = features_of_data(guide, config, data, device=device)
    counts = np.bincount(data.labels, minlength=data.classes)  # type: ignore[arg-type]
    guide.head = fit_head(features, label, torch.from_numpy(counts)).to(device)
    guide.freeze()
    return guide


@torch.no_grad()
def features_of_data(
    network: Classifier, config: TrainingConfig, data: PictureSet, *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return features [M, d] of at most 64 pictures a class and about 4096 in all, and their labels [M].

    They are spread evenly over each class, and over the resolutions of the stages, to which they are brought by
    averaging: the head shall know a class at any stage.
    """
    assert data.labels is not None
    most = min(MOST_OF_A_CLASS, max(FEWEST_OF_A_CLASS, MOST // data.classes))
    sides = sorted({min(stage.resolution, data.resolution) for stage in config.stages})
    readers = [Reader(data, side) for side in sides]
    features, labels = [], []
    for label in range(data.classes):
        members = np.flatnonzero(data.labels == label)
        chosen = members[np.linspace(0, len(members) - 1, min(most, len(members))).round().astype(int)]
        for number, reader in enumerate(readers):
            part = chosen[number :: len(readers)]
            for indices in np.array_split(part, -(-len(part) // AT_ONCE) or 1):
                if len(indices):
                    pictures = normalised(reader.read(indices.tolist()))
                    features.append(network.logits(pictures.to(device)).cpu())
                    labels += [label] * len(indices)
    return torch.cat(features), torch.tensor(labels)


def fit_head(features: Tensor, label: Tensor, counts: Tensor) -> nn.Linear:
    """Return the linear head that a regularised linear discriminant analysis makes of features [M, d].

    The logits of class c are log p_c + s (w_c x + b_c), with w_c = S^-1 m_c and b_c = -w_c m_c / 2: m_c the
    class's mean, S the covariance within the classes, half of it replaced by the same variance along every
    axis (Friedman, "Regularized Discriminant Analysis", 1989), and p_c from the data's `counts` [classes] with
    one picture added to each. Far from enough pictures for d axes make such logits much too sure of
    themselves, so their sharpness s is the one with the least cross-entropy on every fifth picture, under a
    fit on the others (Guo et al., "On Calibration of Modern Neural Networks", 2017; there with the shares of
    the classes among the pictures fitted on). Float64 inside; no draws.
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
    """Return the logarithms of the classes' shares [classes], one picture added to each class."""
    return ((counts + 1) / (counts + 1).sum()).double().log()


def discriminant(x: Tensor, label: Tensor, *, classes: int) -> tuple[Tensor, Tensor]:
    """Return w [classes, d] and b [classes] of features x [M, d]; a class without pictures has the whole mean."""
    centre = x.mean(dim=0)
    x = x - centre
    means = torch.stack([x[label == c].mean(dim=0) if (label == c).any() else 0 * centre for c in range(classes)])
    within = x - means[label]
    covariance = within.T @ within / len(x)
    even = covariance.trace() / len(covariance) + 1e-9  # of features that do not vary at all, too
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * even * torch.eye(len(covariance), dtype=x.dtype)
    weight = torch.linalg.solve(covariance, means.T).T
    return weight, -(weight * (means / 2 + centre)).sum(dim=1)
