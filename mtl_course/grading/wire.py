"""Values on their way between two processes: JSON of known size, in which nothing can be run.

Tensors and arrays are bytes with a shape and a type. What has no form here (a module, an object of
a class of the learner's) arrives as its kind only. An input that comes back as the same object is
the same object again on the other side.
"""

import base64
import json
import math
import re
import struct
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

LARGEST = 64 * 2**20  # bytes of a message
DEEPEST = 40  # levels of lists and dicts
_PLAIN = (bool, int, float, str)
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
    )
}
_ARRAY = re.compile(r"[<>|=]?[biufc]\d{1,2}")


class Unlike(Exception):  # noqa: N818  it says of what kind the thing is
    """A value that cannot be sent."""


# --------------------------------------------------------------------- messages


def send(sink: BinaryIO, message: dict) -> None:
    """Write one message: four bytes of length, then JSON."""
    text = json.dumps(message).encode()
    if len(text) > LARGEST:
        raise Unlike(f"a message of {len(text):,} bytes")
    sink.write(struct.pack(">I", len(text)) + text)
    sink.flush()


def receive(source: BinaryIO) -> dict | None:
    """Read one message; None at the end, and for what is none."""
    head = source.read(4)
    size = struct.unpack(">I", head)[0] if len(head) == 4 else LARGEST + 1
    if size > LARGEST:
        return None
    text = source.read(size)
    try:
        message = json.loads(text) if len(text) == size else None
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


# ----------------------------------------------------------------------- values


def pack(value, objects: list, same: tuple | list = (), depth: int = 0):
    """JSON for a value.

    objects: receives the tensors, arrays, lists and dicts in it, in the order of `unpack`.
    same: objects of an earlier value; where one of them is met again, only its place is told.
    Raises Unlike for what has no form.
    """
    if depth > DEEPEST:
        raise Unlike("a value that is nested too deep")
    if value is None or type(value) in _PLAIN:
        return value if type(value) is not float or math.isfinite(value) else {"f": repr(value)}
    for place, other in enumerate(same):
        if value is other:
            return {"same": place}
    if isinstance(value, Tensor):
        objects.append(value)
        return _pack_tensor(value)
    if isinstance(value, np.ndarray | np.generic):
        scalar = isinstance(value, np.generic)
        if not scalar:
            objects.append(value)
        return _pack_array(np.asarray(value)) | ({"scalar": True} if scalar else {})
    if isinstance(value, bool | int | float | str):  # of a subclass
        return pack(next(p(value) for p in _PLAIN if isinstance(value, p)), objects)
    if isinstance(value, complex):
        return {"c": [repr(value.real), repr(value.imag)]}
    if isinstance(value, list):
        objects.append(value)
        return {"l": [pack(v, objects, same, depth + 1) for v in value]}
    if isinstance(value, tuple):
        return {"t": [pack(v, objects, same, depth + 1) for v in value]}
    if isinstance(value, dict):
        objects.append(value)
        pairs = [[pack(x, objects, same, depth + 1) for x in pair] for pair in value.items()]
        return {"d": pairs}
    raise Unlike(type(value).__name__)


def pack_or_kind(value, objects: list, same=()):
    """As `pack`; of what has no form only the kind is told."""
    try:
        return pack(value, objects, same)
    except Unlike:
        del objects[:]
        return {"kind": str(type(value).__name__)[:60]}


def _pack_tensor(t: Tensor) -> dict:
    name = str(t.dtype).removeprefix("torch.")
    if t.layout != torch.strided or name not in _DTYPES or t.is_meta:
        raise Unlike("Tensor")
    # Into memory of its own: one entry of a larger tensor counts as contiguous with any stride.
    flat = torch.empty(t.numel(), dtype=t.dtype)
    flat.copy_(t.detach().reshape(-1))
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    packed = {"tensor": _text(data), "shape": list(t.shape), "dtype": name}
    return packed | ({"grad": True} if t.requires_grad else {})


def _pack_array(a: np.ndarray) -> dict:
    if not _ARRAY.fullmatch(a.dtype.str):
        raise Unlike("ndarray")
    return {"array": _text(a.tobytes()), "shape": list(a.shape), "dtype": a.dtype.str}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def unpack(packed, objects: list, same: tuple | list = (), depth: int = 0) -> Any:
    """The value of a JSON that `pack` made, or somebody who only says so.

    Raises ValueError for what is none.
    """
    if packed is None or type(packed) in _PLAIN:
        return packed
    if depth > DEEPEST or not isinstance(packed, dict) or not packed:
        raise ValueError("not a value")
    form, content = next(iter(packed.items()))
    try:
        if form == "same":
            return same[int(content)]
        if form == "kind":
            name = content if str(content).isidentifier() else "object"
            return type(name, (), {})()
        if form == "f":
            return float(content)
        if form == "c":
            return complex(float(content[0]), float(content[1]))
        if form == "tensor":
            objects.append(_unpack_tensor(packed))
            return objects[-1]
        if form == "array":
            array = _unpack_array(packed)
            if packed.get("scalar"):
                return array[()]
            objects.append(array)
            return array
        if form == "t":
            return tuple(unpack(v, objects, same, depth + 1) for v in content)
        if form == "l":
            items: list = []
            objects.append(items)
            items += [unpack(v, objects, same, depth + 1) for v in content]
            return items
        if form == "d":
            table: dict = {}
            objects.append(table)
            pairs = [[unpack(x, objects, same, depth + 1) for x in pair] for pair in content]
            table.update(dict(pairs))
            return table
    except (LookupError, TypeError, OverflowError, RuntimeError) as error:
        raise ValueError("not a value") from error
    raise ValueError("not a value")


def _bytes(packed: dict, form: str, itemsize: int) -> tuple[bytearray, tuple[int, ...]]:
    """The bytes of a tensor or an array, which are as many as its shape asks for."""
    data = bytearray(base64.b64decode(packed[form], validate=True))
    shape = tuple(int(n) for n in packed["shape"])
    if len(shape) > 32 or min(shape, default=0) < 0 or math.prod(shape) * itemsize != len(data):
        raise ValueError("not an array")
    return data, shape


def _unpack_tensor(packed: dict) -> Tensor:
    dtype = _DTYPES[packed["dtype"]]
    data, shape = _bytes(packed, "tensor", torch.empty((), dtype=dtype).element_size())
    t = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    t = t.reshape(shape).clone()
    return t.requires_grad_() if packed.get("grad") is True and _differentiable(t) else t


def _differentiable(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


def _unpack_array(packed: dict) -> np.ndarray:
    if not _ARRAY.fullmatch(str(packed["dtype"])):
        raise ValueError("not an array")
    dtype = np.dtype(packed["dtype"])
    data, shape = _bytes(packed, "array", dtype.itemsize)
    return np.frombuffer(data, dtype=dtype).reshape(shape).copy()
