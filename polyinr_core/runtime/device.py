"""A GPU used well: bfloat16 where it has it, copies that the host does not wait for, convolutions by measurement."""

import torch
from torch import Tensor

MIN_CAPABILITY = (8, 0)  # of a GPU with native bfloat16


def is_bfloat16_gpu(device: torch.device) -> bool:
    """Return whether a device is a GPU that multiplies bfloat16 natively; Triton's kernels need one, too."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor on a device, in `dtype` if given.

    From the host to a GPU it goes through page-locked memory, which PyTorch keeps until it has been read, so that
    neither the host nor the GPU's queue waits. A copy in the other direction has to wait and is not made here.
    """
    is_on_host = tensor.device.type == "cpu"
    if is_on_host and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, dtype, non_blocking=is_on_host)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work, to time it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_convolutions(device: torch.device) -> None:
    """Let cuDNN time its algorithms at the first convolution of each shape in this process, and keep the fastest.

    Training has few shapes and meets each of them again and again. Nothing changes on a CPU.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
