"""The projected discriminator: frozen feature networks, random projections, small trained heads."""

from .config import CriticConfig
from .discriminator import ProjectedDiscriminator

__all__ = ["CriticConfig", "ProjectedDiscriminator"]
