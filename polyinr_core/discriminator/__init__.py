"""The projected discriminator: frozen backbones, random projections, trained heads, losses."""
