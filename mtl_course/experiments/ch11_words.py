"""Chapter 11, names word by word beside the feeling of a sentence, in one trunk.

A token-level task: which words of a tweet are a name, and of what (the set "wnut17")? Two
sentence-level ones: how positive is another tweet, or a sentence about a film (the set "vader")?
The trunk, one Transformer layer, reads the frozen features of a pretrained encoder, word by word.
Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..networks.sentence_encoder import SentenceEncoder, WordPiece, minilm
from ..networks.transformer import EncoderLayer, attention_mask, mean_of
from ..records.pieces import kept
from .ch11_tasks import class_logits
from .common import seeded

NAMES = "names"
RATED = ("tweets", "films")
TASKS = (NAMES, *RATED)
PROBES, ALONE, TOGETHER = "frozen, probes", "each alone", "one trunk"
WAYS = (PROBES, ALONE, TOGETHER)


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        pool: texts of each task that all splits are drawn from, drawn once.
        words: of the longest of them; they are read whole.
        labels: texts of each task to train on; each set contains the smaller ones.
        validation: texts of each task that choose settings.
        width: features per word of the trunk.
        rates: of Adam, that every network may try.
        steps: of Adam.
        looks: how often validation looks, evenly spread.
        batch: texts of each task per step.
        strengths: of the probes' pull to zero.
    """

    pool: int = 1200
    words: int = 28
    labels: tuple[int, ...] = (100, 400)
    validation: int = 200
    width: int = 48
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    steps: int = 200
    looks: int = 4
    batch: int = 16
    strengths: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Texts:
    """The texts of one task, as frozen features of their words.

    Args:
        z: [N, W, 384], 0 after the end.
        there: bool [N, W], False after the end.
        y: tags int64 [N, W], -1 after the end, or ratings [N].
    """

    z: Tensor
    there: Tensor
    y: Tensor


# ------------------------------------------------------------------------------------ entities
def entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """The names in a text: (first word, one after the last, kind), by tags B-, I- and O.

    An "I-" that goes on no name of its kind begins one.

    Example:
        >>> sorted(entities(["B-person", "I-person", "O", "B-person", "I-group"]))
        [(0, 2, 'person'), (3, 4, 'person'), (4, 5, 'group')]
    """
    spans, start, kind = set(), 0, ""
    for place, tag in enumerate([*tags, "O"]):
        head, _, what = tag.partition("-")
        if kind and (head != "I" or what != kind):
            spans.add((start, place, kind))
            kind = ""
        if head != "O" and not kind:
            start, kind = place, what
    return spans


def f1_by_entity(guessed: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> float:
    """F1 over the names of many texts: right are those whose words and kind are all right.

    Example:
        >>> f1_by_entity([["B-person", "O", "B-group"]], [["B-person", "I-person", "B-group"]])
        0.5
    """
    pairs = [(entities(a), entities(b)) for a, b in zip(guessed, true, strict=True)]
    right = sum(len(a & b) for a, b in pairs)
    return 2 * right / max(1, sum(len(a) + len(b) for a, b in pairs))


# ---------------------------------------------------------------------------------------- data
@torch.no_grad()
def word_features(
    encoder: SentenceEncoder, tokens: WordPiece, texts: Sequence[Sequence[str]], words: int
) -> Tensor:
    """Features [N, words, width] of texts given as words: the mean of each word's pieces."""
    z = torch.zeros(len(texts), words, encoder.width)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for some in (order[k : k + 64] for k in range(0, len(order), 64)):
        # a word alone has the pieces that it has in a text; "." stands for what has none
        counts = [[len(tokens.pieces(w)) for w in texts[row]] for row in some]
        longest = max(sum(row) for row in counts) + 2
        features = encoder.each_word(tokens([" ".join(texts[row]) for row in some], longest))
        for row, h, each in zip(some, features, counts, strict=True):
            for place, part in enumerate(h[1 : 1 + sum(each)].split(each)):
                z[row, place] = part.mean(0)
    return z


@cache
def texts_of(pool: int, words: int) -> tuple[dict[str, Texts], list[str]]:
    """The texts of each task, and the names of the tags.

    DataError without the data root, which has those with names.
    """
    named, rated, files = data.load("wnut17"), data.load("vader"), data.load("minilm")
    tokens, encoder = WordPiece(files.vocabulary), minilm(files)
    inside = np.array(named.part) == 0
    starts = np.flatnonzero(np.diff(np.array(named.text)[inside], prepend=-1))[1:]
    said = [[str(w) for w in row] for row in np.split(np.array(named.word)[inside], starts)]
    tags = np.split(np.array(named.tag)[inside], starts)

    def chosen(texts):
        """Rows of a pool of texts that are short enough and whose words all have pieces."""
        order = np.random.default_rng(0).permutation(len(texts)).tolist()
        fit = (r for r in order if len(texts[r]) <= words and all(map(tokens.pieces, texts[r])))
        return [row for row, _ in zip(fit, range(pool), strict=False)]

    def read(texts):
        there = torch.arange(words) < torch.tensor([len(row) for row in texts])[:, None]
        return word_features(encoder, tokens, texts, words), there

    some = chosen(said)
    z, there = read([said[row] for row in some])
    y = torch.full(there.shape, -1)
    y[there] = torch.from_numpy(np.concatenate([tags[row] for row in some]))
    tasks = {NAMES: (z, there, y)}
    for name in RATED:
        rows = np.flatnonzero(np.array(rated.domain) == list(rated.domain_names).index(name))
        texts = [str(rated.text[row]).split(" ") for row in rows]
        some = chosen(texts)
        ratings = torch.from_numpy(np.array(rated.rating)[rows[some]]).float()
        tasks[name] = *read([texts[row] for row in some]), ratings
    scale = z[there].std()
    found = {name: Texts(z / scale, there, y) for name, (z, there, y) in tasks.items()}
    return found, list(map(str, named.tag_names))


# ------------------------------------------------------------------------------------- networks
class Trunk(nn.Module):
    """A Transformer layer on the features of words, and a head for each task.

    Names are read from each word, ratings from the mean of the words.
    """

    def __init__(self, inputs: int, width: int, outputs: Mapping[str, int]):
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.layer = EncoderLayer(width, 2, 2 * width)
        self.heads = nn.ModuleDict({task: nn.Linear(width, n) for task, n in outputs.items()})

    def forward(self, task: str, z: Tensor, there: Tensor) -> Tensor:
        """Scores [B, W, tags] of each word, or ratings [B]."""
        h = self.layer(self.enter(z), attention_mask(there))
        if task == NAMES:
            return self.heads[task](h)
        return self.heads[task](mean_of(h, there))[:, 0]


def task_loss(task: str, output: Tensor, y: Tensor) -> Tensor:
    """A cross-entropy over the words that are there, or a squared error."""
    if task == NAMES:
        return F.cross_entropy(output[y >= 0], y[y >= 0])
    return F.mse_loss(output, y)


def score(task: str, output: Tensor, y: Tensor, tag_names: Sequence[str]) -> float:
    """F1 by entity of the names, from scores [N, W, tags]; R2 of ratings."""
    if task != NAMES:
        return float(1 - (output - y).square().mean() / y.var(unbiased=False))
    both = [
        [[tag_names[k] for k, true in zip(row, there, strict=True) if true >= 0] for row, there in
         zip(tags.tolist(), y.tolist(), strict=True)] for tags in (output.argmax(2), y)
    ]  # fmt: skip
    return f1_by_entity(*both)


class Study:
    """The texts of each task, split by a seed.

    Args:
        plan: sizes.
        labels: texts of each task to train on.
        seed: of splits, starts and batches.
        texts: as from `texts_of`.
        tag_names: the same.
    """

    def __init__(
        self,
        plan: Plan,
        labels: int,
        seed: int,
        texts: Mapping[str, Texts],
        tag_names: Sequence[str],
    ):
        self.plan, self.seed, self.texts, self.tag_names = plan, seed, texts, tag_names
        self.rows, self.y = {}, {}
        held = plan.validation + max(plan.labels)
        for number, (task, given) in enumerate(texts.items()):
            g = torch.Generator().manual_seed(3 * seed + number)
            order = torch.randperm(len(given.z), generator=g)
            known = order[plan.validation : held][:labels]
            parts = {"validation": order[: plan.validation], "train": known, "test": order[held:]}
            self.rows[task], y = parts, given.y
            self.y[task] = y if task == NAMES else (y - y[known].mean()) / y[known].std()

    @torch.no_grad()
    def judged(self, model: nn.Module, part: str) -> dict[str, float]:
        """Task -> score of a network on one part."""
        scores = {}
        for task in model.heads:
            given, rows = self.texts[task], self.rows[task][part]
            outputs = [model(task, given.z[r], given.there[r]) for r in rows.split(200)]
            scores[task] = score(task, torch.cat(outputs), self.y[task][rows], self.tag_names)
        return scores

    def network(self, tasks: Sequence[str]) -> dict:
        """One network for some tasks: its test scores, rate and step by its validation mean."""
        plan, best = self.plan, None
        sizes = {task: len(self.tag_names) if task == NAMES else 1 for task in tasks}
        inputs = self.texts[tasks[0]].z.shape[2]
        for rate in plan.rates:
            model = seeded(lambda: Trunk(inputs, plan.width, sizes), self.seed)
            optimizer = torch.optim.Adam(model.parameters(), rate)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, rate, total_steps=plan.steps, pct_start=0.1
            )
            g = torch.Generator().manual_seed(self.seed)
            for step in range(1, plan.steps + 1):
                loss = 0.0
                for task in tasks:
                    given, known = self.texts[task], self.rows[task]["train"]
                    some = known[torch.randint(len(known), (plan.batch,), generator=g)]
                    output = model(task, given.z[some], given.there[some])
                    loss = loss + task_loss(task, output, self.y[task][some])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                if step % (plan.steps // plan.looks) == 0:
                    value = float(np.mean(list(self.judged(model, "validation").values())))
                    if best is None or value > best[0]:
                        best = value, rate, step, self.judged(model, "test")
        return dict(zip(("rate", "step", "test"), best[1:], strict=True))

    def probe(self, task: str, strength: float) -> Callable[[Tensor], Tensor]:
        """Rows -> what a linear model on the frozen features says, trained to the end."""
        given, train = self.texts[task], self.rows[task]["train"]
        y = self.y[task][train]
        if task != NAMES:
            x = mean_of(given.z, given.there).double()
            model = Ridge(alpha=strength).fit(x[train], y)
            return lambda rows: torch.from_numpy(model.predict(x[rows])).float()
        x, true = given.z, y >= 0
        words = LogisticRegression(C=1 / strength, max_iter=100)
        guess = class_logits(words.fit(x[train][true], y[true]), len(self.tag_names))
        width = given.z.shape[1]
        return lambda rows: torch.from_numpy(
            guess(x[rows].flatten(0, 1).numpy()).reshape(len(rows), width, -1)
        )

    def probes(self) -> dict[str, float]:
        """Task -> test score of the probe whose strength is best in validation."""
        found = {}
        for task, y in self.y.items():
            rows, best = self.rows[task], None
            for strength in self.plan.strengths:
                said = self.probe(task, strength)
                value, test = (
                    score(task, said(rows[part]), y[rows[part]], self.tag_names)
                    for part in ("validation", "test")
                )
                if best is None or value > best[0]:
                    best = value, test
            found[task] = best[1]
        return found


def one_size(plan: Plan, labels: int, seed: int) -> dict:
    """Probes, each task alone, and all in one trunk, as plain JSON."""
    study = Study(plan, labels, seed, *texts_of(plan.pool, plan.words))
    results = {PROBES: study.probes(), ALONE: {}, "chosen": {}}
    joint = study.network(TASKS)
    results[TOGETHER] = joint.pop("test")
    results["chosen"][TOGETHER] = joint
    for task in TASKS:
        single = study.network([task])
        results[ALONE] |= single.pop("test")
        results["chosen"][task] = single
    return results


def run_words(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Names and ratings, for every seed. Plain JSON.

    Args:
        seeds: of splits, starts and batches.
        report: takes a line of progress.
        plan: sizes; None takes those of the record.

    Returns:
        "seeds": for each seed labels of each task -> what `one_size` gives.
    """
    plan, rows = plan or Plan(), []
    for seed in seeds:
        found = {}
        for n in plan.labels:
            found[str(n)] = kept(f"{plan}, {n} labels, seed {seed}", one_size, plan, n, seed)
            for way in WAYS:
                told = " ".join(f"{t} {found[str(n)][way][t]:.3f}" for t in TASKS)
                report(f"seed {seed}, {n} labels, {way}: {told}")
        rows.append(found)
    return {"seeds": rows}
