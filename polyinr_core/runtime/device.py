"""A GPU used well: copies that the host does not wait for, and convolutions chosen by measurement."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor on a device, in `dtype` if given.

    From the host to a GPU it goes through page-locked memory, which PyTorch keeps until it has been read, so that
    neither the host nor the GPU's queue waits. A copy in the other direction has to wait and is not made here.
    """
    is_on_host = tensor.device.type == "cpu"
    if is_on_host and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, dtype, non_blocking=is_on_host)


def measure_convolutions(device: torch.device) -> None:
    """Let cuDNN time its algorithms at the first convolution of each shape in this process, and keep the fastest.

    Training has few shapes and meets each of them again and again. Nothing changes on a CPU.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
