"""Copies to a device that the host does not wait for."""

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
