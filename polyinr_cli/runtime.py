"""The process that a command runs in: its rank under torchrun, its device and dtype, the signals that stop it."""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Any

from polyinr_core.errors import RequestError
from polyinr_core.runtime.atomic_io import WINDOWS, has_drafts

if TYPE_CHECKING:
    import torch

    from polyinr_core.runtime.distributed import DistributedContext


logger = logging.getLogger(__name__)
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # torchrun sets all of them
RENDEZVOUS_VARIABLES = {"MASTER_ADDR": r"\S+", "MASTER_PORT": "[0-9]{1,5}"}
COLLECTIVE_TIMEOUT = timedelta(hours=1)  # rank 0 reads and writes files while the others wait
DEVICES = "auto, cpu, cuda, cuda:N, mps"
DEVICE_NAMES = {"cpu": "processor", "cuda": "GPU", "mps": "GPU"}
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}  # of /proc/cpuinfo; the last is ARM's
ONEDNN_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
ISAS_WITHOUT_BFLOAT16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
SAME_SIGNAL_SECONDS = 3.0  # torchrun forwards to its processes the Ctrl-C that the terminal has sent them already
STOP_SIGNALS = tuple(  # Ctrl-C; a scheduler; a terminal that was closed; on Windows Ctrl-Break and no SIGHUP
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
RAISE_AGAIN_SECONDS = 0.05  # until an interruption that got lost is raised again


@dataclass(frozen=True)
class TorchrunJob:
    """This process among those that torchrun has started."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def job() -> TorchrunJob:
    """Return this process's ranks, as torchrun has set them. Raises RequestError if they are invalid.

    WORLD_SIZE alone is ignored: cluster schedulers set it for commands that run alone.
    """
    if not all(os.environ.get(name) for name in TORCHRUN_VARIABLES):
        return TorchrunJob()
    numbers = {}
    for name in TORCHRUN_VARIABLES:
        if not (text := os.environ[name].strip()).isdecimal():
            raise RequestError(f"${name} is {text!r}, not a number; unset it, or start the command with torchrun")
        numbers[name] = int(text)
    rank, world_size, local_rank = (numbers[name] for name in TORCHRUN_VARIABLES)
    if rank >= max(1, world_size):
        raise RequestError(f"$RANK is {rank} of $WORLD_SIZE {world_size}; unset them, or start with torchrun")
    return TorchrunJob(rank, world_size, local_rank) if world_size > 1 else TorchrunJob()


def own_rank() -> int:
    """Return this process's rank, 0 without torchrun."""
    return job().rank


def rank_or_first() -> int:
    """Return this process's rank, 0 also where the environment is invalid."""
    try:
        return own_rank()
    except RequestError:
        return 0


def several() -> bool:
    """Return whether torchrun has started more than one process."""
    return job().world_size > 1


def is_one_of_several() -> bool:
    """Return whether torchrun has started more than one process, False also where the environment is invalid."""
    try:
        return several()
    except RequestError:
        return False


def rank_range(items: int) -> range:
    """Return the items of this process: rank n of N has n, n + N, ..."""
    own = job()
    return range(own.rank, items, own.world_size)


def warn_if_alone() -> None:
    """Warn if the environment states several processes, but not as torchrun does."""
    world_size = os.environ.get("WORLD_SIZE", "").strip()
    if several() or world_size in ("", "1"):
        return
    missing = ", ".join(f"${name}" for name in TORCHRUN_VARIABLES if not os.environ.get(name))
    if missing:
        logger.warning("$WORLD_SIZE is %r without %s: not started by torchrun; running alone", world_size, missing)


def rank_device(device: "torch.device") -> "torch.device":
    """Return the GPU of this process's local rank. Raises RequestError."""
    if device.type != "cuda" or not several():
        return device
    import torch

    number, count = job().local_rank, torch.cuda.device_count()
    if number >= count:
        raise RequestError(
            f"process {number} of this machine has no GPU, as there are {count}; "
            f"start at most {count} with --nproc-per-node, or give --device cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def joined(device: "torch.device") -> Iterator["DistributedContext"]:
    """Join the process group: NCCL between GPUs, Gloo otherwise; a world of size 1 without torchrun."""
    from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

    if not several():
        warn_if_alone()
        yield SINGLE_PROCESS
        return
    for name, form in RENDEZVOUS_VARIABLES.items():
        if not re.fullmatch(form, value := os.environ.get(name, "")):
            raise RequestError(f"${name} is {value!r}, which torchrun would not set; start the command with torchrun")
    import torch.distributed as dist

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    yield DistributedContext(dist.get_rank(), dist.get_world_size(), device)
    dist.destroy_process_group()  # not after an error: it would wait for the others


def choose_device(name: str, *, otherwise_cpu: bool = False) -> "torch.device":
    """Return the device that --device names; auto is a CUDA GPU if there is one. Raises RequestError.

    With `otherwise_cpu` a missing GPU is a warning, and the CPU is used. Training and evaluation, which would
    take too long there, are refused.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; matrix products have TF32 off by default
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        raise RequestError(f"device {name!r} is unknown; choose from {DEVICES}") from None
    if device.type == "cpu" and device.index in (None, 0):
        return torch.device("cpu")
    if device.type == "mps" and device.index in (None, 0):
        device = torch.device("mps")
        is_present, found = torch.backends.mps.is_available(), "no GPU that PyTorch can use through Metal"
    elif device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        is_present, found = (device.index or 0) < count, f"{count} CUDA devices"
    else:
        raise RequestError(f"device {name!r} is not supported; choose from {DEVICES}")
    if is_present:
        return device
    absent = f"device {name!r} is not available: this machine has {found}"
    if not otherwise_cpu:
        raise RequestError(absent)
    logger.warning("%s; using the CPU", absent)
    return torch.device("cpu")


def choose_dtype(precision: str, device: "torch.device", *, is_8_bit: bool) -> "torch.dtype":
    """Return the dtype of --precision; auto is bfloat16 for 8-bit output on hardware that supports it."""
    import torch

    if device.type == "mps" and precision == "float64":
        raise RequestError("--precision float64 is not possible on --device mps; use --device cpu")
    if precision == "bfloat16" and not multiplies_bfloat16(device):
        logger.warning("this %s has no native bfloat16: slower than float32", DEVICE_NAMES[device.type])
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}[precision]
    return torch.bfloat16 if is_8_bit and multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: "torch.device") -> bool:
    """Return whether the hardware multiplies bfloat16 natively and oneDNN may use it."""
    from polyinr_core.runtime.device import is_bfloat16_gpu

    if device.type != "cpu":
        return is_bfloat16_gpu(device)
    limit = next((os.environ[name] for name in ONEDNN_VARIABLES if name in os.environ), "")
    return limit.upper() not in ISAS_WITHOUT_BFLOAT16 and bool(BFLOAT16_FLAGS & cpu_flags())


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the processor's feature flags, empty where the system does not list them."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    flags = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return set(flags[0].split()) if flags else set()


class Interruption:
    """The last signal that asked this process to end: its number, its time, and whether it was raised at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0
        self.is_raised = False

    @property
    def exit_code(self) -> int:
        """The exit code of what was interrupted: 130 by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP."""
        return 128 + (signal.SIGINT if self.number is None else self.number)

    def record(self, number: int) -> bool:
        """Record a signal; return whether it is a new one, and not the one before, forwarded."""
        now = time.monotonic()
        is_new = self.number is None or now - self.since > SAME_SIGNAL_SECONDS
        if is_new:
            self.number, self.since = number, now
        return is_new

    def reset(self) -> None:
        """Forget the last signal."""
        self.number = None
        self.is_raised = False


interruption = Interruption()


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise KeyboardInterrupt, unless it is the one before, forwarded.

    While PyTorch is imported, the process exits at once: an exception there may abort its C++ with a message.
    """
    if is_importing("torch") and not has_drafts():
        with suppress(OSError):
            os.write(2, b"polyinr: interrupted\n")
        os._exit(128 + number)
    if interruption.record(number):
        interruption.is_raised = True
        raise KeyboardInterrupt


def is_importing(name: str) -> bool:
    """Return whether a module has begun, but not finished, to be imported."""
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def interrupt_on_signals() -> None:
    """Let the signals that ask for an end interrupt like Ctrl-C, each unless it is ignored, as under `nohup`."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    default_hook = sys.unraisablehook

    def raise_again(unraisable: Any) -> None:
        """Raise an interruption again that came where it could not propagate, such as in a destructor."""
        if interruption.number is None or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            default_hook(unraisable)
            return
        number = interruption.number
        interruption.reset()
        send = partial(os.kill, os.getpid())  # to the main thread, if need be out of a wait
        timer = Timer(RAISE_AGAIN_SECONDS, signal.raise_signal if WINDOWS else send, (number,))  # there it would kill
        timer.daemon = True
        timer.start()

    sys.unraisablehook = raise_again


def die_of_signals() -> None:
    """Let signals kill the process, where there is nothing left to clean up."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class Stopping:
    """Whether a signal has asked the run to stop.

    Until `asked` is called for the first time, after the first iteration, a signal interrupts at once. From then
    on it is only recorded; a second Ctrl-C interrupts, unless it is the first one, forwarded. SIGUSR1 asks to save.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.records_only = False
        self.is_save_asked = False

    def asked(self) -> bool:
        """Return whether a signal came, and only record signals from now on."""
        self.records_only = True
        return self.since is not None

    def save_asked(self) -> bool:
        """Return whether SIGUSR1 came since the last call."""
        was_asked, self.is_save_asked = self.is_save_asked, False
        return was_asked

    def ask_save(self, number: int, frame: FrameType | None) -> None:
        """Record SIGUSR1."""
        self.is_save_asked = True

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Record a signal. Raises KeyboardInterrupt."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
            interruption.record(number)
            interrupts = not self.records_only
        else:
            interrupts = number == signal.SIGINT and now - self.since > SAME_SIGNAL_SECONDS
        if interrupts:
            interruption.is_raised = True
            raise KeyboardInterrupt


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Catch the signals that ask for an end, under `nohup` not SIGHUP, and SIGUSR1."""
    request = Stopping()
    always = (signal.SIGINT, signal.SIGTERM)
    numbers = [number for number in STOP_SIGNALS if number in always or signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request.catch) for number in numbers}
    if hasattr(signal, "SIGUSR1"):  # a scheduler's warning, which would kill the process; not on Windows
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, request.ask_save)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
