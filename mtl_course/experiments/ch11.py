"""Chapter 11: one Transformer for several tasks over reviews, from few labels and many texts.

Three tasks read the same reviews of clothes: the stars (a number), whether the customer recommends
the piece (yes or no), and the department (six classes). Each has a task token that looks at the
words. The trunk begins from scratch or from masked words of other reviews, without their labels.
Beside it stand a bag of words (`one_seed`) and one network per task (`one_priority`).

Chapter 11's other experiments: `ch11_fusion` (emoji as pictures with names), and on a pretrained
encoder of sentences `ch11_encoder` (several heads), `ch11_turns` (priorities), `ch11_domains` (four
kinds of text) and `ch11_words` (names, word by word). Needs no Jupyter.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..multitask.sharing import Network, Parallel
from ..networks.sentence_encoder import WordPiece, vocabulary
from ..networks.transformer import TaskTokens, Transformer
from ..records.pieces import kept
from ..runtime import device as fastest
from .ch11_domains import run_domains
from .ch11_encoder import run_encoder
from .ch11_fusion import run_emoji, run_naming
from .ch11_tasks import TASKS, labels_of, score, task_loss
from .ch11_turns import run_turns
from .ch11_words import run_words
from .common import seeded

SCRATCH, MASKED = "scratch", "masked words"
JOINT, WORDS = "joint", "bag of words"


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        length: tokens of the longest review with labels; of longer ones the first so many are read
            for pretraining.
        pieces: of the vocabulary.
        width: features per word.
        layers: of the trunk.
        labels: reviews with labels to train on; each set contains the smaller ones.
        alone: labels where ways to share are compared with one network per task.
        validation: reviews that choose rate and stop.
        test: reviews that are scored once.
        masked: share of the words that pretraining asks for.
        pretrain_steps: of Adam, on reviews without labels.
        pretrain_batch: reviews per step.
        pretrain_rate: its highest rate.
        rates: that every start may try on the tasks.
        steps: of Adam on the tasks.
        looks: how often validation looks, evenly spread.
        batch: reviews per step.
        priority: weight of the other two tasks' losses beside that of "recommend".
    """

    length: int = 32
    pieces: int = 2500
    width: int = 48
    layers: int = 2
    labels: tuple[int, ...] = (100, 300, 1000)
    alone: int = 300
    validation: int = 300
    test: int = 1200
    masked: float = 0.2
    pretrain_steps: int = 1200
    pretrain_batch: int = 64
    pretrain_rate: float = 3e-3
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    steps: int = 100
    looks: int = 5
    batch: int = 32
    priority: float = 0.2


PLANS = {
    "cpu": Plan(),
    "gpu": Plan(
        length=96, width=256, layers=4, pretrain_steps=20_000, pretrain_batch=256, steps=600
    ),
}


# -------------------------------------------------------------------------------------- the reviews
@cache
def reviews(
    length: int, pieces: int, most: int | None = None
) -> tuple[Tensor, Tensor, dict[str, Tensor], list[str]]:
    """The first `most` reviews, all by default.

    Returns:
        Tokens int64 [N, length]; bool [N], True for a review that fits whole; task -> labels [N];
        and the pieces of the vocabulary, which comes from the texts alone.
    """
    rows = data.load("reviews")
    # a word is a piece at least: what comes later is cut anyway
    texts = [" ".join(str(text).split()[: length + 1]) for text in rows.text[:most]]
    names = vocabulary(texts, pieces)
    targets = {name: y[:most] for name, y in labels_of(rows).items()}
    ids = WordPiece(names)(texts, length + 1)
    whole = (ids != 0).sum(1) <= length
    ids = ids[:, :length].clone()
    ids[~whole, -1] = names.index("[SEP]")  # the end, also of a text that was cut
    return ids, whole, targets, names


@cache
def bags(pieces: int) -> object:
    """All reviews as bags of words: counts of one or two words, weighted by rarity, sparse."""
    texts = [str(text) for text in data.load("reviews").text]
    return TfidfVectorizer(ngram_range=(1, 2), min_df=5, sublinear_tf=True).fit_transform(texts)


def split(plan: Plan, whole: Tensor, seed: int) -> dict[str, Tensor]:
    """Rows "train" (the most labels), "validation" and "test", all of reviews that fit whole."""
    short = whole.nonzero().flatten()
    order = short[torch.randperm(len(short), generator=torch.Generator().manual_seed(seed))]
    held = plan.validation + plan.test
    return {
        "validation": order[: plan.validation],
        "test": order[plan.validation : held],
        "train": order[held : held + max(plan.labels)],
    }


# ------------------------------------------------------------------------------------- masked words
def mask_words(
    ids: Tensor, share: float, mask: int, pieces: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Texts with some words hidden, and where they were.

    Of the chosen places, 8 in 10 become the mask, 1 in 10 a random piece, and 1 in 10 stays, so
    that the network has to think about words it sees, too. Start, end and padding, the numbers
    below `mask`, are never chosen.

    Args:
        ids: int64 [B, L], padded with 0.
        share: of the words that are asked for.
        mask: number of the mask; smaller numbers are no words.
        pieces: of the vocabulary.
        generator: of the draws, on the CPU.

    Returns:
        Texts [B, L], and bool [B, L], True where the loss asks for the word.

    Source:
        Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
        Understanding", NAACL 2019, section 3.1.
    """
    draw = torch.rand(ids.shape, generator=generator).to(ids.device)
    kind = torch.rand(ids.shape, generator=generator).to(ids.device)
    random = torch.randint(mask + 1, pieces, ids.shape, generator=generator).to(ids.device)
    asked = (draw < share) & (ids >= mask)
    hidden = torch.where(asked & (kind < 0.8), mask, ids)
    return torch.where(asked & (kind >= 0.9), random, hidden), asked


def new_trunk(plan: Plan, pieces: int, seed: int) -> Transformer:
    """A freshly drawn trunk, whose words begin small.

    They are also the head that guesses masked words. With torch's own deviation of 1 its first
    logits would be so large that most of pretraining went into shrinking them.
    """

    def build():
        words = nn.Embedding(pieces, plan.width, padding_idx=0)
        nn.init.normal_(words.weight, std=0.05)
        return Transformer(
            words, plan.width, plan.layers, 2, hidden=2 * plan.width, longest=plan.length
        )

    return seeded(build, seed)


def pretrain(
    plan: Plan, ids: Tensor, pieces: list[str], seed: int = 0
) -> tuple[Transformer, float]:
    """A trunk that has guessed masked words, and the mean loss of its last hundred steps."""
    trunk = new_trunk(plan, len(pieces), seed).to(ids.device)
    bias = nn.Parameter(torch.zeros(len(pieces), device=ids.device))
    optimizer = torch.optim.Adam([*trunk.parameters(), bias], plan.pretrain_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.pretrain_rate, total_steps=plan.pretrain_steps
    )
    g, losses, mask = torch.Generator().manual_seed(seed), [], pieces.index("[MASK]")
    for _ in range(plan.pretrain_steps):
        rows = torch.randint(len(ids), (plan.pretrain_batch,), generator=g)
        hidden, asked = mask_words(ids[rows], plan.masked, mask, len(pieces), g)
        # the table of words is also the head: a word is guessed by how near its row is
        logits = trunk.each_word(hidden)[asked] @ trunk.embed.weight.T + bias
        loss = F.cross_entropy(logits, ids[rows][asked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return trunk, float(np.mean(losses[-100:]))


@cache
def pretrained(plan: Plan, device: str = "cpu") -> tuple[Transformer, float]:
    """The trunk of masked words that all seeds begin from, and its last loss.

    It has read the beginnings of the reviews that are too long to be labelled here, and so no text
    that any seed trains on, validates on or tests on.
    """
    ids, whole, _, pieces = reviews(plan.length, plan.pieces)
    return pretrain(plan, ids[~whole].to(device), pieces)


# ---------------------------------------------------------------------------------------- the tasks
@torch.no_grad()
def outputs_of(model: nn.Module, ids: Tensor) -> dict[str, np.ndarray]:
    """Task -> outputs for many reviews, [N] or [N, classes]."""
    rows = [model(part) for part in ids.split(250)]
    outputs = {name: torch.cat([row[name] for row in rows]).cpu().numpy() for name in rows[0]}
    return {name: y[:, 0] if y.shape[1] == 1 else y for name, y in outputs.items()}


def network(plan: Plan, trunk: Transformer, tasks: Sequence[str], seed: int) -> Network:
    """A copy of the trunk with a token and a head for each task."""
    heads = seeded(lambda: {n: nn.Linear(plan.width, TASKS[n]) for n in tasks}, seed)
    tokens = seeded(lambda: TaskTokens(copy.deepcopy(trunk), tasks, plan.width, heads=2), seed)
    return Network(tokens, Parallel(heads)).to(trunk.embed.weight.device)


def train(
    plan: Plan,
    trunk: Transformer,
    ids: Tensor,
    targets: Mapping[str, Tensor],
    rows: Tensor,
    validation: Tensor,
    rate: float,
    seed: int,
    weights: Mapping[str, float],
) -> dict:
    """One network at one rate. Task -> its best validation score and the network as it was then.

    Args:
        plan: sizes.
        trunk: where it starts; it stays as it is.
        ids: tokens of all reviews.
        targets: task -> labels of all reviews, the stars standardised.
        rows: to train on.
        validation: rows that say when each task was best.
        rate: the highest; it falls to zero.
        seed: of heads, tokens and batches.
        weights: task -> what its loss counts; these are the tasks.

    Returns:
        Task, and "all" for the mean over tasks -> (score, step, outputs' state).
    """
    model = network(plan, trunk, list(weights), seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=plan.steps, pct_start=0.1
    )
    g, best = torch.Generator().manual_seed(seed), {}
    for step in range(1, plan.steps + 1):
        some = rows[torch.randint(len(rows), (plan.batch,), generator=g)]
        outputs = model(ids[some])
        loss = sum(
            w * task_loss(name, outputs[name], targets[name][some]) for name, w in weights.items()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % (plan.steps // plan.looks) == 0:
            guesses = outputs_of(model, ids[validation])
            scores = {
                name: score(name, y, targets[name][validation].cpu().numpy())
                for name, y in guesses.items()
            }
            scores["all"] = float(np.mean(list(scores.values())))
            improved = [n for n, s in scores.items() if n not in best or s > best[n][0]]
            if improved:
                state = copy.deepcopy(model)
                best |= {name: (scores[name], step, state) for name in improved}
    return best


def search(
    plan: Plan,
    trunk: Transformer,
    ids: Tensor,
    targets: Mapping[str, Tensor],
    rows: Tensor,
    parts: Mapping[str, Tensor],
    seed: int,
    weights: Mapping[str, float],
) -> dict:
    """Every rate; then the test, once for each task, of what validation chose.

    Returns:
        "test": task -> score of the network whose mean over tasks was best, one stop for all.
        "own stop": task -> score, each at the rate and the step that were best for this task.
        "rate", "step": of the first; "own rate", "own step": task -> those of the second.
    """
    tried = {
        rate: train(plan, trunk, ids, targets, rows, parts["validation"], rate, seed, weights)
        for rate in plan.rates
    }
    test = parts["test"]

    def winner(name):
        rate = max(tried, key=lambda r: tried[r][name][0])
        return rate, *tried[rate][name][1:]

    rate, step, model = winner("all")
    guesses, found = outputs_of(model, ids[test]), {"rate": rate, "step": step}
    found |= {key: {} for key in ("test", "own stop", "own rate", "own step")}
    for name in weights:
        own_rate, own_step, own_model = winner(name)
        y = targets[name][test].cpu().numpy()
        found["test"][name] = score(name, guesses[name], y)
        found["own stop"][name] = score(name, outputs_of(own_model, ids[test])[name], y)
        found["own rate"][name], found["own step"][name] = own_rate, own_step
    return found


def bag_of_words(
    plan: Plan, targets: Mapping[str, Tensor], rows: Tensor, parts: Mapping[str, Tensor]
) -> dict[str, float]:
    """Task -> test score of ridge regression on words and pairs of words, strength by validation.

    How rare a word is was counted in all texts, as pretraining may see them. Classes are regressed
    on as ones and zeros.
    """
    x = bags(plan.pieces)
    known = x[rows.numpy()]
    inside = torch.from_numpy((known @ known.T).toarray())
    across = {name: torch.from_numpy((x[parts[name].numpy()] @ known.T).toarray()) for name in
              ("validation", "test")}  # fmt: skip
    results = {}
    for name, y in targets.items():
        wanted = F.one_hot(y, TASKS[name]) if name == "department" else y[:, None]
        wanted = wanted.double()[rows]
        mean, best = wanted.mean(0), None
        for strength in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0):
            pull = strength * torch.eye(len(rows), dtype=torch.float64)
            dual = torch.linalg.solve(inside + pull, wanted - mean)
            guess = {part: (k @ dual + mean).squeeze(1).numpy() for part, k in across.items()}
            value = score(name, guess["validation"], y[parts["validation"]].numpy())
            if best is None or value > best[0]:
                best = value, guess["test"]
        results[name] = score(name, best[1], y[parts["test"]].numpy())
    return results


# -------------------------------------------------------------------------------------- experiments
def prepared(
    plan: Plan, seed: int, device: str = "cpu"
) -> tuple[Tensor, dict[str, Tensor], list[str], dict]:
    """Tokens, labels with the stars standardised by the training rows, pieces, and the split.

    Tokens and labels are on the device, the numbers of rows are not.
    """
    ids, whole, targets, pieces = reviews(plan.length, plan.pieces)
    parts = split(plan, whole, seed)
    stars = targets["stars"]
    known = stars[parts["train"][: min(plan.labels)]]
    targets = targets | {"stars": (stars - known.mean()) / known.std()}
    return ids.to(device), {name: y.to(device) for name, y in targets.items()}, pieces, parts


def one_seed(plan: Plan, seed: int, device: str = "cpu") -> dict:
    """Both starts and a bag of words at all sizes, of one seed, as plain JSON."""
    ids, targets, pieces, parts = prepared(plan, seed, device)
    trunks = {SCRATCH: new_trunk(plan, len(pieces), seed).to(device)}
    trunks[MASKED], loss = pretrained(plan, device)
    labels = {name: y.cpu() for name, y in targets.items()}
    rows = {n: parts["train"][:n] for n in plan.labels}
    found = {"pretraining loss": loss, WORDS: {}, "joint": {}}
    for n in plan.labels:
        found[WORDS][str(n)] = bag_of_words(plan, labels, rows[n], parts)
    everything = dict.fromkeys(TASKS, 1.0)
    for start, trunk in trunks.items():
        found["joint"][start] = {
            str(n): search(plan, trunk, ids, targets, rows[n], parts, seed, everything)
            for n in plan.labels
        }
    return found


def one_priority(plan: Plan, seed: int) -> dict:
    """Ways to share the trunk of masked words among the tasks, at one size, as plain JSON.

    "together", "pair" (stars and recommend), "priority" (the other two count `plan.priority`
    beside recommend), and "alone": task -> a network of its own.
    """
    ids, targets, _, parts = prepared(plan, seed)
    trunk, _ = pretrained(plan)
    rows = parts["train"][: plan.alone]

    def searched(weights):
        return search(plan, trunk, ids, targets, rows, parts, seed, weights)

    return {
        "together": searched(dict.fromkeys(TASKS, 1.0)),
        "pair": searched({"stars": 1.0, "recommend": 1.0}),
        "priority": searched(dict.fromkeys(TASKS, plan.priority) | {"recommend": 1.0}),
        "alone": {task: searched({task: 1.0}) for task in TASKS},
    }


def run_priorities(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Three tasks together, with priorities, and each alone, for every seed. Plain JSON.

    Args:
        seeds: of splits, fresh trunks, heads and batches.
        report: takes a line of progress.
        plan: sizes; None takes those of the record.

    Returns:
        "labels", how many there were, and "seeds": what `one_priority` gives, for each.
    """
    plan, rows = plan or PLANS["cpu"], []
    for seed in seeds:
        rows.append(kept(f"{plan}, priorities, seed {seed}", one_priority, plan, seed))
        scores = rows[-1]["together"]["test"].values()
        report(f"seed {seed}, together: " + " ".join(f"{v:.3f}" for v in scores))
    return {"labels": plan.alone, "seeds": rows}


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Three tasks over reviews, for every seed. Plain JSON.

    Args:
        profile: "cpu" or "gpu".
        seeds: of splits, fresh trunks, heads and batches.
        report: takes a line of progress.
        plan: sizes; None takes the profile's.

    Returns:
        "seeds": what `one_seed` gives, for each.
    """
    plan, rows = plan or PLANS[profile], []
    device = str(fastest()) if profile == "gpu" else "cpu"
    for seed in seeds:
        rows.append(kept(f"{plan}, seed {seed}", one_seed, plan, seed, device))
        joint = rows[-1]["joint"]
        middle = str(plan.labels[len(plan.labels) // 2])
        report(
            f"seed {seed}, {middle} labels: "
            + ", ".join(
                f"{start} " + " ".join(f"{v:.3f}" for v in joint[start][middle]["test"].values())
                for start in joint
            )
        )
    return {"seeds": rows}


RECORDS = {
    "priorities": run_priorities,
    "encoder": run_encoder,
    "domains": run_domains,
    "turns": run_turns,
    "words": run_words,
    "emoji": run_emoji,
    "naming": run_naming,
}
