"""Results of a benchmark as JSON, with command, machine, versions and load."""

import json
import os
import platform
import shlex
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

THREADS = "OMP_NUM_THREADS"


def facts(**more: Any) -> dict[str, Any]:
    """Return what figures depend on, and `more`."""
    return {
        "command": command(),
        "date": date.today().isoformat(),
        "machine": processor(),
        "cpus": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "load": round(os.getloadavg()[0], 1),  # of all programs, in the last minute
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **more,
    }


def write(output: Path, facts: dict[str, Any]) -> None:
    """Write facts as JSON."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(facts, indent=2) + "\n")


def command() -> str:
    """Return this program's command line; of files elsewhere only the names."""
    script, *words = sys.argv
    here = [f"benchmarks/{Path(script).name}"]
    here += [Path(word).name if os.path.isabs(word) else word for word in words]
    threads = f"{THREADS}={os.environ[THREADS]} " if THREADS in os.environ else ""
    return f"{threads}python {shlex.join(here)}"


def processor() -> str:
    """Return the processor's name."""
    if (list_of_them := Path("/proc/cpuinfo")).is_file():  # there platform knows only x86_64
        for line in list_of_them.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
