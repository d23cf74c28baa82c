"""The page of libraries: each pair of calls runs and agrees, and the tests that it names exist."""

import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from mtl_course import transfer
from mtl_course.dev.notebooks import ROOT

PAGE = (ROOT / "book" / "appendix" / "libraries.md").read_text(encoding="utf-8")


def same(ours, theirs, where):
    if isinstance(ours, Mapping):
        assert list(ours) == list(theirs), where
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(ours, list):
        assert len(ours) == len(theirs) > 0, where
        for a, b in zip(ours, theirs, strict=True):
            same(a, b, where)
        return
    a, b = (np.asarray(v.detach() if isinstance(v, torch.Tensor) else v) for v in (ours, theirs))
    assert a.shape == b.shape, where
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=where)


PREAMBLE, *SECTIONS = re.split(r"^## ", PAGE, flags=re.M)
# Not among the tests' own packages: the title of their section begins with their name.
OTHERS = {"LibMTL": "LibMTL", "higher": "higher", "Avalanche": "avalanche"}


def other(section: str) -> bool:
    return section.partition(":")[0] in OTHERS


def run(sections: list[str], names: dict) -> int:
    """Run the blocks in order, compare what they call `ours` and `theirs`; how many pairs."""
    pairs = 0
    for section in sections:
        title = section.partition("\n")[0]
        for block in re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S):
            assert max(map(len, block.split("\n"))) <= 72, title
            exec(compile(block, f"<{title}>", "exec"), names)
            if "ours" in names and "theirs" in names:
                same(names.pop("ours"), names.pop("theirs"), title)
                pairs += 1
    assert not {"ours", "theirs"} & set(names)
    return pairs


def test_each_pair_of_calls_gives_the_same():
    for library in ("torchjd", "peft", "sklearn"):
        pytest.importorskip(library)
    assert run([PREAMBLE, *(s for s in SECTIONS if not other(s))], {}) >= 11


@pytest.mark.parametrize("name", OTHERS)
def test_a_library_that_happens_to_be_installed_gives_the_same(name, monkeypatch):
    if find_spec(OTHERS[name]) is None:
        pytest.skip(f"{name} is not installed")
    # The section on LibMTL stands in for a module that torchvision had.
    monkeypatch.setitem(sys.modules, "torchvision.models.utils", None)
    [section] = [s for s in SECTIONS if s.startswith(f"{name}:")]
    names = {}
    exec("from mtl_course import meta", names)
    run([PREAMBLE], names)
    torch.manual_seed(0)
    names["J"] = torch.randn(3, 9, dtype=torch.float64)
    names["G"] = names["J"] @ names["J"].T
    assert run([section], names) >= 1


def test_each_section_on_another_library_is_of_that_form():
    for name in OTHERS:
        [section] = [s for s in SECTIONS if s.startswith(f"{name}:")]
        blocks = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
        made = [re.findall(r"^(ours|theirs) = ", block, re.M) for block in blocks]
        assert made and [pair[0] for pair in made] in (
            ["ours", "theirs"],
            ["theirs", "ours", "theirs", "ours"],
        )
        for block in blocks:
            compile(block, name, "exec")
            assert max(map(len, block.split("\n"))) <= 72


def test_the_tests_that_it_names_exist():
    named = re.findall(r"`(tests/\S+\.py)`|`(test_\w+)`", PAGE)
    file, found = None, []
    for path, test in named:
        file = path or file
        if test:
            found.append((file, test))
    assert len(found) >= 15
    for path, test in found:
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.M), test


def test_the_calls_in_the_table_of_adapters_do_what_it_says():
    peft = pytest.importorskip("peft")
    x = torch.randn(5, 4)

    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))

    ours = transfer.add_lora(net(), "0", 2, 4.0, name="one")
    transfer.add_lora(ours, "0", 2, 4.0, name="two")
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["0"])
    theirs = peft.get_peft_model(net(), config, adapter_name="one")
    theirs.add_adapter("two", config)
    layer, other = ours[0], theirs.base_model.model[0]
    for name, size in (("one", 0.5), ("two", -0.3)):
        nn.init.constant_(layer.B[name], size)
        nn.init.constant_(other.lora_B[name].weight, size)
        other.lora_A[name].weight.data.copy_(layer.A[name])
    plain = net()(x)
    for name in ("one", "two"):
        transfer.use_lora(ours, name)
        theirs.set_adapter(name)
        assert (ours(x) - plain).abs().max() > 0.01
        torch.testing.assert_close(ours(x), theirs(x))
        state = peft.get_peft_model_state_dict(theirs, adapter_name=name)
        stored = transfer.lora_state(ours, name)
        torch.testing.assert_close(
            list(state.values()), [stored["0.A"], stored["0.B"]], check_stride=False
        )
    transfer.merge_lora(ours)
    theirs.merge_adapter()
    torch.testing.assert_close(layer.base.weight, other.base_layer.weight)
    transfer.unmerge_lora(ours)
    theirs.unmerge_adapter()
    torch.testing.assert_close(layer.base.weight, other.base_layer.weight)
    transfer.use_lora(ours, None)
    with theirs.disable_adapter():
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours(x), plain)
    config = peft.LoraConfig(r=2, target_modules=["0"], modules_to_save=["1"])
    head = peft.get_peft_model(net(), config).base_model.model[1]
    assert any(p.requires_grad for p in head.parameters())
    with pytest.raises(ValueError, match="matches no"):
        transfer.add_lora(net(), "trunk.*", 2)
