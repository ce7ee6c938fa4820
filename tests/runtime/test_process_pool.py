"""Tests of polyinr_core/data/pool.py beyond what `prepare` shows: what goes together, Ctrl-C at the end."""

import logging
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from polyinr_core.runtime.resources import CHUNK_BYTES, in_chunks, in_order


def test_items_go_together_in_order_up_to_a_number() -> None:
    assert list(in_chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(in_chunks([], 3)) == []


def test_large_items_go_in_smaller_company() -> None:
    half, array = bytes(CHUNK_BYTES // 2), np.zeros(CHUNK_BYTES, np.uint8)
    assert [len(chunk) for chunk in in_chunks([half] * 5, 32)] == [2, 2, 1]
    assert [len(chunk) for chunk in in_chunks([array, array, half], 32)] == [1, 1, 1]


def test_workers_that_nobody_waits_for_stop_after_their_item() -> None:
    results = in_order(time.sleep, [0.0] * 10 + [1.0] * 60, workers=2, chunk=10)
    next(results)
    time.sleep(0.5)  # they take up what is next
    start = time.perf_counter()
    results.close()
    assert time.perf_counter() - start < 6  # what they hold already would take 10 and more


SCRIPT = """
import time
from polyinr_core.runtime.resources import in_order

if __name__ == "__main__":
    results = in_order(time.sleep, [0, 0, 3, 3, 3, 3, 3, 3], workers=2, chunk=1)
    next(results)
    time.sleep(0.5)  # they take up what is next
    print("closing", flush=True)
    results.close()
    print("closed", flush=True)
"""


def test_ctrl_c_while_the_workers_are_ended_is_heard_afterwards(tmp_path: Path) -> None:
    """Python takes a thread whose join was interrupted for done, and workers that it was to end would stay."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"closing\n"
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    try:
        out, err = run.communicate(timeout=30)
    finally:
        run.kill()
    assert (out, err.rstrip().split(b"\n")[-1]) == (b"", b"KeyboardInterrupt")


def noisy(item: int) -> int:
    """Do what libraries do at odd files."""
    warnings.warn("could be decompression bomb DOS attack", stacklevel=1)
    warnings.warn("corrupt EXIF data", RuntimeWarning, stacklevel=1)
    logging.getLogger("tifffile").error("<TiffPage> raised")
    logging.getLogger("PIL.TiffImagePlugin").warning("more samples per pixel than can be decoded")
    return item


def test_workers_keep_what_libraries_say_from_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(in_order(noisy, range(4), workers=2, chunk=1)) == [0, 1, 2, 3]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_very_large_images_are_prepared_without_a_word(workers: int, tmp_path: Path) -> None:
    images = Path(__file__).parent.parent / "data" / "reported" / "worker-warnings"  # of 100 million pixels each
    command = [sys.executable, "-c", "from polyinr_cli.main import run; run()", "prepare", images, "-q"]
    command += ["-o", tmp_path / "a.zip", "--res", "32", "--workers", str(workers)]
    ran = subprocess.run(command, capture_output=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
