"""The benchmark of a training step: its ways do the same work, its ratios are those of its times,
and its tables are whole.
"""

import json

import pytest
import torch
from benchmark_tools import load

CPU = torch.device("cpu")


@pytest.fixture
def bench():
    return load("training_step")


def in_this_process(bench, monkeypatch):
    """DataLoaders without worker processes, whose start takes seconds."""
    plain = bench.DataLoader
    monkeypatch.setattr(
        bench, "DataLoader", lambda data, batch, **_: plain(data, batch, shuffle=True)
    )


def test_every_way_computes_the_same_gradients(bench):
    size = bench.SIZES["quick"]
    x, y = (v[:8] for v in bench.dataset(size, CPU))
    gradients = {}
    for name, options in bench.WAYS.items():
        step = bench.Step(size, CPU, **options | {"compiled": False})
        loss = step.gradients(x, y)
        gradients[name] = torch.cat([p.grad.flatten() for p in step.model.parameters()])
        assert loss.dtype == torch.float32 and step.model[0].stem[0].weight.is_contiguous(
            memory_format=step.layout
        )
    exact = gradients["eager, float32"]
    for name, found in gradients.items():
        assert (found - exact).norm() / exact.norm() < (0.1 if "bfloat16" in name else 1e-4), name
        assert "bfloat16" not in name or not torch.equal(found, exact), "rounded"


def test_compiled_ways_are_compiled(bench, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model: compiled.append(model))
    for name, options in bench.WAYS.items():
        bench.Step(bench.SIZES["quick"], CPU, **options)
        assert len(compiled) == name.startswith("compiled")
        compiled.clear()


@pytest.mark.parametrize("way", [0, 1, 2])
def test_every_source_gives_every_image_once(bench, way, monkeypatch):
    in_this_process(bench, monkeypatch)
    x, y = torch.arange(20.0).view(20, 1, 1, 1).expand(20, 3, 32, 32).contiguous(), torch.arange(20)
    start = list(bench.sources(x, y, 8, augmented=False).values())[way]
    first, second = (list(start()) for _ in range(2))
    assert [len(labels) for _, labels in first] == [8, 8, 4]
    for epoch in (first, second):
        assert sorted(torch.cat([labels for _, labels in epoch]).tolist()) == list(range(20))
        assert all(torch.equal(images[:, 2, 5, 7].long(), labels) for images, labels in epoch)
    assert not torch.equal(first[0][1], second[0][1])


def test_augmented_batches_are_changed_and_keep_their_labels(bench, monkeypatch):
    in_this_process(bench, monkeypatch)
    x = torch.arange(1.0, 41.0).view(40, 1, 1, 1) * torch.linspace(1, 1.4, 32)
    x, y = x.expand(40, 3, 32, 32).contiguous(), torch.arange(40)
    for name, start in bench.sources(x, y, 40, augmented=True).items():
        ((images, labels),) = start()
        changed = (images != x[labels]).flatten(1).any(1)
        assert images.shape == x.shape and 0.8 < changed.float().mean() <= 1, name
        assert torch.allclose(images.amax((1, 2, 3)), 1.4 * (labels + 1.0), rtol=0.1), name


def test_ratios_are_medians_over_rounds_and_the_first_round_is_left_out(bench):
    ticks = iter(
        [0, 100, 0, 100, 0, 1, 0, 3, 0, 2, 0, 4, 0, 3, 0, 9]
    )  # two ways, a warm-up and three rounds
    found = bench.interleaved(
        {"a": lambda: None, "b": lambda: None}, 3, lambda: next(ticks), images=60
    )
    assert found["a"] == {"seconds": 2, "images_per_second": 30, "ratio": 1}
    assert found["b"] == {"seconds": 4, "images_per_second": 15, "ratio": 3}


def test_a_machine_without_a_compiler_is_said_in_the_table(bench, monkeypatch, capsys, tmp_path):
    in_this_process(bench, monkeypatch)

    def compiler_is_missing(model):
        def fail(*_):
            raise RuntimeError(
                "InvalidCxxCompiler: No working C++ compiler found in"
                " torch._inductor.config.cpp.cxx"
            )

        model.register_forward_pre_hook(fail)

    monkeypatch.setattr(torch.nn.Module, "compile", compiler_is_missing)
    monkeypatch.setattr(bench, "fastest_device", lambda: CPU)
    threads = torch.get_num_threads()
    try:
        bench.main(["--quick", "--out", str(tmp_path / "step.json")])
    finally:
        torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    assert (
        shown.count("no C++ compiler") == 3
        and "DataLoader, 2 workers" in shown
        and "eager, bfloat16, channels last" in shown
    )
    written = json.loads((tmp_path / "step.json").read_text())
    assert (
        written["provenance"]["command"] == "python benchmarks/training_step.py"
        and written["provenance"]["device"]
    )
    steps, batches = written["results"]["steps"], written["results"]["batches"]
    assert steps["eager, float32"]["ratio"] == 1 and steps["compiled, float32"] == {
        "missing": "no C++ compiler"
    }
    assert list(batches) == ["batches alone", "augmented", "augmented, with a step"]
    assert all(cell["images_per_second"] > 0 for case in batches.values() for cell in case.values())


def test_why_a_way_is_missing(bench):
    assert bench.why_not(RuntimeError("Cannot find a working triton installation.")) == "no Triton"
    assert bench.why_not(RuntimeError("x" * 200)) == "RuntimeError('" + "x" * 46
