"""Any trunk, any pattern, any kind of input: all of them train, and go on from a checkpoint.

Five trunks (MLP, CNN, ResNet, GRU, Transformer) on real tables, images, series and texts, below
every pattern of chapter 4, with a weighting of the losses or a balancing of the gradients. Each
model is stopped half way and goes on in a fresh one; then it is better than the best constant on
rows that neither training nor validation has seen.
"""

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pytest
import torch
import torchvision
from data_tools import load_or_skip
from torch import nn

from mtl_course.data import Columns, Sequences, Table, pad, text_ids
from mtl_course.multitask import (
    CGC,
    DWA,
    MTAN,
    PLE,
    CrossStitch,
    EqualWeights,
    GeometricMean,
    GradNorm,
    MMoE,
    Network,
    OwnTrunks,
    Parallel,
    Penalised,
    Shared,
    Uncertainty,
    cagrad,
    evaluate_tasks,
    fit_tasks,
    imtl_g,
    mgda,
    parameter_groups,
    pcgrad,
    sharing,
    upgrad,
)
from mtl_course.networks import (
    GRU,
    LSTM,
    LastState,
    TableEmbedding,
    TaskTokens,
    Transformer,
    WordPiece,
    cnn,
    mlp,
    resnet,
    vocabulary,
)
from mtl_course.training import classification

pytestmark = pytest.mark.slow

K = 16  # features of a task
PIECES, PLACES = 600, 32


# ---------------------------------------------------------------------------------------- real data
@dataclass
class Rows:
    """Training, validation and test rows of one kind of input, with labels of two tasks."""

    train: Table
    validation: Table
    test: Table


def parts(x, targets, sizes, kind=Table) -> Rows:
    """Parts of these sizes, in an order that is always the same."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return Rows(
        *(
            kind(x[rows], {task: y[rows] for task, y in targets.items()})
            for rows in order[: sum(sizes)].split(sizes)
        )
    )


@cache
def people() -> tuple[Rows, Columns]:
    """Tables: income and marriage from age, years at school, work and sex."""
    adult = load_or_skip("adult")
    names, x = np.array(adult.names), adult.x[:2000]
    columns = {"age": x[:, 0], "school": x[:, 1]}
    for column in ("workclass", "occupation", "gender"):
        places = np.flatnonzero(np.char.startswith(names, column))
        columns[column] = np.where(x[:, places].any(1), x[:, places].argmax(1), -1)
    reader = Columns(columns, ["age", "school"], ["workclass", "occupation", "gender"])
    married = np.char.startswith(adult.marital_names[adult.marital[:2000]], "Married-civ")
    targets = {
        "income": torch.tensor(adult.income[:2000]),
        "married": torch.tensor(married).long(),
    }
    return parts(torch.from_numpy(reader(columns)), targets, [800, 400, 800]), reader


@cache
def digits() -> Rows:
    """Images: which digit, and whether it has a loop."""
    digits = load_or_skip("digits")
    y = torch.tensor(digits.y)
    targets = {"digit": y, "loop": torch.isin(y, torch.tensor([0, 6, 8, 9])).long()}
    return parts(torch.tensor(digits.x)[:, None] / 16, targets, [600, 300, 600])


@cache
def vowels() -> Rows:
    """Series: who speaks, and whether the first coefficient falls more than it usually does."""
    vowels = load_or_skip("japanese_vowels")
    series = [row[:length] for row, length in zip(vowels.x, vowels.length, strict=True)]
    x = pad(series)
    rise = torch.tensor([row[-1, 0] - row[0, 0] for row in series])
    targets = {
        "speaker": torch.tensor(vowels.speaker),
        "falls": (rise < rise.median()).long(),
    }
    return parts(x, targets, [320, 120, 200], Sequences)


@cache
def reviews() -> Rows:
    """Texts: which department, and whether five stars or at most two."""
    reviews = load_or_skip("reviews")
    rating = reviews.rating
    rows = np.concatenate([np.flatnonzero(chosen)[:1400] for chosen in (rating <= 2, rating == 5)])
    rows = np.random.RandomState(0).permutation(rows)
    texts = reviews.text[rows].tolist()
    tokens = WordPiece(vocabulary(texts[:1800], PIECES))
    targets = {
        "department": torch.tensor(reviews.department[rows]),
        "pleased": torch.tensor(rating[rows] == 5).long(),
    }
    return parts(text_ids(texts, tokens, PLACES), targets, [1800, 300, 600], Sequences)


# ---------------------------------------------------------------------------------------- any trunk
def table_trunk(k):
    reader = people()[1]
    embedding = TableEmbedding(reader.numbers, reader.levels, width=4)
    return nn.Sequential(embedding, *mlp([embedding.features, k]))


# name -> (rows, width -> trunk with so many features, epochs, learning rate)
TRUNKS = {
    "MLP": (lambda: people()[0], table_trunk, 8, 0.01),
    "CNN": (digits, partial(cnn, 8, (8,)), 6, 0.01),
    "ResNet": (digits, lambda k: resnet((1,), (k,), in_channels=1), 6, 0.02),
    "GRU": (vowels, lambda k: LastState(GRU(12, k)), 10, 0.02),
    "Transformer": (
        reviews,
        lambda k: Transformer(
            nn.Embedding(PIECES, k), k, layers=1, hidden=k, longest=PLACES, dropout=0.1
        ),
        5,
        0.005,
    ),
}
# other inputs for a trunk, and another trunk
MORE = {
    "LSTM": (vowels, lambda k: LastState(LSTM(12, k)), 8, 0.02),
    "GRU of torch": (vowels, lambda k: LastState(nn.GRU(12, k, batch_first=True)), 6, 0.02),
    "GRU on texts": (reviews, lambda k: LastState(GRU(k, k), nn.Embedding(PIECES, k)), 4, 0.01),
    "Transformer on series": (
        vowels,
        lambda k: Transformer(nn.Linear(12, k), k, layers=1, hidden=k, longest=PLACES),
        6,
        0.02,
    ),
}


# -------------------------------------------------------------------------------------- any pattern
def shared(trunk, tasks):
    return Shared(trunk(K), tasks)


def own_trunks(trunk, tasks):
    return OwnTrunks({task: trunk(K) for task in tasks})


def cross_stitch(trunk, tasks):
    return CrossStitch({task: [trunk(K), mlp([K, K])] for task in tasks})


def mtan(trunk, tasks):
    masks = {task: [gate(trunk, K), nn.Linear(2 * K, K)] for task in tasks}
    return MTAN([trunk(K), mlp([K, K])], masks)


def mmoe(trunk, tasks):
    return MMoE([trunk(K), trunk(K)], {task: gate(trunk, 2) for task in tasks})


def ple(trunk, tasks):
    first = CGC(
        {task: [trunk(K)] for task in tasks},
        [trunk(K)],
        {task: gate(trunk, 2) for task in tasks},
        gate(trunk, len(tasks) + 1),
    )
    second = CGC(
        {task: [mlp([K, K])] for task in tasks},
        [mlp([K, K])],
        {task: nn.Linear(K, 2) for task in tasks},
    )
    return PLE([first, second])


def gate(trunk, outputs):
    """A gate reads the input as a small trunk does."""
    return nn.Sequential(trunk(4), nn.Linear(4, outputs))


def task_tokens(trunk, tasks):
    return TaskTokens(trunk(K), tasks, width=K)


# pattern -> a weighting for it, made from the pattern
PATTERNS = {
    shared: lambda pattern: GradNorm(2),
    own_trunks: lambda pattern: Penalised(lambda: 1e-3 * pattern.spread()),
    cross_stitch: lambda pattern: Uncertainty([False, False]),
    mtan: lambda pattern: DWA(),
    mmoe: lambda pattern: GeometricMean(),
    ple: lambda pattern: EqualWeights(),
}
METHODS = dict(zip(TRUNKS, (upgrad, mgda, pcgrad, cagrad, imtl_g), strict=True))
# A pattern for each trunk whose interrupted run is held against one in a single go.
AT_ONCE = set(zip(TRUNKS, (ple, cross_stitch, mtan, mmoe, shared), strict=True))


# ----------------------------------------------------------------------------------- they all train
def run(trunk, pattern, checkpoint, *, epochs=None, seed=0, balance=None):
    """Model, history and rows of one run, which the checkpoint, a file or None, may have begun."""
    rows, make, all_epochs, rate = (TRUNKS | MORE)[trunk]
    rows = rows()
    tasks = {task: classification(task) for task in rows.train.targets}
    torch.manual_seed(seed)
    heads = {task: nn.Linear(K, int(rows.train.targets[task].max()) + 1) for task in tasks}
    model = Network(pattern(make, tasks), Parallel(heads))
    combine = balance or PATTERNS.get(pattern, lambda _: EqualWeights())(model.pattern)
    groups = model.parameters() if balance else parameter_groups(model, combine, weight_decay=0.0)
    history = fit_tasks(
        model, tasks, rows.train, rows.validation, torch.optim.Adam(groups, lr=rate), combine,
        epochs=epochs or all_epochs, batch=32, patience=99, progress=False, checkpoint=checkpoint,
    )  # fmt: skip
    return model, tasks, history, rows


def check(trunk, pattern, tmp_path, balance=None):
    """It goes on from a checkpoint, and is better than the best constant for each task."""
    _, _, first, _ = run(trunk, pattern, tmp_path / "run.pt", epochs=2, balance=balance)
    model, tasks, history, rows = run(trunk, pattern, tmp_path / "run.pt", seed=1, balance=balance)
    assert history.train[:2] == first.train and len(history.train) > 2, "it went on"
    if balance or (trunk, pattern) in AT_ONCE:
        assert run(trunk, pattern, None, balance=balance)[2] == history, "as if never stopped"
    losses, _ = evaluate_tasks(model, tasks, rows.test)
    for task, (_, y) in rows.test.whole().targets.items():
        shares = y.bincount() / len(y)
        constant = -torch.xlogy(shares, shares).sum()  # the best one knows the test labels
        assert losses[task] < 0.98 * constant, f"{task}: {losses[task]:.3f}, {constant:.3f}"


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("trunk", TRUNKS)
def test_every_trunk_trains_below_every_pattern(trunk, pattern, tmp_path):
    check(trunk, pattern, tmp_path)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_every_trunk_trains_with_balanced_gradients(trunk, tmp_path):
    check(trunk, shared, tmp_path, METHODS[trunk])


# In four epochs a last state alone does not learn to remember a text: see the task tokens below.
@pytest.mark.parametrize("trunk", [trunk for trunk in MORE if trunk != "GRU on texts"])
def test_a_trunk_takes_other_inputs(trunk, tmp_path):
    check(trunk, shared, tmp_path)


@pytest.mark.parametrize("trunk", ["Transformer", "Transformer on series", "GRU on texts"])
def test_task_tokens_are_a_pattern_too(trunk, tmp_path):
    check(trunk, task_tokens, tmp_path)


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p is not shared])
def test_balancing_asks_for_one_trunk(pattern, tmp_path):
    with pytest.raises(TypeError, match="has no `trunk` and `heads`"):
        run("MLP", pattern, None, balance=upgrad)


# ------------------------------------------------------------------------- a trunk of a user's own
def test_a_trunk_of_your_own_joins_in_the_five_lines_of_the_docstring(monkeypatch):
    lines = [line for line in sharing.__doc__.split("\n") if line.startswith("    ")]
    assert 5 <= len(lines) <= 6, "five lines and a call"
    plain = torchvision.models.resnet18  # no download
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: plain())
    names = vars(sharing) | {"torchvision": torchvision, "x": torch.randn(2, 3, 32, 32)}
    exec("\n".join(line.strip() for line in lines), names)
    shapes = {task: list(y.shape) for task, y in names["model"](names["x"]).items()}
    assert shapes == {"left": [2, 10], "right": [2, 10]}
