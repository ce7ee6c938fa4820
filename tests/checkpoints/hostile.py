"""Pickles that mean harm, or mean nothing: each by its name, all of them to be refused."""

import builtins
import io
import marshal
import os
import pickle
import runpy
import shutil
import struct
import subprocess
import timeit
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forging import (
    CLASSES,
    Node,
    Persistent,
    W,
    forge,
    network,
    pickled,
    rebuild_persistent,
    released_tensors,
    storage_blob,
    stored,
)
from pickling import Calls, named

HEAD = b"\x80\x04"
HUGE = struct.pack("<Q", 2**60)


def global_of(module: str, name: str) -> bytes:
    """Return the opcodes of protocol 4 that mention a global."""
    texts = [pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode() for text in (module, name)]
    return b"".join(texts) + pickle.STACK_GLOBAL


def hostile_files(canary: Path) -> dict[str, bytes]:
    """Return hostile files by name; those that would do something would make the file `canary`."""
    return calls(canary) | whole_but_for(canary) | streams() | networks() | tensors()


def calls(canary: Path) -> dict[str, bytes]:
    """Files that call what makes the canary, by every way that pickles have."""
    shell = f"touch {canary}"
    python = f"open({str(canary)!r}, 'w').close()"
    code = compile(python, "code", "exec")
    imported = named("dill._dill", "_import_module")
    attribute = named("dill._dill", "_get_attr")
    create_code, create = named("dill._dill", "_create_code"), named("dill._dill", "_create_function")
    loaded = named("dill._dill", "_load_type")
    dill = Calls(Calls(attribute, Calls(imported, "os"), "system"), shell)
    hook = Calls(create, Calls(create_code, 0, 0, 0, 64, 0, code.co_code, (None,)), {}, "f", None, ())
    argument = pickle.SHORT_BINUNICODE + bytes([len(shell)]) + shell.encode() + pickle.TUPLE1
    plain: dict[str, Any] = {
        "os system": Calls(os.system, shell),
        "subprocess": Calls(subprocess.Popen, ["touch", str(canary)]),
        "eval": Calls(eval, python),
        "exec": Calls(exec, python),
        "compile": Calls(builtins.compile, python, "x", "exec"),
        "import": Calls(builtins.__import__, "this"),
        "getattr": Calls(getattr, 1, "real"),
        "open": Calls(open, str(canary), "w"),
        "rmtree": Calls(shutil.rmtree, str(canary)),
        "runpy": Calls(runpy.run_path, str(canary)),
        "timeit": Calls(timeit.timeit, python),
        "marshalled code": Calls(marshal.loads, marshal.dumps(code)),
        "torch load": Calls(torch.load, str(canary)),
        "torch hub": Calls(torch.hub.load, "a/b", "c"),
    }
    files = {name: pickle.dumps(value, protocol=4) for name, value in plain.items()}
    for where, arguments in {
        "numpy.load": (str(canary), "r"),
        "numpy.testing._private.utils.runstring": (python, {}),
        "types.FunctionType": (None, {}),
        "timm.models.helpers.load_checkpoint": (None, str(canary)),
    }.items():
        function = named(*where.rsplit(".", 1))
        files[where] = pickled(Calls(function, *arguments), function)
    return files | {
        "os system, protocol 2": b"\x80\x02cposix\nsystem\n" + argument + b"R.",
        "os system by INST": HEAD + b"(S'" + shell.encode() + b"'\nios\nsystem\n.",
        "os system by OBJ": HEAD + b"(" + global_of("os", "system") + argument[:-1] + b"o.",
        "os system by NEWOBJ": HEAD + global_of("os", "system") + argument + pickle.NEWOBJ + b".",
        "os system by NEWOBJ_EX": HEAD + global_of("os", "system") + argument + b"}" + pickle.NEWOBJ_EX + b".",
        "os system by BUILD": HEAD + global_of("os", "system") + b"}" + pickle.BUILD + b".",
        "os system by dill": pickled(dill, imported, attribute),
        "os system, dotted": HEAD + global_of("feature_networks.vit", "os.system") + argument + b"R.",
        "a code object": pickled({"G_ema": hook}, create, create_code),
        "a lambda type": pickled({"G_ema": Calls(loaded, "LambdaType")}, loaded),
        "extension code": HEAD + pickle.EXT1 + b"\x01.",
        "large extension code": HEAD + pickle.EXT4 + b"\xff\xff\xff\x7f.",
        "persistent id": HEAD + b"Phello\n.",
        "persistent id on the stack": HEAD + b"\x8c\x05hello" + pickle.BINPERSID + b".",
        "out-of-band buffer": HEAD + pickle.NEXT_BUFFER + b".",
        "a call of a text": HEAD + b"\x8c\x01x" + argument + b"R.",
        "a call of a result": HEAD + global_of("torch", "Size") + argument + b"R" + argument + b"R.",
        "arguments that are no tuple": HEAD + global_of("torch", "Size") + b"]R.",
        "a global named by numbers": HEAD + b"K\x01K\x02" + pickle.STACK_GLOBAL + b".",
        "a global named by one line": HEAD + global_of("os\nsystem", "x\ny") + b".",
        "a global without an end": HEAD + b"c" + b"a" * 5000,
        "a global of a megabyte": HEAD + long_text(2**20) + b"\x8c\x01x" + pickle.STACK_GLOBAL + b".",
        "a long global again and again": HEAD
        + b"X" + struct.pack("<I", 65_000) + b"a." * 32_500 + b"q\x00"
        + (b"h\x00h\x00\x93" * 100_000) + b".",
    }  # fmt: skip


def long_text(length: int) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", length) + b"a" * length


def whole_but_for(canary: Path) -> dict[str, bytes]:
    """Files whose G_ema is whole, with harm beside it."""
    tensors_ = released_tensors()
    whole = forge(tensors_)
    return {
        "whole, and os.system": forge(tensors_, extra=Calls(os.system, f"touch {canary}")),
        "whole, and eval": forge(tensors_, extra=Calls(eval, f"open({str(canary)!r}, 'w')")),
        "whole, and a second pickle": whole + pickle.dumps(Calls(eval, f"open({str(canary)!r}, 'w')")),
        "whole, and trailing bytes": whole + b"\0",
    }


def streams() -> dict[str, bytes]:
    """Streams that do not end, end too soon, or ask for more than there is."""
    many = 520_000
    files = {
        "only a protocol": HEAD,
        "only a stop": HEAD + b".",
        "protocol 0": b"(dp0\n.",
        "protocol 9": b"\x80\x09N.",
        "no stop": HEAD + b"N" * 10,
        "two values": HEAD + b"NN.",
        "an open mark": HEAD + b"N(.",
        "endless marks": HEAD + b"(" * many,
        "endless dictionaries": HEAD + b"}" * many,
        "endless push and pop": HEAD + b"N0" * many,
        "endless frames": HEAD + (b"\x95" + bytes(8)) * many,
        "deep lists": HEAD + b"]" * 150_000 + b"a" * 149_999 + b".",
        "deep tuples": HEAD + b")" + b"\x85" * 300_000 + b".",
        "deep objects": HEAD + global_of("torch", "Size") + b"q\0" + b"h\0)R" * 90_000 + b"b" * 90_000 + b".",
        "doubling tuples": HEAD + b")" + b"2\x86" * 150_000 + b".",
        "doubling lists": HEAD + b"]q\0" + b"(h\0h\0h\0h\0e" * 40_000 + b".",
        "doubling dictionaries": HEAD + b"}q\0" + b"\x8c\x01ah\0s" * 100_000 + b".",
        "memo bomb": HEAD + b"Nr\xff\xff\xff\x7f.",
        "memo bombs": HEAD + b"N" + b"".join(b"r" + struct.pack("<I", i << 12) for i in range(200_000)) + b".",
        "memo bomb in digits": HEAD + b"Np99999999999999999999\n.",
        "recall of nothing": HEAD + b"h\x05.",
        "recall of far nothing": HEAD + b"j\xff\xff\xff\xff.",
        "an integer of ten million digits": HEAD + b"I" + b"9" * 10_000_000 + b"\n.",
        "a long of ten million digits": HEAD + b"L" + b"9" * 10_000_000 + b"L\n.",
        "a long of a megabyte": HEAD + pickle.LONG4 + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b".",
        "a float in digits": HEAD + b"F" + b"1" * 1_000_000 + b"\n.",
        "a string with escapes": HEAD + b"S'" + b"\\x41" * 1000 + b"'\n.",
        "not UTF-8": HEAD + b"\x8c\x02\xff\xfe.",
        "a list as a key": HEAD + b"}]Ns.",
        "an odd number of items": HEAD + b"}(NNNu.",
        "items for a number": HEAD + b"K\x01NNs.",
        "append to a number": HEAD + b"K\x01Na.",
        "state for a list": HEAD + b"]}b.",
        "pop of nothing": HEAD + b"0.",
        "a tuple of nothing": HEAD + b"\x87.",
        "a mark missing": HEAD + b"t.",
        "reaching below a mark": HEAD + b"NNN(\x87.",
        "unknown opcode": HEAD + b"\xff.",
        "colliding keys": HEAD
        + b"}(" + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(100_000))
        + b"u.",
    }  # fmt: skip
    for name, opcode in {
        "frame": pickle.FRAME,
        "bytes": pickle.BINBYTES8,
        "text": pickle.BINUNICODE8,
        "byte array": pickle.BYTEARRAY8,
    }.items():
        files[f"2^60 bytes of {name}"] = HEAD + opcode + HUGE + b"abc."
    files["4 GB of bytes"] = HEAD + pickle.BINBYTES + b"\xff\xff\xff\xff" + b"abc."
    whole = forge(released_tensors())
    files |= {f"cut at {part} of 17": whole[: len(whole) * part // 17] for part in range(17)}
    files["cut by one byte"] = whole[:-1]
    archive = io.BytesIO()
    torch.save({"G_ema": torch.zeros(2)}, archive)
    with zipfile.ZipFile(io.BytesIO(archive.getvalue())):
        files["a zip of torch"] = archive.getvalue()
    return files


def networks() -> dict[str, bytes]:
    """Dictionaries whose G_ema is no network, or one without end."""
    whole = network(released_tensors())
    ring = network(released_tensors())
    ring._modules["mapping"]._modules["again"] = ring
    fan = Node()
    for _ in range(12):
        above = Node()
        above._modules |= {str(i): fan for i in range(12)}
        fan = above
    wide = Node()
    wide._modules |= {str(i): Node() for i in range(3000)}
    sparse = Node()
    sparse._parameters |= {str(i): None for i in range(50_000)}
    spread = Node()
    spread._modules |= {str(i): sparse for i in range(400)}
    titled = Node()
    titled._parameters["x" * 60_000] = torch.zeros(1)
    listed = Node()
    listed._modules = [whole]  # type: ignore[assignment]
    empty = Persistent()
    del empty._parameters, empty._buffers, empty._modules
    tops: dict[str, Any] = {
        "no network": {"G": whole, "D": None},
        "a list": [whole],
        "a number": 7,
        "nothing": {"G_ema": None},
        "a text": {"G_ema": "text"},
        "a dictionary": {"G_ema": {"_parameters": {}}},
        "an empty network": {"G_ema": Node()},
        "a network with nothing in it": {"G_ema": empty},
        "a ring of modules": {"G_ema": ring},
        "a fan of modules": {"G_ema": fan},
        "too many modules": {"G_ema": wide},
        "too many parameters": {"G_ema": spread},
        "a name without end": {"G_ema": titled},
        "modules in a list": {"G_ema": listed},
        "a network that is a call": {"G_ema": Calls(rebuild_persistent)},
        "a network that is a tensor": {"G_ema": torch.zeros(3)},
        "numbers for a tensor": {"G_ema": network(released_tensors() | {"mapping.fc1.bias": 7})},
    }
    return {f"G_ema: {name}": pickled(top) for name, top in tops.items()}


def tensors() -> dict[str, bytes]:
    """Whole networks but for one tensor, w_avg [2, 7], whose description or storage is wrong."""
    numbers = torch.zeros(CLASSES * W)
    blob = storage_blob(numbers)
    size, stride = (CLASSES, W), (W, 1)
    element = struct.pack("<q", len(numbers))
    plain = Calls(torch._utils._rebuild_tensor_v2, 1, 2)
    system = named("os", "system")
    inner: dict[str, Callable[[], bytes]] = {
        "blob cut in its head": lambda: blob[:40],
        "blob cut in its numbers": lambda: blob[:-3],
        "blob with trailing bytes": lambda: blob + b"\0\0\0\0",
        "empty blob": lambda: b"",
        "blob of 2^60 elements": lambda: blob.replace(b"K\x0eN", b"\x8a\x08" + HUGE + b"N").replace(element, HUGE),
        "blob that counts 2^60": lambda: blob.replace(element, HUGE),
        "blob that counts below 0": lambda: blob.replace(element, struct.pack("<q", -14)),
        "blob of another magic": lambda: blob.replace(b"\xf9 j", b"\xf9!j"),
        "blob of another protocol": lambda: blob.replace(b"M\xe9\x03", b"M\xe8\x03"),
        "blob of a big-endian machine": lambda: blob.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
        "blob of os.system": lambda: blob.replace(b"ctorch\nFloatStorage", b"cos\nsystem"),
        "blob of a network class": lambda: blob.replace(b"torch\nFloatStorage", b"training.x\nGenerator"),
        "blob of doubles": lambda: storage_blob(numbers.double()),
        "blob of another key": lambda: blob.replace(b"]q\0X", b"]q\0X\x01\0\0\0aaX"),
        "blob without end": lambda: blob[:2] + b"N" * 500_000,
        "blob of a zip": lambda: b"PK\x03\x04" + bytes(100),
        "blob of numbers": lambda: bytes(len(blob)),
    }
    wrong: dict[str, Any] = {name: stored(make(), size, stride) for name, make in inner.items()}
    assert all(make() != blob for make in inner.values()), [n for n, make in inner.items() if make() == blob]
    wrong |= {
        "2^60 values": stored(blob, (2**30, 2**30), (2**30, 1)),
        "2^60 values of one": stored(blob, (2**30, 2**30), (0, 0)),
        "2^46 rows of one": stored(blob, (2**46, W), (0, 1)),
        "values past the end": stored(blob, size, stride, 1),
        "an offset of 2^60": stored(blob, size, stride, 2**60),
        "an offset below 0": stored(blob, size, stride, -1),
        "strides past the end": stored(blob, size, (W, 2)),
        "strides of 2^60": stored(blob, size, (2**60, 1)),
        "strides below 0": stored(blob, size, (W, -1)),
        "strides of 2^47": stored(blob, size, (2**47, 2**47)),
        "a size below 0": stored(blob, (CLASSES, -W), stride),
        "a size in text": stored(blob, ("2", "7"), stride),
        "a size in truths": stored(blob, (True, True), stride),
        "a list for a size": stored(blob, [2, 7], stride),
        "no strides": stored(blob, size, ()),
        "a hundred axes": stored(blob, (1,) * 100, (1,) * 100),
        "a million axes": stored(blob, (1,) * 300_000, (1,) * 300_000),
        "no values": stored(blob, (0, W), stride),
        "two arguments": plain,
        "no arguments": Calls(torch._utils._rebuild_parameter),
        "a text for a blob": stored("abc", size, stride),
        "a tensor for a blob": stored(torch.zeros(3), size, stride),
        "a size of a class": Calls(torch.Size, size),
        "a storage by another call": Calls(
            torch._utils._rebuild_tensor_v2, Calls(torch.Size, blob), 0, size, stride, False, OrderedDict()
        ),
    }
    files = {f"w_avg: {name}": forge(released_tensors() | {"mapping.w_avg": value}) for name, value in wrong.items()}
    files["w_avg: os.system"] = pickled({"G_ema": Calls(system, "true")}, system)
    shared = released_tensors()
    large = Calls(torch.storage._load_from_bytes, storage_blob(torch.zeros(2**18)))
    for name, tensor in shared.items():
        if tensor.numel() < 2**13:
            view = (large, 0, (2**9, 2**9), (2**9, 1), False, OrderedDict())
            shared[name] = Calls(torch._utils._rebuild_tensor_v2, *view)  # type: ignore[assignment]
    files["one storage for all tensors"] = forge(shared)
    return files
