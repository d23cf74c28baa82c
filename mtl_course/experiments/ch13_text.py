"""Chapter 13, a pretrained encoder of sentences: LoRA beside full fine-tuning, from few labels.

The task is to tell how positive a tweet is, as people rated it. The network is all-MiniLM-L6-v2,
22.6 million weights. Three ways from it to the task: features that stay as they are and a linear
probe on them, trained to the end; LoRA on every layer's query and value; and every weight. Needs no
Jupyter.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from .. import data
from ..networks.cost import parameters
from ..networks.sentence_encoder import SentenceEncoder, WordPiece, encode, minilm
from ..records.pieces import kept
from ..transfer.lora import add_lora
from .common import seeded

PROBE, LORA, FULL = "probe", "LoRA r=4", "full copy"
UPDATED = ("layers.*.query", "layers.*.value")


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment, and what every method may try.

    Args:
        labels: rated tweets to tune on.
        held_out: tweets for validation and for the test.
        length: tokens of the longest tweet; what is longer is cut.
        steps: of Adam.
        batch: tweets per step.
        rank: of the updates.
        head_rate: of the head, whatever the method; it starts from zero.
        rates: method -> rates of the encoder's weights that it may try.
        strengths: of the probe's pull to zero, as scikit-learn's Ridge has it.
    """

    labels: int = 200
    held_out: tuple[int, int] = (300, 1000)
    length: int = 32
    steps: int = 40
    batch: int = 16
    rank: int = 4
    head_rate: float = 1e-2
    rates: Mapping[str, tuple[float, ...]] = field(
        default_factory=lambda: {LORA: (3e-3, 1e-2, 3e-2), FULL: (5e-5, 1.5e-4, 5e-4)}
    )
    strengths: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


@cache
def tweets(length: int) -> tuple[SentenceEncoder, Tensor, Tensor]:
    """The encoder as it came, tokens int64 [4200, length] of the tweets, and ratings [4200]."""
    files, rated = data.load("minilm"), data.load("vader")
    rows = np.flatnonzero(np.array(rated.domain) == list(rated.domain_names).index("tweets"))
    ids = WordPiece(files.vocabulary)([str(rated.text[row]) for row in rows], length)
    return minilm(files), ids, torch.from_numpy(np.array(rated.rating)[rows]).float()


class Rater(nn.Module):
    """An encoder, and a head that gives one number; the head starts from zero."""

    def __init__(self, encoder: SentenceEncoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """Ratings [B] of tweets, int64 [B, L]."""
        return self.head(self.encoder(ids))[:, 0]


class Study:
    """An encoder, and tweets of three parts that share none.

    Args:
        plan: sizes.
        seed: of the split, of LoRA's first weights and of the batches.
        source: encoder, tokens int64 [N, L] and ratings [N]; None takes `tweets`.
    """

    def __init__(
        self, plan: Plan, seed: int, source: tuple[SentenceEncoder, Tensor, Tensor] | None = None
    ):
        self.plan, self.seed = plan, seed
        self.encoder, self.ids, rating = source or tweets(plan.length)
        order = torch.randperm(len(rating), generator=torch.Generator().manual_seed(seed))
        sizes = plan.labels, *plan.held_out
        if sum(sizes) > len(rating):
            raise ValueError(f"The plan needs {sum(sizes)} tweets; there are {len(rating)}.")
        ends = torch.as_tensor(np.cumsum(sizes))
        self.train, self.validation, self.test, _ = order.tensor_split(ends)
        # In units of the labels that may be seen.
        self.y = (rating - rating[self.train].mean()) / rating[self.train].std()

    def explained(self, predictions: Tensor, rows: Tensor) -> float:
        """R2: share of the squared error of the training labels' mean that is gone."""
        y = self.y[rows]
        return 1 - float((predictions - y).square().sum() / y.square().sum())

    def probe(self) -> dict:
        """A linear probe, trained to the end, on the features as they came."""
        parts = self.train, self.validation, self.test
        train, validation, test = (encode(self.encoder, self.ids[rows]) for rows in parts)
        found = {"validation": [], "test": []}
        for strength in self.plan.strengths:
            fit = Ridge(alpha=strength).fit(train.double().numpy(), self.y[self.train].numpy())
            for name, x, rows in (
                ("validation", validation, self.validation),
                ("test", test, self.test),
            ):
                predicted = torch.from_numpy(fit.predict(x.double().numpy())).float()
                found[name].append(self.explained(predicted, rows))
        best = int(np.argmax(found["validation"]))
        return {
            "trained": self.encoder.width + 1,
            "strength": self.plan.strengths[best],
            "test": found["test"][best],
            "validation by strength": found["validation"],
        }

    def prepared(self, method: str) -> Rater:
        """A copy of the encoder with a head, of which the method's weights want gradients.

        No method drops anything out: LoRA's frozen layers would not, and a full copy is treated
        alike.
        """
        model = Rater(copy.deepcopy(self.encoder))
        if method == LORA:
            seeded(lambda: add_lora(model.encoder, UPDATED, self.plan.rank), self.seed)
        return model.eval()

    def tuned(self, method: str, rate: float) -> Rater:
        """The encoder after some steps of a method, at one rate of its weights.

        Both rates rise over the first tenth of the steps and fall to zero over the second half.
        """
        plan, model = self.plan, self.prepared(method)
        weights = [p for p in model.encoder.parameters() if p.requires_grad]
        groups = [
            {"params": weights, "lr": rate},
            {"params": list(model.head.parameters()), "lr": plan.head_rate},
        ]
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(1.0, 10 * (step + 1) / plan.steps, 2 * (1 - step / plan.steps)),
        )
        order = torch.Generator().manual_seed(self.seed)
        for _ in range(plan.steps):
            rows = self.train[torch.randperm(plan.labels, generator=order)[: plan.batch]]
            ids = self.ids[rows]
            ids = ids[:, : int((ids != 0).sum(1).max())]
            loss = (model(ids) - self.y[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return model

    @torch.no_grad()
    def score(self, model: Rater, rows: Tensor) -> float:
        """R2 of a network on some tweets."""
        return self.explained(model.head(encode(model.encoder, self.ids[rows]))[:, 0], rows)

    def searched(self, method: str) -> dict:
        """A method at the rate that is best on validation tweets; only that one is tested."""
        found, best = [], None
        for rate in self.plan.rates[method]:
            model = self.tuned(method, rate)
            found.append(self.score(model, self.validation))
            if found[-1] == max(found):
                best = rate, model
        rate, model = best
        return {
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "rate": rate,
            "test": self.score(model, self.test),
            "validation by rate": found,
        }


def one_method(
    plan: Plan,
    method: str,
    seed: int,
    source: tuple[SentenceEncoder, Tensor, Tensor] | None = None,
) -> dict:
    """A method on the split of one seed, as plain JSON."""
    study = Study(plan, seed, source)
    return study.probe() if method == PROBE else study.searched(method)


def run_text(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
    source: tuple[SentenceEncoder, Tensor, Tensor] | None = None,
) -> dict:
    """How positive tweets are, from few rated ones: R2 of three methods. Plain JSON.

    Args:
        seeds: of the splits.
        report: takes a line of progress.
        plan: sizes; None takes those of the record.
        source: encoder, tokens and ratings; None takes the packaged ones.

    Returns:
        "parameters" of the encoder, "labels", "rates" by method, and "seeds": per seed, what
        `Study.probe` and `Study.searched` give, by method.
    """
    plan, rows = plan or Plan(), []
    for seed in seeds:
        row = {}
        for method in (PROBE, LORA, FULL):
            key = f"{plan}, {method}, seed {seed}"
            row[method] = kept(key, one_method, plan, method, seed, source)
        rows.append(row)
        report(f"seed {seed}: " + ", ".join(f"{m} {row[m]['test']:.3f}" for m in row))
    encoder = (source or tweets(plan.length))[0]
    return {
        "parameters": parameters(encoder),
        "labels": plan.labels,
        "rates": {method: list(rates) for method, rates in plan.rates.items()},
        "seeds": rows,
    }
