"""Count the operations and the bytes moved by a level per pixel, on paper: python benchmarks/level_cost.py"""

from dataclasses import dataclass

import typer

SMALL = 11  # operations a channel: 5 for the modulation, 1 its bend, 1 its factor, 1 bias, 1 LeakyReLU, 2 clamp
FORMS = ("eager", "compiled", "a kernel a level", "a kernel in all")


@dataclass(frozen=True)
class Count:
    """What one pixel costs at one level after level 0; weights are shared by all pixels and not counted."""

    form: str
    channels: int
    size: int  # bytes a number of the products' format
    flops: int
    bytes: float

    @property
    def intensity(self) -> float:
        """Return operations a byte; a machine that does more of them a byte than this waits for its memory."""
        return self.flops / self.bytes


def counts(channels: int, size: int, *, levels: int = 10) -> list[Count]:
    """Return the count of each form.

    eager reads and writes the features at every step: modulation (written), its bend, the product with the
    features, rounding, the n x n product, LeakyReLU, clamp; modulations are float32. compiled makes one pass of
    what stands before the n x n product and one of what stands after. A kernel a level reads x_{i-1} and writes
    x_i. A kernel in all keeps features in cache: coordinates are read and colors written once for all levels.
    """
    n = channels
    flops = 2 * n * n + SMALL * n
    rounding = (4 + size) * n if size < 4 else 0
    moved = {
        "eager": 4 * n + 8 * n + (size + 8) * n + rounding + 2 * size * n + 2 * size * n + 2 * size * n,
        "compiled": 6 * size * n,
        "a kernel a level": 2 * size * n,
        "a kernel in all": 24 / (levels - 1),
    }
    return [Count(form, n, size, flops, moved[form]) for form in FORMS]


def table() -> list[str]:
    """Return the counts as lines of a Markdown table."""
    lines = [
        "| channels | type | form | operations | bytes | operations a byte |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for channels in (512, 1024):
        for name, size in (("float32", 4), ("bfloat16", 2)):
            for count in counts(channels, size):
                cells = channels, name, count.form, f"{count.flops:,}", f"{count.bytes:,.0f}"
                lines.append("| " + " | ".join([*map(str, cells), f"{count.intensity:,.0f}"]) + " |")
    return lines


def main() -> None:
    """Print the table."""
    print("\n".join(table()))


if __name__ == "__main__":
    typer.run(main)
