"""Chapter 11, a pretrained encoder of sentences, several heads: frozen, then its top fine-tuned.

Three tasks over reviews with few labels. The network is all-MiniLM-L6-v2. Its lower five layers
stay as they are, so their outputs are computed once; the last is trained with a head for each task,
all tasks together or each for itself. Beside it stand linear probes on the frozen features.
Needs no Jupyter.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from .. import data
from ..networks.sentence_encoder import SentenceEncoder, WordPiece, minilm
from ..networks.transformer import attention_mask, mean_of
from ..records.pieces import kept
from .ch11_tasks import TASKS, class_logits, labels_of, score, task_loss
from .common import seeded

FROZEN, TOGETHER, ALONE = "frozen, probes", "together", "each alone"


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        pool: reviews that all splits are drawn from, themselves drawn once.
        length: tokens of the longest of them: they are read whole.
        labels: reviews to train on.
        validation: reviews that choose a rate.
        frozen_layers: from below.
        steps: of Adam.
        batch: reviews per step.
        rates: of the upper layers, that every way may try.
        head_rate: of the heads.
        strengths: of the probes' pull to zero.
    """

    pool: int = 1400
    length: int = 32
    labels: int = 300
    validation: int = 300
    frozen_layers: int = 5
    steps: int = 30
    batch: int = 16
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    head_rate: float = 1e-2
    strengths: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Top(nn.Module):
    """The upper layers of an encoder and a head for each task, upon the lower layers' outputs."""

    def __init__(self, encoder: SentenceEncoder, frozen: int, tasks: Sequence[str]):
        super().__init__()
        self.layers = copy.deepcopy(encoder.layers[frozen:])
        self.heads = nn.ModuleDict({n: nn.Linear(encoder.width, TASKS[n]) for n in tasks})
        for head in self.heads.values():
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def features(self, states: Tensor, there: Tensor) -> Tensor:
        """Features [B, width] from states [B, L, width] of words that are there, bool [B, L]."""
        for layer in self.layers:
            states = layer(states, attention_mask(there))
        return mean_of(states, there)

    def forward(self, states: Tensor, there: Tensor) -> dict[str, Tensor]:
        """Task -> outputs [B, classes]."""
        z = self.features(states, there)
        return {name: head(z) for name, head in self.heads.items()}


@cache
@torch.no_grad()
def states_of(
    pool: int, length: int, frozen: int
) -> tuple[SentenceEncoder, Tensor, Tensor, dict[str, Tensor]]:
    """The encoder; what its lower layers give for some reviews [pool, L, width]; where; labels."""
    files, rows = data.load("minilm"), data.load("reviews")
    tokens, texts = WordPiece(files.vocabulary), [str(text) for text in rows.text]
    # a word has a piece at least, and most have one
    short = torch.tensor([row for row, text in enumerate(texts) if len(text.split()) < length - 2])
    short = short[torch.randperm(len(short), generator=torch.Generator().manual_seed(0))]
    short = short[: 2 * pool]
    ids = tokens([texts[row] for row in short.tolist()], length + 1)
    whole = ((ids != 0).sum(1) <= length).nonzero().flatten()[:pool]
    chosen, ids = short[whole], ids[whole, :length]
    encoder = minilm(files)
    lower = copy.deepcopy(encoder)
    lower.layers = lower.layers[:frozen]
    states = torch.cat([lower.each_word(part) for part in ids.split(64)])
    targets = {name: y[chosen] for name, y in labels_of(rows).items()}
    return encoder, states, ids != 0, targets


@torch.no_grad()
def guesses(model: Top, states: Tensor, there: Tensor) -> dict[str, np.ndarray]:
    """Task -> outputs for many reviews, [N] or [N, classes]."""
    pairs = zip(states.split(100), there.split(100), strict=True)
    rows = [model(*pair) for pair in pairs]
    outputs = {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]}
    return {name: y[:, 0] if y.shape[1] == 1 else y for name, y in outputs.items()}


def tune(
    plan: Plan,
    encoder: SentenceEncoder,
    states: Tensor,
    there: Tensor,
    targets: Mapping[str, Tensor],
    tasks: Sequence[str],
    rate: float,
    seed: int,
) -> Top:
    """The top after some steps for these tasks, on rows that all may be trained on.

    The rates rise over the first tenth of the steps and fall to zero over the second half.
    """
    model = seeded(lambda: Top(encoder, plan.frozen_layers, tasks), seed).eval()
    optimizer = torch.optim.Adam(
        [
            {"params": list(model.layers.parameters()), "lr": rate},
            {"params": list(model.heads.parameters()), "lr": plan.head_rate},
        ]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1.0, 10 * (k + 1) / plan.steps, 2 * (1 - k / plan.steps))
    )
    g = torch.Generator().manual_seed(seed)
    for _ in range(plan.steps):
        rows = torch.randperm(len(states), generator=g)[: plan.batch]
        outputs = model(states[rows], there[rows])
        loss = sum(task_loss(name, outputs[name], targets[name][rows]) for name in tasks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def one_encoder(plan: Plan, seed: int) -> dict:
    """Probes, one network for all tasks, and one for each, on the split of one seed."""
    encoder, states, there, targets = states_of(plan.pool, plan.length, plan.frozen_layers)
    order = torch.randperm(plan.pool, generator=torch.Generator().manual_seed(seed))
    train = order[: plan.labels]
    validation = order[plan.labels : plan.labels + plan.validation]
    test = order[plan.labels + plan.validation :]
    stars = targets["stars"]
    targets = targets | {"stars": (stars - stars[train].mean()) / stars[train].std()}
    on = {name: y[train] for name, y in targets.items()}

    def judged(outputs, rows):
        return {n: score(n, y, targets[n][rows].numpy()) for n, y in outputs.items()}

    def searched(tasks):
        best = None
        for rate in plan.rates:
            model = tune(plan, encoder, states[train], there[train], on, tasks, rate, seed)
            scores = judged(guesses(model, states[validation], there[validation]), validation)
            value = float(np.mean(list(scores.values())))
            if best is None or value > best[0]:
                best = value, rate, model
        _, rate, model = best
        return rate, judged(guesses(model, states[test], there[test]), test)

    with torch.no_grad():
        z = Top(encoder, plan.frozen_layers, ()).features(states, there).double().numpy()
    found = {FROZEN: {}, "rates": {}}
    for name, y in targets.items():
        y, best = y.numpy(), None
        for strength in plan.strengths:
            if name == "stars":
                guess = Ridge(alpha=strength).fit(z[train], y[train]).predict
            else:
                model = LogisticRegression(C=10 / strength, max_iter=300)
                guess = class_logits(model.fit(z[train], y[train].astype(int)), TASKS[name])
            value = score(name, guess(z[validation]), y[validation])
            if best is None or value > best[0]:
                best = value, guess
        found[FROZEN][name] = score(name, best[1](z[test]), y[test])
    found["rates"][TOGETHER], found[TOGETHER] = searched(list(TASKS))
    found[ALONE] = {}
    for name in TASKS:
        found["rates"][name], alone = searched([name])
        found[ALONE] |= alone
    return found


def run_encoder(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Three tasks on a pretrained encoder, for every seed. Plain JSON.

    Args:
        seeds: of splits and batches.
        report: takes a line of progress.
        plan: sizes; None takes those of the record.

    Returns:
        "seeds": what `one_encoder` gives, for each.
    """
    plan, rows = plan or Plan(), []
    for seed in seeds:
        rows.append(kept(f"{plan}, seed {seed}", one_encoder, plan, seed))
        ways = (FROZEN, TOGETHER, ALONE)
        line = [f"{way} {np.mean(list(rows[-1][way].values())):.3f}" for way in ways]
        report(f"seed {seed}, mean over tasks: {', '.join(line)}")
    return {"seeds": rows}
