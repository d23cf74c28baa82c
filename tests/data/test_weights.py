"""Weights out of safetensors files, read without their library."""

import numpy as np
import pytest
from data_tools import load_or_skip
from safetensors.numpy import save

from mtl_course import data
from mtl_course.data.tiers import weights

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1, -1], dtype=np.int64),
    "c": np.ones((2, 1), dtype=np.float16),
}


def test_what_the_library_writes_is_read():
    arrays = weights.safetensors(save(TENSORS, metadata={"format": "pt"}))
    assert arrays.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert np.array_equal(arrays[name], array) and arrays[name].dtype == array.dtype


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1],
        lambda content: content[:40],
        lambda content: b"",
        lambda content: content.replace(b'"F32"', b'"F99"'),
        lambda content: content.replace(b"[2,3]", b"[2,4]"),
        lambda content: b"\x02" + bytes(7) + b"[]",
        lambda content: b"PK\x03\x04" + content,
    ],
)
def test_other_files_are_refused(spoil):
    with pytest.raises(data.DataError, match="safetensors file is truncated or altered"):
        weights.safetensors(spoil(save(TENSORS)))


def test_minilm_has_its_weights_in_order():
    files = load_or_skip("minilm")
    assert files.weights.dtype == np.float32 and np.isfinite(files.weights).all()
    assert np.where(files.shapes == 0, 1, files.shapes).prod(axis=1).sum() == len(files.weights)
    assert not any("pooler" in name or "ids" in name for name in files.names)
    first = files.vocabulary[[0, 100, 101, 102, 103]].tolist()
    assert first == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(files.vocabulary.tolist())) == len(files.vocabulary)


def test_minilm_leaves_out_what_is_not_used():
    content = save({"pooler.dense.bias": np.ones(2), "x": TENSORS["a"], "y": TENSORS["a"][0]})
    content = content.replace(b'"F64"', b'"I64"')
    arrays = weights.minilm(content, "[PAD]\n##é\n".encode())
    assert arrays["names"].tolist() == ["x", "y"]
    assert arrays["shapes"].tolist() == [[2, 3], [3, 0]]
    assert arrays["weights"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert arrays["vocabulary"].tolist() == ["[PAD]", "##é"]
