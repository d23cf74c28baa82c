"""The benchmarks: their ways do the same work, their ratios are those of their times.

And their tables are whole.
"""

import json
from dataclasses import replace

import pytest
import torch
from benchmark_tools import load

pytestmark = pytest.mark.slow

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
    # Two ways, a warm-up and three rounds.
    ticks = iter([0, 100, 0, 100] + [0, 1, 0, 3] + [0, 2, 0, 4] + [0, 3, 0, 9])
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


# ----------------------------------------------------------------------------------- one meta-step
@pytest.fixture
def meta_step():
    return load("meta_step")


@pytest.fixture
def double():
    """In single precision a rounding may turn a ReLU or the maximum of a pool.

    With it the gradient turns, too.
    """
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", ["MLP", "MLP, large", "ConvNet"])
def test_the_ways_of_a_meta_step_compute_the_same_gradients(meta_step, kind, double):
    """With fewer tasks and queries than are timed; every way sees the same ones."""
    case = meta_step.Case(kind, tasks=3, queries=2)
    equal = {
        "plain loop, MAML": (
            "meta_backward, MAML",
            "MAML, all tasks at once",
            "MAML, one task after the other",
        ),
        "plain loop, first order": ("meta_backward, first order",),
    }
    for first, others in equal.items():
        expected = meta_step.gradients(case, first)
        for way in others:
            difference = (meta_step.gradients(case, way) - expected).norm() / expected.norm()
            assert float(difference) < 1e-12, way
    for way in meta_step.WAYS if kind == "MLP" else ():
        assert meta_step.gradients(case, way).abs().sum() > 0


def test_meta_steps_are_compared_way_by_way_within_a_round(meta_step, monkeypatch):
    # Two ways, a warm-up and two rounds.
    ticks = iter([0, 100, 0, 100, 0, 1, 0, 3, 0, 2, 0, 4])
    monkeypatch.setattr(meta_step, "clock", lambda: next(ticks))
    assert meta_step.interleaved({"a": lambda: None, "b": lambda: None}, 2) == {
        "a": [1, 2],
        "b": [3, 4],
    }
    took = {way: [2.0, 6.0, 10.0] for way in meta_step.WAYS} | {
        meta_step.JOINT: [1.0, 1.0, 1.0],
        meta_step.LOOP: [4.0, 2.0, 30.0],
    }
    monkeypatch.setattr(meta_step, "interleaved", lambda ways, rounds: took)
    assert meta_step.measure("MLP", 3)["meta_backward, MAML"] == {
        "seconds": 6,
        "to joint": 6,
        "to loop": 0.5,
    }


def test_one_thread_is_timed_by_its_cpu_seconds_and_several_by_the_wall(meta_step, monkeypatch):
    monkeypatch.setattr(meta_step.time, "process_time", lambda: 1.0)
    monkeypatch.setattr(meta_step.time, "perf_counter", lambda: 2.0)
    for threads, seconds in ((1, 1.0), (2, 2.0)):
        monkeypatch.setattr(meta_step.torch, "get_num_threads", lambda n=threads: n)
        assert meta_step.clock() == seconds


def test_the_tables_of_a_meta_step_are_whole(meta_step, capsys, tmp_path, monkeypatch):
    asked = []
    cell = {"seconds": 0.01, "to joint": 1.0, "to loop": 0.5}
    rates = {"5 ways, 1 shot, bytes": {"drawn": 1234.0, "copied": 5678.0}}
    monkeypatch.setattr(
        meta_step, "measure", lambda kind, rounds: {way: dict(cell) for way in meta_step.WAYS}
    )
    monkeypatch.setattr(
        meta_step, "peak", lambda script, kind, way: asked.append((kind, way)) or 12.0
    )
    monkeypatch.setattr(meta_step, "draws", lambda rounds: rates)
    threads = torch.get_num_threads()
    try:
        meta_step.main(["--out", str(tmp_path / "meta.json")])
        assert len(set(asked)) == 3 * len(meta_step.MEMORY)
        meta_step.main(["--quick"])
        assert len(asked) == 3 * len(meta_step.MEMORY), "quick is without memory"
        shown = capsys.readouterr().out
        meta_step.main(["--quick", "--kind", "ConvNet"])
        alone = capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    assert "ConvNet, joint step 10.0 ms" in shown and "1,234           5,678" in shown
    assert "MLP, large (784-256-128-64-64-5)                2.00 times as fast" in shown
    assert "ConvNet, joint step" in alone and "MLP," not in alone and "1,234" not in alone
    written = json.loads((tmp_path / "meta.json").read_text())["results"]
    assert written["steps"]["MLP"]["meta_backward, MAML"]["MiB"] == 12 and written["draws"]


def test_memory_of_a_meta_step_is_measured(meta_step):
    size = 4 * sum(p.numel() for p in meta_step.Case("MLP").model.parameters()) / 2**20
    used = meta_step.peak(meta_step.__file__, "MLP", meta_step.LOOP)
    assert used > 2 * meta_step.TASKS * size, "the slopes and the parameters of each task"


def test_draws_of_episodes_are_timed_beside_their_copies(meta_step):
    """Twenty ways need twenty classes, five shots and fifteen queries twenty images of each."""
    rates = meta_step.draws(1, classes=20, images=20)
    assert len(rates) == 4 and all(
        rate["drawn"] > 0 and rate["copied"] > 0 for rate in rates.values()
    )


# ------------------------------------------------------------------------ fit_tasks and plain loops
@pytest.fixture
def loops():
    return load("fit_tasks")


def trained(loops, way, **options):
    model = loops.network(8)
    loops.WAYS[way](model, replace(loops.QUICK, **options))
    return model.state_dict()


@pytest.mark.parametrize("epochs", [1, 3])
def test_fit_tasks_and_the_plain_loop_end_at_the_same_weights(loops, epochs):
    ways = ("fit_tasks", "plain loop", "model taken apart")
    ours, plain, apart = (trained(loops, way, epochs=epochs) for way in ways)
    start = loops.network(8).state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in ours.items())
    assert all(torch.equal(value, apart[name]) for name, value in ours.items())
    assert not any(torch.equal(value, start[name]) for name, value in ours.items())


def test_both_loops_put_the_best_weights_back(loops, monkeypatch):
    """With steps of this size only the first epochs improve on the model as it came."""
    monkeypatch.setattr(loops, "optimizer", lambda m: torch.optim.SGD(m.parameters(), lr=0.9))
    histories = []
    fit_tasks = loops.fit_tasks
    monkeypatch.setattr(
        loops, "fit_tasks", lambda *args, **options: histories.append(fit_tasks(*args, **options))
    )
    ours, plain = (trained(loops, way, epochs=9) for way in ("fit_tasks", "plain loop"))
    assert 0 < histories[0].best_epoch < 9
    assert all(torch.equal(value, plain[name]) for name, value in ours.items())


def test_the_loader_loop_trains_on_every_row_once_per_epoch(loops):
    data, plan = loops.table(20, seed=0), replace(loops.QUICK, batch=8)
    epochs = loops.by_loader(data, plan)
    for _ in range(2):
        batches = list(epochs())
        assert [len(x) for x, _, _ in batches] == [8, 8, 4]
        rows = torch.cat([x for x, _, _ in batches])[:, 0]
        assert sorted(rows.tolist()) == sorted(data.x[:, 0].tolist())
        for x, size, kind in batches:
            assert torch.equal(kind, x[:, : loops.CLASSES].argmax(1)) and size.shape == (len(x), 1)


def test_the_ratios_of_the_loops_are_taken_within_a_round(loops, monkeypatch):
    rounds = [9, 9, 9, 9], [1, 2, 3, 1], [4, 4, 8, 2], [2, 6, 2, 3]
    ticks = iter([tick for took in rounds for end in took for tick in (0, end)])
    monkeypatch.setattr(loops.time, "process_time", lambda: next(ticks))
    monkeypatch.setattr(loops, "WAYS", dict.fromkeys(loops.WAYS, lambda model, plan: None))
    cells = loops.measure(4, replace(loops.QUICK, rounds=3))
    assert cells["plain loop"] == {"microseconds": 2e6 / 8, "ratio": [1, 1, 1]}
    assert cells["fit_tasks"] == {"microseconds": 4e6 / 8, "ratio": [1.5, 2, 2.5]}
    assert cells["DataLoader loop"]["ratio"] == [1.5, 2, 2.5]
    assert cells["model taken apart"]["ratio"] == [0.75, 1, 1.25]


def test_the_table_of_the_loops_is_whole(loops, capsys, tmp_path):
    threads = torch.get_num_threads()
    try:
        loops.main(["--quick", "--out", str(tmp_path / "loops.json")])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("width 4 ", "width 8 ", *loops.WAYS))
    written = json.loads((tmp_path / "loops.json").read_text())
    assert written["provenance"]["command"] == "python benchmarks/fit_tasks.py"
    assert written["results"].keys() == {"4", "8"}
    assert all(cell["microseconds"] > 0 for cell in written["results"]["8"].values())


# ------------------------------------------------------------------------------------------- LoRA
def test_lora_ways_do_the_same_work_and_ours_is_not_slower_than_pefts(capsys):
    bench = load("lora")
    assert bench.ways() == [bench.FULL, bench.OURS, bench.PEFT], "PEFT is in the test extra"
    for kind in bench.TARGETS:
        cases = {way: bench.Case(kind, way) for way in bench.ways()}
        assert cases[bench.OURS].count == cases[bench.PEFT].count < cases[bench.FULL].count / 10
        losses = [case.step() for case in cases.values()]
        assert losses == pytest.approx([losses[0]] * 3, rel=1e-5), "B is zero at first"
        cells = bench.measure(kind, 9)
        assert cells[bench.OURS]["over PEFT"] < 1.1, "equal, or faster"
        assert cells[bench.FULL]["ratio"] == 1.0


# ----------------------------------------------------------------------- attention, recurrent steps
def test_attention_and_recurrent_steps_by_hand_do_the_work_of_torchs():
    bench = load("attention")
    cases = [bench.attentions(32), bench.recurrents(bench.GRU, torch.nn.GRU, 9)]
    for ways in (*cases, bench.recurrents(bench.LSTM, torch.nn.LSTM, 9)):
        assert list(ways) == ["by hand", "fused"]
        hand, fused = (one() for one in ways.values())
        assert float(hand) == pytest.approx(float(fused), rel=1e-5)


def test_the_ratios_of_attention_are_taken_within_a_round(monkeypatch):
    bench = load("attention")
    rounds = [9, 9], [4, 2], [3, 9], [8, 2]  # the first warms up; then the order turns
    ticks = iter([tick for took in rounds for end in took for tick in (0, end)])
    monkeypatch.setattr(bench, "seconds", lambda: next(ticks))
    cell = bench.measure({"by hand": lambda: None, "fused": lambda: None}, 3)
    # rounds: fused 9, by hand 9; by hand 4, fused 2; fused 3, by hand 9; by hand 8, fused 2
    assert cell == {"by hand": 8e3, "fused": 2e3, "by hand / fused": 3.0}


# ---------------------------------------------------------------------------------------- loaders
def test_the_loaders_that_are_timed_give_every_row():
    bench = load("loaders")
    labels = {"kind": torch.arange(100)}
    rows = bench.Sequences(torch.ones(100, 5, dtype=torch.int64), labels)
    assert bench.epoch(rows) == 2 and bench.train(rows) == 500
    assert bench.median_seconds(lambda: None, 3) < 1e-3


@pytest.mark.parametrize("name", ["attention", "loaders"])
def test_their_tables_are_whole(name, capsys, tmp_path):
    bench, threads = load(name), torch.get_num_threads()
    try:
        bench.main(["--quick", "--out", str(tmp_path / "out.json")])
    finally:
        torch.set_num_threads(threads)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["provenance"]["command"] == f"python benchmarks/{name}.py"
    shown = capsys.readouterr().out
    assert all(case in shown for case in written["results"]) and len(written["results"]) >= 7
