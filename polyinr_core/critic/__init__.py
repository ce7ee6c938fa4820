"""The projected discriminator: frozen feature networks, random projections, small trained heads."""

from .backbones import Lite0Features
from .config import BACKBONES, CriticConfig
from .discriminator import ProjectedDiscriminator
from .losses import generator_loss, hinge_critic_fake, hinge_critic_real

__all__ = [
    "BACKBONES",
    "CriticConfig",
    "Lite0Features",
    "ProjectedDiscriminator",
    "generator_loss",
    "hinge_critic_fake",
    "hinge_critic_real",
]
