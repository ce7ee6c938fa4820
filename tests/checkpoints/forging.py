"""Pickles as the release writes them, forged in small: real torch pickling of stand-in modules."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import torch
from pickling import Calls, present
from torch import Tensor
from torch.nn import Parameter

SIDE, LEVELS, WIDTH, Z, W, CLASSES, ROWS = 4, 3, 6, 5, 7, 2, 3


class Node:
    """A stand-in module: the three dictionaries of torch's modules, pickled by reference with its state."""

    __module__ = "training.networks_gmgan"
    __qualname__ = "Generator"

    def __init__(self) -> None:
        self._parameters: OrderedDict[str, Any] = OrderedDict()
        self._buffers: OrderedDict[str, Any] = OrderedDict()
        self._modules: OrderedDict[str, Any] = OrderedDict()


class Persistent(Node):
    """A stand-in for a module behind the release's persistence wrapper, with its source."""

    source = "# source removed"

    def __reduce__(self) -> Any:
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": "X", "state": vars(self)}
        return rebuild_persistent, (meta,)


def rebuild_persistent(meta: Any) -> Any:
    raise AssertionError("nothing in a pickle may be called")


rebuild_persistent.__module__ = "torch_utils.persistence"
rebuild_persistent.__qualname__ = "_reconstruct_persistent_obj"


def released_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors under all released names: 3 levels, 6 channels, 2 classes, a 4 x 4 grid."""
    rng = torch.Generator().manual_seed(seed)

    def linear(name: str, *shape: int) -> dict[str, Tensor]:
        return {
            f"{name}.weight": torch.randn(*shape, generator=rng),
            f"{name}.bias": torch.randn(shape[0], generator=rng),
        }

    grid = torch.rand(1, SIDE * SIDE, 2, generator=rng)
    tensors = {"gridt": grid, "mapping.w_avg": torch.randn(CLASSES, W, generator=rng)}
    tensors["mapping.embed.weight"] = torch.randn(ROWS, 320, generator=rng)
    tensors |= linear("mapping.embed_proj", Z, 320) | linear("mapping.fc0", W, 2 * Z) | linear("mapping.fc1", W, W)
    tensors["synthesis.grid"] = grid
    for level in range(LEVELS):
        at, in_dim = (f"synthesis.fb{level}", WIDTH) if level else ("synthesis", W)
        tensors |= linear(f"{at}.fb0.fc1" if level else f"{at}.fc0_0", WIDTH, WIDTH)
        for head, outs in {"fc0_1": 2 * WIDTH, "fc0_2": WIDTH, "fc0_3": 4, "fc0_4": 2}.items():
            tensors |= linear(f"{at}.{head}", outs, in_dim)
        if level:
            tensors |= linear(f"{at}.fc0_5", WIDTH, W)
    return tensors | linear("synthesis.to_rgb", 3, WIDTH, 1, 1)


def network(tensors: dict[str, Any]) -> Node:
    """Hang tensors, or what stands in their place, into a tree of stand-in modules by their dotted names."""
    root = Node()
    grid = Parameter(tensors["gridt"]) if isinstance(tensors.get("gridt"), Tensor) else None
    for name, value in tensors.items():
        *path, leaf = name.split(".")
        node = root
        for part in path:
            node = node._modules.setdefault(part, Persistent() if part.startswith(("mapping", "fc0_5")) else Node())
        if not isinstance(value, Tensor) or leaf == "w_avg":
            node._buffers[leaf] = value
        else:
            node._parameters[leaf] = grid if value is tensors.get("gridt") else Parameter(value)
    return root


def pickled(top: Any, *stand_ins: Any, protocol: int = 4) -> bytes:
    """Pickle `top` under the released names of its stand-ins."""
    with present(Node, rebuild_persistent, *stand_ins):
        return pickle.dumps(top, protocol=protocol)


def forge(tensors: dict[str, Any], *stand_ins: Any, protocol: int = 4, **top: Any) -> bytes:
    """Return a released pickle with these tensors in G_ema, and other top-level values."""
    content = {"G": network(tensors), "D": None, "G_ema": network(tensors), "augment_pipe": None, **top}
    return pickled(content, *stand_ins, protocol=protocol)


def storage_blob(tensor: Tensor) -> bytes:
    """Return the blob in which a tensor's storage is pickled, as torch itself writes it."""
    file = io.BytesIO()
    torch.save(
        torch.storage.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True),
        file,
        _use_new_zipfile_serialization=False,
    )
    return file.getvalue()


def stored(blob: Any, size: Any, stride: Any, offset: Any = 0) -> Calls:
    """Return what pickles as a tensor over a storage blob of one's own making."""
    storage = Calls(torch.storage._load_from_bytes, blob)
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
