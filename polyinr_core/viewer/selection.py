"""The image that the viewer shows: a seed, its class and psi, and levels mixed in from another seed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import RequestError
from polyinr_core.latents.interpolation import mix
from polyinr_core.latents.latents import (
    MAX_SEED,
    Latents,
    check_psi,
    draw_labels,
    from_seeds,
    parse_label,
    parse_levels,
    seeds_text,
    to_affine,
)

FIELDS = ("seed", "label", "psi", "other", "levels")


@dataclass(frozen=True)
class Selection:
    """An image. Without a label, the seed draws the class. `levels` are taken from the seed `other`."""

    seed: int = 0
    label: int | None = None
    psi: float = 1.0
    other: int | None = None
    levels: tuple[int, ...] = ()

    def latents(self, checkpoint: Checkpoint) -> Latents:
        """Return the latents of the image, with affine [1, L, 3, n]."""
        generator = checkpoint.generator
        image = from_seeds(generator, [self.seed], label=self.label, psi=self.psi)
        if self.other is None:
            return image
        source = from_seeds(generator, [self.other], label=self.label, psi=self.psi)
        return to_affine(generator, mix(image, source, levels=self.levels))

    def label_shown(self, checkpoint: Checkpoint) -> int | None:
        """Return the class, None for an unconditional model and for a mix of two classes."""
        classes = checkpoint.generator.config.classes
        if self.label is not None or not classes:
            return self.label
        drawn = draw_labels([seed for seed in (self.seed, self.other) if seed is not None], classes).tolist()
        return drawn[0] if len(set(drawn)) == 1 else None

    def command(self) -> list[str]:
        """Return the command that renders the image, without model, size, window and output."""
        if self.other is None:
            words = ["sample", "--seeds", str(self.seed)]
        else:
            source, target = f"--source={self.other}", f"--target={self.seed}"
            words = ["mix", source, target, "--levels", seeds_text(self.levels)]
        if self.label is not None:
            words += ["--label", str(self.label)]
        return ["polyinr", *words] + (["--psi", repr(self.psi)] if self.psi != 1.0 else [])


def parse_selection(fields: Mapping[str, str], checkpoint: Checkpoint) -> Selection:
    """Parse the query fields FIELDS; a missing or empty field has the default of `Selection`.

    Raises RequestError, LabelError.
    """
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise RequestError(f"{unknown[0][:40]!r} is not a field of an image; use {', '.join(FIELDS)}")
    given = {name: text.strip() for name, text in fields.items() if text.strip()}
    config = checkpoint.generator.config
    label = None
    if "label" in given:
        label = parse_label(given["label"], classes=config.classes, class_names=checkpoint.class_names)
    if ("other" in given) != ("levels" in given):
        raise RequestError("mixing requires both: another seed (other) and its levels")
    return Selection(
        seed=_seed(given.get("seed", "0")),
        label=label,
        psi=_psi(given.get("psi", "1")),
        other=_seed(given["other"]) if "other" in given else None,
        levels=tuple(parse_levels(given["levels"], levels=config.levels)) if "levels" in given else (),
    )


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) > MAX_SEED:
        raise RequestError(f"seed {text[:40]!r} is not an integer in 0-{MAX_SEED}")
    return int(text)


def _psi(text: str) -> float:
    try:
        psi = float(text)
        check_psi(psi)
    except (ValueError, RequestError) as error:
        raise RequestError(f"psi {text[:40]!r} is out of range; 0.5 to 1 is usual") from error
    return psi
