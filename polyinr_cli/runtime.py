"""The processes of a job that torchrun has started: who we are among them, and how they talk."""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Any

from polyinr_core.errors import RequestError

from . import console as streams
from .options import Precision

if TYPE_CHECKING:
    import torch

    from polyinr_core.runtime.distributed import DistributedContext


TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # all of which torchrun sets
MEETING = {"MASTER_ADDR": r"\S+", "MASTER_PORT": "[0-9]{1,5}"}  # where the processes find each other
PATIENCE = timedelta(hours=1)  # with the first process, which reads and writes files while the others wait


@dataclass(frozen=True)
class Job:
    """This process's place among those that torchrun has started, on this machine and on all."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def job() -> Job:
    """Return this process's place, by what torchrun has set. Raises RequestError for what is no place.

    WORLD_SIZE alone makes no job: schedulers of clusters set it, and RANK, for commands that work alone.
    """
    if not all(os.environ.get(name) for name in TORCHRUN_VARIABLES):
        return Job()
    numbers = {}
    for name in TORCHRUN_VARIABLES:
        if not (text := os.environ[name].strip()).isdecimal():
            raise RequestError(f"${name} is {text!r}, no number as torchrun sets it; unset it, or use torchrun")
        numbers[name] = int(text)
    rank, world_size, local_rank = (numbers[name] for name in TORCHRUN_VARIABLES)
    if rank >= max(1, world_size):
        raise RequestError(f"$RANK is {rank} of $WORLD_SIZE {world_size}; unset them, or use torchrun")
    return Job(rank, world_size, local_rank) if world_size > 1 else Job()


def own_rank() -> int:
    """Return this process's number in its job, 0 where torchrun has started none."""
    return job().rank


def rank_or_first() -> int:
    """Return this process's number in its job, 0 also where the environment is no help."""
    try:
        return own_rank()
    except RequestError:
        return 0


def several() -> bool:
    """Say whether torchrun has started more than one process."""
    return job().world_size > 1


def own_share(items: int) -> range:
    """Return which of so many items are this process's: of N processes, number n has n, n + N, ..."""
    own = job()
    return range(own.rank, items, own.world_size)


def say_if_alone() -> None:
    """Say so if the environment speaks of several processes and this one works alone all the same."""
    world_size = os.environ.get("WORLD_SIZE", "").strip()
    if several() or world_size in ("", "1"):
        return
    missing = ", ".join(f"${name}" for name in TORCHRUN_VARIABLES if not os.environ.get(name))
    if missing:
        streams.say(
            f"polyinr: $WORLD_SIZE is {world_size!r} without {missing}: no job of torchrun; working alone",
            always=True,
        )


def own_device(device: "torch.device") -> "torch.device":
    """Return the GPU that this process of a job has for itself. Raises RequestError."""
    if device.type != "cuda" or not several():
        return device
    import torch

    number, there = job().local_rank, torch.cuda.device_count()
    if number >= there:
        raise RequestError(
            f"process {number} of this machine has no GPU of its own, there are {there}; "
            f"start at most {there} with --nproc-per-node, or give --device cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def joined(device: "torch.device") -> Iterator["DistributedContext"]:
    """Join the other processes of the job: NCCL between GPUs, Gloo otherwise. Alone where there are none."""
    from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

    if not several():
        say_if_alone()
        yield SINGLE_PROCESS
        return
    for name, form in MEETING.items():
        if not re.fullmatch(form, value := os.environ.get(name, "")):
            raise RequestError(f"${name} is {value!r}, not as torchrun sets it; start the job with torchrun")
    import torch.distributed as dist

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield DistributedContext(dist.get_rank(), dist.get_world_size(), device)
    dist.destroy_process_group()  # not after an error: it would wait for the others


logger = logging.getLogger(__name__)
WORDS = {"cpu": "processor", "cuda": "GPU"}
CPU_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # the last is ARM's word
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # what people keep oneDNN, which does the products, to
NARROW_LIMITS = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}


def choose_device(name: str, *, otherwise_cpu: bool = False) -> "torch.device":
    """Return the device that --device names; auto takes a GPU where there is one. Raises RequestError.

    With `otherwise_cpu` a GPU that is not there is a warning and the CPU: images are the same, and soon drawn.
    A training or an evaluation would not be done in a human time, and is refused.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; products have it off by default
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        raise RequestError(f"device {name!r} is unknown; choose from auto, cpu, cuda, cuda:N") from None
    if device.type == "cpu" and device.index in (None, 0):
        return torch.device("cpu")
    if device.type != "cuda":
        raise RequestError(f"device {name!r} is not supported; choose from auto, cpu, cuda, cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        absent = f"device {name!r} is not there: this machine shows {count} CUDA devices"
        if not otherwise_cpu:
            raise RequestError(absent)
        logger.warning("%s; drawing on the CPU", absent)
        return torch.device("cpu")
    return device


def choose_dtype(precision: Precision, device: "torch.device", *, eight_bits: bool) -> "torch.dtype":
    """Return the dtype of --precision. auto: bfloat16 if the hardware multiplies it and 8 bits are asked."""
    import torch

    if precision is Precision.bfloat16 and not multiplies_bfloat16(device):
        logger.warning("this %s has no bfloat16 products of its own: slower than float32", WORDS[device.type])
    if precision is not Precision.auto:
        return {
            Precision.float32: torch.float32,
            Precision.bfloat16: torch.bfloat16,
            Precision.float64: torch.float64,
        }[precision]
    return torch.bfloat16 if eight_bits and multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: "torch.device") -> bool:
    """Say whether the hardware has bfloat16 products of its own, that oneDNN is free to use."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    limit = next((os.environ[name] for name in LIMITS if name in os.environ), "")
    return limit.upper() not in NARROW_LIMITS and bool(CPU_FLAGS & cpu_flags())


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the processor's feature names, empty where the system does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    flags = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return set(flags[0].split()) if flags else set()


SAME_WISH = 3.0  # seconds: torchrun hands on to its processes the Ctrl-C that the terminal has sent them already
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C; a scheduler; a terminal that was closed
ONCE_MORE = 0.05  # seconds until an interruption that got lost is raised again


class Interruption:
    """The last signal that asked this process to end: its number, when it came, whether it was raised at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0
        self.is_raised = False

    @property
    def exit_code(self) -> int:
        """The exit code of what was interrupted: 130 by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP."""
        return 128 + (signal.SIGINT if self.number is None else self.number)

    def note(self, number: int) -> bool:
        """Note a signal; say whether it is a new wish, and not the one before once more."""
        now = time.monotonic()
        is_new = self.number is None or now - self.since > SAME_WISH
        if is_new:
            self.number, self.since = number, now
        return is_new

    def forget(self) -> None:
        """Begin anew: no signal has come."""
        self.number = None
        self.is_raised = False


interruption = Interruption()


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise KeyboardInterrupt, unless another came just before and is being seen to."""
    if interruption.note(number):
        interruption.is_raised = True
        raise KeyboardInterrupt


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP interrupt like Ctrl-C, each unless it is ignored, as under `nohup`."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    usual = sys.unraisablehook

    def raise_again(trouble: Any) -> None:
        """Raise an interruption again that came where nothing can be raised, such as while an object goes."""
        if interruption.number is None or not issubclass(trouble.exc_type, KeyboardInterrupt):
            usual(trouble)
            return
        number = interruption.number
        interruption.forget()
        timer = Timer(ONCE_MORE, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = raise_again


def die_of_signals() -> None:
    """Let signals end the process without a word, where nothing is left to tidy up."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class Stopping:
    """Whether somebody wants the run to stop.

    Until `asked` is called for the first time, after the first iteration, a signal interrupts at once. From then
    on it is only noted; a second Ctrl-C interrupts, unless it comes so soon that it is the first one once more.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.patient = False

    def asked(self) -> bool:
        """Say whether a signal came, and be patient from now on."""
        self.patient = True
        return self.since is not None

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Note a signal. Raises KeyboardInterrupt."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
            interruption.note(number)
            interrupts = not self.patient
        else:
            interrupts = number == signal.SIGINT and now - self.since > SAME_WISH
        if interrupts:
            interruption.is_raised = True
            raise KeyboardInterrupt


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Listen to the signals that ask for an end; under `nohup` not to the end of the terminal."""
    wish = Stopping()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, wish.catch) for number in numbers}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
