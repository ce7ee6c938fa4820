"""Randomness by key, start values by key, and modules without start values."""

import subprocess
import sys
from pathlib import Path

import torch

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.rng import generator_for, meta_init, seeded_init

CONFIG = GeneratorConfig(levels=2, channels=4, classes=3)


def test_a_key_is_a_stream() -> None:
    same = [torch.rand(3, generator=generator_for(7, "z", 1)).tolist() for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != torch.rand(3, generator=generator_for(7, "z", 2)).tolist()


def test_start_values_are_the_key_s_and_leave_other_draws_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded_init("a", 1):
        first = Generator(CONFIG)
    assert torch.equal(torch.rand(3), expected)
    with seeded_init("a", 1):
        again = Generator(CONFIG)
    with seeded_init("a", 2):
        other = Generator(CONFIG)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.synthesis.to_rgb.weight, other.synthesis.to_rgb.weight)


def test_modules_without_start_values_have_the_same_shapes_and_no_memory() -> None:
    with meta_init():
        empty = Generator(CONFIG).state_dict()
    filled = Generator(CONFIG).state_dict()
    assert {name: value.shape for name, value in empty.items()} == {k: v.shape for k, v in filled.items()}
    assert all(value.is_meta for value in empty.values())


def test_reading_a_model_leaves_the_compiler_out(tiny_class_checkpoint: Path) -> None:
    """PyTorch's compiler takes as long to import as PyTorch itself."""
    program = (
        "import sys; from pathlib import Path; from polyinr_core.checkpoints.checkpoint import load_checkpoint; "
        f"load_checkpoint(Path({str(tiny_class_checkpoint)!r})); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
