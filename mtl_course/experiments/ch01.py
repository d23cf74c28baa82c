"""Chapter 1: test R2 against examples a task, for single-task, pooled and joint learning. Needs no
Jupyter.

Two experiments: schools as tasks with linear models, where all seeds and all strengths are one
batched solve; and eight river gauges as tasks with small networks, where all networks train at once
under `torch.func.vmap`.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from .. import data
from ..multitask.linear import mean_regularised, normal_equations, ridge
from ..multitask.sharing import HardSharing
from ..networks.trunks import mlp
from ..runtime import device as fastest

SIZES = (3, 6, 12, 24, 36)  # training pupils a school
VALIDATION = 12  # pupils a school that choose the strength
PUPIL = (
    "standLRT",
    "girl",
    "vr_top",
    "vr_bottom",
)  # columns of exam that differ between the pupils of one school
STRENGTHS = torch.logspace(-1, 4, 11, dtype=torch.float64)  # what every method may choose from
# of joint learning: 0, but for columns that repeat the bias, such as those of all years of a table
MU = 1e-6
CONTROLS = ("as they are", "rotated", "re-dealt", "random labels")
RATES = (5e-3, 2e-2)  # learning rates that every network may choose from
STEPS, EVERY, BATCH = (
    250,
    25,
    50,
)  # Adam steps, steps between two looks at validation data, examples a step


# --------------------------------------------------------------------------- schools, linear models
def deal(
    x: np.ndarray, y: np.ndarray, task: np.ndarray, seed: int, largest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The pupils of every school that is large enough, in random order and padded to one length.

    x: [N, d], y: [N], task: [N] school numbers; largest: training pupils a school at most. A school
        needs `VALIDATION` pupils more, and as many again for the test. Returns x [T, P, d], y [T,
        P] and which pupils are real [T, P].
    """
    draw = np.random.RandomState(seed)
    rows = [draw.permutation(np.flatnonzero(task == t)) for t in np.unique(task)]
    rows = [r for r in rows if len(r) >= largest + 2 * VALIDATION]
    longest = max(map(len, rows))
    padded = torch.tensor(
        np.stack([np.pad(r, (0, longest - len(r)), constant_values=-1) for r in rows])
    )
    return torch.tensor(x)[padded], torch.tensor(y)[padded], padded >= 0


def compare(
    x,
    y,
    task,
    seeds: Sequence[int],
    sizes: Sequence[int] = SIZES,
    control: str = "as they are",
    device=None,
) -> dict:
    """Test R2 of three methods after training on n pupils of every school: dict of method ->
    [seeds, sizes], and ``"... on training"``.

    x: [N, d], y: [N], task: [N] as `data.load` gives them. Of each school the first n pupils of a
        random order train, `VALIDATION` pupils choose the strength (each method from the same
        `STRENGTHS`), the rest test. Features and target are standardised with the training pupils.
        R2 is over all test pupils together. control, one of `CONTROLS`:
      rotated: every school's features are turned by its own random rotation, which no single-task
          ridge can notice; re-dealt: pupils are dealt anew to schools of the same sizes, so that
          all schools are alike; random labels: the targets are permuted over all pupils.
    """
    if control not in CONTROLS:
        raise ValueError(f"control must be one of {', '.join(CONTROLS)}; it is {control!r}.")
    device = device or fastest()
    tables = []
    for seed in seeds:
        draw = np.random.RandomState([seed, 1])
        tables.append(
            deal(
                x,
                draw.permutation(y) if control == "random labels" else y,
                draw.permutation(task) if control == "re-dealt" else task,
                seed,
                max(sizes),
            )
        )
    x, y, real = (
        torch.stack(part).to(device) for part in zip(*tables, strict=True)
    )  # [S, T, P, d], [S, T, P], [S, T, P]
    if control == "rotated":
        turn = np.stack(
            [
                np.stack([_rotation(seed, t, x.shape[-1]) for t in range(x.shape[1])])
                for seed in seeds
            ]
        )
        turn = torch.tensor(turn, device=device)
    held = real.clone()
    held[..., : max(sizes) + VALIDATION] = False
    choose = slice(max(sizes), max(sizes) + VALIDATION)
    strengths = STRENGTHS.to(device)
    scores = {name: [] for name in ("single", "pooled", "joint")}
    fits = {f"{name} on training": [] for name in scores}
    for n in sizes:
        mean, spread = x[:, :, :n].mean((1, 2), keepdim=True), x[:, :, :n].std((1, 2), keepdim=True)
        z = (x - mean) / spread.clamp_min(1e-9)
        if control == "rotated":
            z = z @ turn
        z = torch.cat([z, torch.ones_like(z[..., :1])], dim=-1)  # the bias
        t = y - y[:, :, :n].mean((1, 2), keepdim=True)
        a, b = normal_equations(z[:, :, :n], t[:, :, :n])  # [S, T, d, d], [S, T, d]
        weights = {
            "single": ridge(a, b, strengths[:, None, None]),
            "pooled": ridge(a.sum(1), b.sum(1), strengths[:, None]).unsqueeze(2),
            "joint": mean_regularised(a, b, strengths[:, None], MU)[1],
        }  # [strengths, S, T (or 1), d]
        for name, w in weights.items():
            error = (torch.einsum("stpd,gstd->gstp", z, w.expand(-1, -1, z.shape[1], -1)) - t) ** 2
            best = error[..., choose].mean((2, 3)).argmin(0)  # [S]
            error = error[best, torch.arange(len(best), device=device)]  # [S, T, P]
            scores[name].append(_r2(error, t, held))
            trained = torch.zeros_like(held)
            trained[..., :n] = True
            fits[f"{name} on training"].append(_r2(error, t, trained))
    return {
        name: torch.stack(values, dim=1).cpu().numpy() for name, values in (scores | fits).items()
    }


def _rotation(seed: int, task: int, d: int) -> np.ndarray:
    """A random orthogonal matrix [d, d], its own for every seed and task (QR of a Gaussian matrix,
    signs made uniform).
    """
    q, r = np.linalg.qr(np.random.RandomState([seed, task, 2]).normal(size=(d, d)))
    return q * np.sign(np.diag(r))


def _r2(error: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    """R2 of each seed: squared errors [S, T, P], targets [S, T, P], and which of them count [S, T,
    P]. Returns [S].
    """
    count = rows.sum((1, 2))
    mean = ((target * rows).sum((1, 2)) / count)[:, None, None]
    return 1 - (error * rows).sum((1, 2)) / ((target - mean) ** 2 * rows).sum((1, 2))


def exam(columns: Sequence[str] = PUPIL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and task of the Exam data with these columns, as `compare` takes them."""
    table = data.load("exam")
    names = [str(name) for name in table.names]
    return (
        np.array(table.x)[:, [names.index(c) for c in columns]],
        np.array(table.y),
        np.array(table.task),
    )


# --------------------------------------------------------------------------- river gauges, networks
def river() -> tuple[Tensor, Tensor]:
    """x [N, 64] and y [N, 8] of rf1, float32, without the hours in which a gauge gave no reading or
    an impossible one.

    The second gauge reads 78.9 once; the largest of its other values is 5.6.
    """
    table = data.load("rf1")
    x, y = (np.concatenate([table[f"{part}_train"], table[f"{part}_test"]]) for part in "xy")
    good = np.isfinite(x).all(1) & np.isfinite(y).all(1) & (y[:, 1] < 20)
    return torch.tensor(x[good], dtype=torch.float32), torch.tensor(y[good], dtype=torch.float32)


def train_networks(
    x: Tensor,
    y: Tensor,
    seeds: Sequence[int],
    n: int,
    groups: Sequence[Sequence[int]],
    width: int,
    rate: float,
    held=(250, 1000),
):
    """Train one network for each seed and each group of targets, all at once, on n random rows.

    x: [N, d], y: [N, K]; groups: the targets of each network, all of one length; held: rows for
        validation and for the test. Each network stops at the step that is best on its own
        validation rows. Returns that validation error [S, groups] and the test R2 of every target
        [S, groups, targets a group].
    """
    validation, test = held
    nets, tables = [], []
    for seed in seeds:
        order = torch.tensor(np.random.RandomState(seed).permutation(len(x)))[
            : n + validation + test
        ]
        train, choose, final = order[-n:], order[:validation], order[validation : validation + test]
        z = ((x - x[train].mean(0)) / x[train].std(0).clamp_min(1e-6)).clamp(-5, 5)
        t = (y - y[train].mean(0)) / y[train].std(0).clamp_min(1e-6)
        for group in groups:
            torch.manual_seed(1000 * seed + group[0])
            nets.append(
                HardSharing(mlp([x.shape[1], width]), {"targets": nn.Linear(width, len(group))}).to(
                    x.device
                )
            )
            tables.append(
                [
                    part
                    for rows in (train, choose, final)
                    for part in (z[rows], t[rows][:, list(group)])
                ]
            )
    x_train, y_train, x_choose, y_choose, x_test, y_test = (
        torch.stack(part) for part in zip(*tables, strict=True)
    )
    parameters, _ = stack_module_state(nets)
    skeleton = copy.deepcopy(nets[0]).to("meta")
    forward = vmap(lambda p, rows: functional_call(skeleton, p, (rows,))["targets"])
    optimizer = torch.optim.Adam(parameters.values(), lr=rate)
    lowest = x.new_full((len(nets),), float("inf"))
    best = {name: p.detach().clone() for name, p in parameters.items()}
    draw = np.random.RandomState(0)
    for step in range(1, STEPS + 1):
        rows = torch.tensor(draw.permutation(n)[:BATCH], device=x.device)
        loss = ((forward(parameters, x_train[:, rows]) - y_train[:, rows]) ** 2).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                error = ((forward(parameters, x_choose) - y_choose) ** 2).mean((1, 2))
                for name, p in parameters.items():
                    best[name][error < lowest] = p[error < lowest]
            lowest = torch.minimum(lowest, error)
    with torch.no_grad():
        r2 = 1 - ((forward(best, x_test) - y_test) ** 2).mean(1) / y_test.var(1, unbiased=False)
    shape = len(seeds), len(groups)
    return lowest.view(shape), r2.view(*shape, -1)


def networks(
    x: Tensor, y: Tensor, seeds: Sequence[int], n: int, width: int, joint: bool
) -> np.ndarray:
    """Mean test R2 over the targets after training on n rows, one value a seed: eight networks, or
    one with eight outputs.

    Both may try every learning rate of `RATES` and keep the one with the lowest validation error.
    """
    targets = list(range(y.shape[1]))
    runs = [
        train_networks(x, y, seeds, n, [targets] if joint else [[t] for t in targets], width, rate)
        for rate in RATES
    ]
    best = torch.stack([error.mean(1) for error, _ in runs]).argmin(0)
    return np.array([runs[best[s]][1][s].mean().item() for s in range(len(seeds))])


# ------------------------------------------------------------------------------- both, for a record
def run(profile: str, seeds: Sequence[int]) -> dict:
    """Both experiments as plain lists: ``cpu`` as the chapter shows them; ``gpu`` with all sizes,
    more widths, and ILEA where it is there.
    """
    device = fastest()
    sizes = list(SIZES) if profile == "cpu" else [2, 3, 4, 6, 8, 12, 16, 24, 30, 36]
    tables = {"exam": exam()}
    if profile == "gpu":
        try:
            ilea = data.load("school_ilea")
            tables["school_ilea"] = np.array(ilea.x), np.array(ilea.y), np.array(ilea.task)
        except data.DataError:
            pass  # the ILEA schools are an extra: a Colab machine has no data root
    results = {"sizes": sizes, "schools": {}, "river": {}}
    for name, table in tables.items():
        results["schools"][name] = {
            control: {
                method: r2.tolist()
                for method, r2 in compare(*table, seeds, sizes, control, device).items()
            }
            for control in CONTROLS
        }
    x, y = (part.to(device) for part in river())
    for n in (50, 500) if profile == "cpu" else (25, 50, 100, 200, 500, 1000, 2000):
        for width in (32,) if profile == "cpu" else (8, 32, 128):
            single, joint = (
                networks(x, y, seeds, n, width, joint).tolist() for joint in (False, True)
            )
            results["river"][f"{n} hours, width {width}"] = {"single": single, "joint": joint}
    return results
