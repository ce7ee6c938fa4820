"""Freed memory is kept: a feature map that is allocated again costs no page faults."""

import platform
import subprocess
import sys

import pytest

from polyinr_core.runtime.resources import keep_freed_memory

PROGRAM = """
import resource
import torch
from polyinr_core.runtime.resources import keep_freed_memory

keep_freed_memory()
maps = 2 * [None]
for index in range(40):
    if index == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps[index % 2] = torch.ones(2**24)  # 64 MiB
    maps[index % 2] = None
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep what they keep")
def test_a_feature_map_of_the_size_of_a_freed_one_costs_no_page_faults() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 1000  # 327 700 otherwise, on pages of 4 KiB


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (AttributeError, OSError, TypeError):

        def absent(name: None, error: type[Exception] = error) -> None:
            raise error

        monkeypatch.setattr("ctypes.CDLL", absent)
        keep_freed_memory()
