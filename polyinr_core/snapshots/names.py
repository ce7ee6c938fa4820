"""The names that a released pickle may hold: data types, tensors, and the release's own classes."""

FUNCTIONS = frozenset(
    {
        "_codecs.encode",  # how protocol 2 spells bytes
        "collections.OrderedDict",
        "collections.defaultdict",
        "copyreg._reconstructor",
        "copy_reg._reconstructor",  # protocol 2 writes the old names of standard modules
        "dill._dill._create_cell",
        "dill._dill._create_code",
        "dill._dill._create_function",
        "dill._dill._get_attr",
        "dill._dill._import_module",
        "dill._dill._load_type",
        "functools.partial",
        "numpy.core._multiarray_umath._reconstruct",
        "numpy.core._multiarray_umath.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
        "torch.Size",
        "torch.device",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        "torch.storage._load_from_bytes",
    }
)
TYPES = frozenset(
    {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "long", "object"}
    | {"range", "set", "slice", "str", "tuple", "unicode"}
)
INNER_TYPES = frozenset(  # as dill names them
    {"BuiltinMethodType", "CellType", "CodeType", "EllipsisType", "FunctionType", "MethodType", "NoneType"}
)
DTYPES = frozenset({"bfloat16", "bool", "float16", "float32", "float64", "int32", "int64", "uint8"})
RELEASE = ("dnnlib.", "feature_networks.", "pg_modules.", "torch_utils.", "training.")
LIBRARIES = ("timm.layers.", "timm.models.", "torch.nn.", "torchvision.transforms.")
ACTIVATIONS = frozenset({"torch.nn.functional", "torch._C._nn"})


def is_released_name(module: str, name: str) -> bool:
    """Say whether a released snapshot may mention `module.name`; nothing of that name is ever run.

    Of libraries only classes, which begin with a capital letter, and activation functions pass.
    """
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return False
    if module in ("builtins", "__builtin__"):
        return name in TYPES
    if module == "types":
        return name in INNER_TYPES
    if module == "torch" and name in DTYPES:
        return True
    return (
        f"{module}.{name}" in FUNCTIONS
        or f"{module}.".startswith(RELEASE)
        or (f"{module}.".startswith(LIBRARIES) and name[0].isupper())
        or module in ACTIVATIONS
    )
