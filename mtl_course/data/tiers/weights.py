"""Weights of pretrained networks out of safetensors files, which hold numbers and no code."""

import json

import numpy as np

from ..manifest import DataError

KINDS = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


def safetensors(content: bytes) -> dict:
    """Name -> array, as a safetensors file has them; views of its bytes.

    The file: the header's length in 8 bytes, the header as JSON, the numbers, smallest byte first.
    DataError if it is cut off or is no such file.
    """
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        arrays = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            kind = np.dtype(KINDS[entry["dtype"]]).newbyteorder("<")
            numbers = np.frombuffer(content[start + first : start + last], kind)
            arrays[name] = numbers.reshape(entry["shape"])
        return arrays
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"The safetensors file is truncated or altered ({error}).") from error


def minilm(model: bytes, vocabulary: bytes) -> dict:
    """A pretrained encoder of sentences: its weights one after the other, and its vocabulary.

    weights: [22565376] float32; names: [101] of the tensors, in this order.
    shapes: [101, 2] int64 of the tensors, (n, 0) for one with n numbers.
    vocabulary: [30522] pieces of words; a piece's place is its number.

    What the mean over words does not need, the pooler and the list of positions, is left out.
    """
    tensors = {
        name: tensor
        for name, tensor in safetensors(model).items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }
    return {
        "weights": np.concatenate([tensor.ravel() for tensor in tensors.values()]),
        "names": np.array(list(tensors)),
        "shapes": np.array([(*t.shape, 0)[:2] for t in tensors.values()], dtype=np.int64),
        "vocabulary": np.array(vocabulary.decode("utf-8").splitlines()),
    }
