"""Several processes give what one gives: losses, weights, checkpoints. None outlives a fault."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import distributed_runs as runs
import pytest
import torch
from torch import nn

from mtl_course.data import Batch, Inputs, Table
from mtl_course.multitask.backward import balanced_backward_in_parts
from mtl_course.training import launch, mean_gradients, process_mean, world
from mtl_course.training.distributed import _in_contact, require_mean


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def one():
    return runs.every_kind()


@pytest.fixture(scope="module")
def two(folder):
    """What each of two processes came by; all of it in one launch, which takes some seconds."""
    for name, run in runs.STORED.items():
        run(f"{folder}/one 0 {name}.pt", 2)
    return launch(runs.all_of_it, 2, str(folder))


def require_same(a, b, tolerance=1e-9):
    """The numbers of two runs, up to the rounding of float64; which epoch was best, exactly."""
    assert a["state"].keys() == b["state"].keys()
    for name, value in a["state"].items():
        torch.testing.assert_close(b["state"][name], value, rtol=tolerance, atol=tolerance)
    assert a["history"]["best_epoch"] == b["history"]["best_epoch"]
    assert flat(a["history"]) == pytest.approx(flat(b["history"]), rel=tolerance, abs=tolerance)


def flat(history):
    """All numbers of a history, in order."""
    if isinstance(history, dict):
        history = list(history.values())
    return [n for part in history for n in flat(part)] if isinstance(history, list) else [history]


# ------------------------------------------------------------------------------ the same as one
def test_the_processes_know_their_places(two):
    assert [process["world"] for process in two] == [(0, 2, "cpu", True), (1, 2, "cpu", False)]


@pytest.mark.parametrize("name", runs.names())
def test_two_processes_give_what_one_gives(name, one, two):
    """At the same global batch, though shares are unequal and some have no row or label."""
    require_same(one[name], two[0]["runs"][name])


@pytest.mark.parametrize("name", [name for name in runs.names() if name != "gradnorm"])
def test_parts_in_turn_in_two_processes_give_what_one_gives_at_once(name, one, two):
    require_same(one[name], two[0]["in parts"][name])


@pytest.mark.parametrize("name", ["sum", "famo", "upgrad", "separate", "one task"])
def test_parts_in_turn_in_one_process(name, one):
    require_same(one[name], runs.every_kind(accumulate=2, only=name)[name])


def test_the_processes_have_the_same_bits(two):
    for kind in ("runs", "in parts"):
        for name, run in two[0][kind].items():
            other = two[1][kind][name]
            assert all(torch.equal(v, other["state"][k]) for k, v in run["state"].items()), name
            assert flat(run["history"]) == flat(other["history"]), name


def test_a_loop_by_hand_averages_over_rows(one, two):
    """Five rows here, two there; a parameter that one process uses; one that none does."""
    whole = runs.by_hand()
    for process in two:
        for name in ("trunk.0.weight", "heads.size.bias"):
            torch.testing.assert_close(process["by hand"][name], whole[name])
        assert process["by hand"]["heads.rare.bias"].item() == pytest.approx(5 / 7)
        assert process["by hand"]["heads.kind.bias"] is None


def test_validation_is_divided_and_one_process_shows_the_bar(two):
    """Seven rows, at the start and after each of two epochs."""
    assert [process["validated"] for process in two] == [3 * 4, 3 * 3]
    assert [process["bar"] for process in two] == [True, False]


# ------------------------------------------------------------------------------------- checkpoints
@pytest.mark.parametrize("name", runs.STORED)
def test_a_checkpoint_goes_on_with_another_number_of_processes(name, two, folder, tmp_path):
    uninterrupted = runs.STORED[name](tmp_path / "whole.pt", 5)
    require_same(uninterrupted, two[0]["from one"][name])  # 1 -> 2
    require_same(uninterrupted, two[1]["from one"][name])
    require_same(uninterrupted, runs.STORED[name](f"{folder}/two 0 {name}.pt", 5))  # 2 -> 1
    # The first process wrote and read for both.
    assert not [*folder.glob("*.part"), *folder.glob("two 1*"), *folder.glob("one 1*")]


# --------------------------------------------------------------------------------------- refusals
REFUSED = {
    "norm": ("ValueError", "norm 'trunk.1'.*GroupNorm"),
    "data": ("ValueError", "Process 1 differs from process 0 in its training data"),
    "length": ("ValueError", "Process 1 differs from process 0 in its training data"),
    "seed": ("ValueError", r"Process 1 differs from process 0 in its seed \(1, not 0\)"),
    "epochs": ("ValueError", r"in its epochs \(3, not 2\)"),
    "weights": ("ValueError", "in its weights of the model.*seed before you build the model"),
    "loss": ("ValueError", "The loss is not a mean over rows"),
    "rows": ("ValueError", "No process has a row"),
    "rate": ("FloatingPointError", "'size'.*learning rate of 1e[+]200 in epoch 1, step"),
    "disk": ("FileExistsError", "/dev/null/x.pt could not be written"),
    "gradnorm": ("ValueError", "GradNorm looks at the gradient of every task.*accumulate=1"),
    "accumulate": ("ValueError", "accumulate is 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_divided_is_refused_in_every_process(name, two):
    kind, sentence = REFUSED[name]
    for process in two:
        assert process["refused"][name][0] == kind
        assert re.search(sentence, process["refused"][name][1], re.DOTALL)


def test_one_process_is_refused_parts_that_meet_in_a_norm():
    model = runs.network(middle=lambda: nn.BatchNorm1d(6))
    train, optimizer = runs.table(9, rare=1.0), torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"norm 'trunk\.1'"):
        runs.fit_tasks(model, runs.TASKS, train, train, optimizer, accumulate=2)


def test_a_mean_over_rows_is_told_from_what_is_none():
    outputs, y = torch.tensor([[0.0], [1.0], [5.0]]), torch.zeros(3, 1)
    require_mean("The loss", nn.functional.mse_loss, outputs, y)
    require_mean("The loss", lambda p, t: (p - t).max(), outputs[:1], y[:1])  # nothing to divide
    with pytest.raises(ValueError, match="The loss is not a mean over rows: 5 over all"):
        require_mean("The loss", lambda p, t: (p - t).max(), outputs, y)


# ------------------------------------------------------------------------------------------ faults
def gone(pid):
    """Whether there is no such process, or only what is left of it for its parent to read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_a_killed_process_ends_the_run_and_leaves_a_whole_checkpoint(tmp_path):
    with pytest.raises(ConnectionError, match=r"Process 1 of 2 was ended by SIGKILL"):
        launch(runs.mortal, 2, str(tmp_path), 1000, True, timeout=300)
    since = time.time() - (tmp_path / "mortal.pt").stat().st_mtime
    assert since < 30, f"the kill came right after this file: {since:.0f} seconds to the end"
    pids = [int((tmp_path / f"pid {rank}").read_text()) for rank in (0, 1)]
    assert all(map(gone, pids)) and os.getpid() not in pids
    # the other one knew within a moment, and said so
    assert "Process 0 of 2 has lost contact" in (tmp_path / "said 0").read_text()
    # two epochs are in the file, and nothing else is there
    assert not list(tmp_path.glob("*.part"))
    saved = torch.load(tmp_path / "mortal.pt", weights_only=True)
    assert len(saved["history"]["train"]) == 2
    resumed = launch(runs.mortal, 1, str(tmp_path), 4)[0]
    (tmp_path / "mortal.pt").unlink()
    whole = runs.mortal(str(tmp_path), 4)
    assert all(torch.allclose(whole[k], resumed[k], rtol=1e-9) for k in whole)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(tmp_path, how):
    """As when a notebook's kernel is killed, or interrupted by Ctrl-C."""
    # A shell's background job ignores interrupts, and its children with it; a notebook does not.
    heard = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = "from distributed_runs import *; launch(sleeps, 2, sys.argv[1])"
    code = f"{heard}; from mtl_course.training import launch; {code}"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        for _ in range(1200):
            if len(pids := list(tmp_path.glob("pid *"))) == 2 or parent.poll() is not None:
                break
            time.sleep(0.1)
        assert len(pids) == 2
        parent.send_signal(how)
        assert parent.wait(timeout=60) == -how
    finally:
        parent.kill()
        parent.wait()
    numbers = [int(path.read_text()) for path in pids]
    for _ in range(200):
        if all(map(gone, numbers)):
            break
        time.sleep(0.1)
    assert all(map(gone, numbers))


@pytest.mark.slow
def test_an_error_of_one_process_is_that_of_the_call():
    with pytest.raises(KeyError, match="the mistake") as caught:
        launch(runs.raises, 2, 1)
    assert "In process 1 of 2" in caught.value.__notes__[0]
    assert "in raises" in caught.value.__notes__[0]


@pytest.mark.slow
def test_a_process_that_leaves_is_named_and_not_the_one_that_waits_for_it():
    with pytest.raises(RuntimeError, match="SystemExit: 3") as caught:
        launch(runs.leaves, 2, 1)
    assert "In process 1 of 2" in caught.value.__notes__[0]


@pytest.mark.slow
def test_torchrun_gives_what_one_process_gives(tmp_path, one):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    if sys.platform != "linux":
        del environment["GLOO_SOCKET_IFNAME"]
    done = subprocess.run(
        [*command, runs.__file__, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        run = torch.load(tmp_path / f"{rank} of 2.pt", weights_only=True)
        require_same(runs.several_tasks(runs.balancing.upgrad, runs.table(22)), run)


# ------------------------------------------------------------------------------------- one process
def test_one_process_is_this_one():
    threads = torch.get_num_threads()
    assert launch(os.getpid, 1) == [os.getpid()] and torch.get_num_threads() == threads
    with world() as here:
        assert (here.rank, here.size, here.first) == (0, 1, True)
    layer = nn.Linear(1, 1)
    mean_gradients(layer.parameters())
    with pytest.raises(ValueError, match="No process has a row"):
        mean_gradients(layer.parameters(), rows=0)
    assert layer.weight.grad is None
    tensor = torch.ones(2)
    assert process_mean([tensor])[0] is tensor


def test_launch_says_what_it_cannot_start():
    with pytest.raises(ValueError, match="processes is 0"):
        launch(len, 0, "x")
    with pytest.raises((pickle.PicklingError, AttributeError)):
        launch(lambda: 1, 2)


def test_a_function_of_a_notebook_is_refused(monkeypatch):
    def train():
        return 1

    train.__module__ = "__main__"
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ValueError, match=r"'train' stands in the notebook.*put it into a module"):
        launch(train, 2)


# ----------------------------------------------------------------------------- parts of a batch
@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def test_parts_have_every_row_and_label_once(count):
    x = torch.arange(11.0)[:, None]
    some = torch.tensor([0, 3, 4, 9])
    targets = {
        "every": (slice(None), 10 * x),
        "middle": (slice(4, 9), 10 * x[4:9]),
        "some": (some, 10 * x[some]),
    }
    batch, seen = Batch(x, targets), {name: [] for name in targets}
    rows = []
    for number in range(count):
        part = batch.part(number, count)
        assert len(part.x)
        rows += part.x.flatten().tolist() if part.targets or number < len(x) else []
        for name, (places, labels) in part.targets.items():
            assert len(labels) and torch.equal(10 * part.x[places], labels)
            seen[name] += labels.flatten().tolist()
    assert sorted(rows) == x.flatten().tolist()
    for name, (_, labels) in targets.items():
        assert sorted(seen[name]) == labels.flatten().tolist()


def test_parts_of_inputs_of_several_kinds():
    x = Inputs({"a": torch.arange(5), "b": torch.arange(2)})
    part = Batch(
        x, {"a": (slice(None), torch.arange(5)), "b": (slice(None), torch.arange(2))}
    ).part(2, 3)
    assert part.x["a"].tolist() == [2] and part.targets["a"][1].tolist() == [2]
    assert len(part.x["b"]) == 1 and "b" not in part.targets


def test_the_gram_matrix_is_that_of_the_sums_of_the_parts():
    theta = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    g = torch.Generator().manual_seed(0)
    J = torch.randn(2, 2, 3, generator=g).double()  # part, task, parameter
    seen = []

    def weigh(G):
        seen.append(G)
        return G.new_tensor([0.3, 0.7])

    def parts():
        for part in J:
            yield (
                theta * 1,
                {t: lambda z, row=row: row @ z for t, row in zip("ab", part, strict=True)},
            )

    done = balanced_backward_in_parts(parts(), [theta], weigh)
    total = J.sum(0)
    torch.testing.assert_close(done.gram, total @ total.T)
    torch.testing.assert_close(theta.grad, 0.3 * total[0] + 0.7 * total[1])
    assert len(seen) == 1 and done.tasks == ("a", "b")
    with pytest.raises(ValueError, match="no part"):
        balanced_backward_in_parts([], [theta], weigh)


def test_a_table_is_divided_as_its_batches_are():
    """The rows of a step are those of one process, whoever takes them."""
    table = Table(torch.arange(10.0)[:, None], {"y": torch.arange(10.0)[:, None]})
    batch = next(table.batches(4, torch.Generator().manual_seed(0)))
    parts = [batch.part(number, 2).x for number in (0, 1)]
    assert torch.equal(torch.stack(parts, 1).flatten(), batch.x.flatten())


def test_an_error_that_is_no_lost_contact_stays_what_it_is():
    with pytest.raises(RuntimeError, match=r"^Invalid scalar type$"), _in_contact(0, 2):
        raise RuntimeError("Invalid scalar type")
    lost = RuntimeError("[/gloo/transport/tcp/pair.cc:1] Connection closed by peer. More.")
    with (
        pytest.raises(ConnectionError, match=r"lost contact.*\(Connection closed"),
        _in_contact(0, 2),
    ):
        raise lost
