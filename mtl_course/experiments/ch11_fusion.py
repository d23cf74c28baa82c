"""Chapter 11, two modalities: emoji as pictures with names, and reviews as texts with stars.

`one_fusion`: category and group of emoji from picture and name, with and without modality dropout,
judged with both there and with one missing. `one_naming`: two towers learn on one vendor's drawings
which name belongs to which; they then name another vendor's drawings, also those of emoji that they
never saw. `stars_and_text`, which the notebook runs: would the customer recommend the piece?

The emoji come from npm (`emoji_sets` says so where it is missing). Needs no Jupyter.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data, transfer
from ..networks.fusion import (
    CrossAttentionFusion,
    LateFusion,
    OneToken,
    PictureCells,
    WordTokens,
)
from ..networks.sentence_encoder import WordPiece, encode, minilm
from ..networks.trunks import mlp
from ..records.pieces import kept
from .common import seeded

TASKS = {"category": 10, "group": 99}
LATE, CROSS = "late", "cross-attention"
DROPPED = f"{LATE}, dropout"
SITUATIONS = {  # what is there when the network is judged
    "both": {},
    "picture alone": {"name": False},
    "name alone": {"picture": False},
}
WORDS, ENCODER = "own words", "MiniLM"


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        size: pixels a side.
        width: features.
        train: emoji to learn from.
        validation: emoji that choose the rate.
        rates: of Adam, that every network may try.
        steps: of each network.
        batch: emoji per step.
        dropout: share of the rows that lose a modality.
        shares: more such shares, at the middle rate only; `dropout` is one of them.
        named: emoji whose names and Twitter drawings the two towers learn.
        naming_steps: of the towers.
        naming_batch: pairs per step.
        naming_rate: its highest rate.
        temperature: of `transfer.pair_loss`.
    """

    size: int = 12
    width: int = 64
    train: int = 1000
    validation: int = 300
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    steps: int = 200
    batch: int = 48
    dropout: float = 0.5
    shares: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    named: int = 1300
    naming_steps: int = 300
    naming_batch: int = 128
    naming_rate: float = 2e-3
    temperature: float = 0.1


# --------------------------------------------------------------------------------------- the emoji
@dataclass(frozen=True)
class Emoji:
    """Emoji of both vendors, row for row.

    Args:
        pictures: vendor -> [N, 3, size, size], white is 0.
        names: N names in words.
        ids: int64 [N, L], a number for each word, 0 after the end.
        words: how many numbers there are, the padding among them.
        targets: task -> classes [N].
    """

    pictures: Mapping[str, Tensor]
    names: list[str]
    ids: Tensor
    words: int
    targets: Mapping[str, Tensor]


def word_ids(names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Words of names as numbers from 1 on, int64 [N, L] padded with 0; and the words by number.

    Names are so short that a vocabulary of whole words will do; that of all names, since a word's
    number says nothing of its meaning.
    """
    texts = [name.replace("-", " ").replace(":", " ").replace(",", " ").split() for name in names]
    words = ["[PAD]", *sorted({word for text in texts for word in text})]
    number = {word: n for n, word in enumerate(words)}
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor([number[word] for word in text])
    return ids, words


def emoji_sets(size: int = 12) -> Emoji:
    """The emoji; DataError, with what to do, where neither npm nor a cache has them."""
    sets = {"twitter": data.load("emoji_twitter"), "google": data.load("emoji_google")}
    first = sets["twitter"]
    pictures = {}
    for vendor, rows in sets.items():
        x = torch.from_numpy(np.array(rows.x)).permute(0, 3, 1, 2).float() / 127.5 - 2
        pictures[vendor] = F.adaptive_avg_pool2d(x, size)
    names = [str(name) for name in first.names]
    ids, words = word_ids(names)
    targets = {name: torch.from_numpy(np.array(first[name])) for name in TASKS}
    return Emoji(pictures, names, ids, len(words), targets)


# ------------------------------------------------------------------------------------------- fusion
class Fused(nn.Module):
    """A fusion with a head for each task."""

    def __init__(self, plan: Plan, words: int, way: str, dropout: float):
        super().__init__()
        entries = {
            "picture": PictureCells(3, plan.width, plan.size),
            "name": WordTokens(words, plan.width),
        }
        kind = {LATE: LateFusion, CROSS: CrossAttentionFusion}[way]
        self.fusion = kind(entries, plan.width, dropout=dropout)
        self.heads = nn.ModuleDict({n: nn.Linear(plan.width, k) for n, k in TASKS.items()})

    def forward(
        self, x: Mapping[str, Tensor], there: Mapping[str, bool] | None = None
    ) -> dict[str, Tensor]:
        """Task -> logits [B, classes]."""
        z = self.fusion(x, there)
        return {name: head(z) for name, head in self.heads.items()}


def train_fused(
    plan: Plan,
    emoji: Emoji,
    rows: Tensor,
    way: str,
    dropout: float,
    rate: float,
    seed: int,
    only: str | None = None,
) -> Fused:
    """A fusion trained on some emoji as Twitter drew them; `only` one modality if named."""
    model = seeded(lambda: Fused(plan, emoji.words, way, dropout), seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    g = torch.Generator().manual_seed(seed)
    there = {} if only is None else {name: name == only for name in ("picture", "name")}

    def run():
        for _ in range(plan.steps):
            some = rows[torch.randint(len(rows), (plan.batch,), generator=g)]
            x = {"picture": emoji.pictures["twitter"][some], "name": emoji.ids[some]}
            outputs = model(x, there)
            loss = sum(F.cross_entropy(outputs[n], emoji.targets[n][some]) for n in TASKS)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.eval()

    return seeded(run, seed)  # modality dropout draws from torch's own stream


@torch.no_grad()
def logits(model: Fused, emoji: Emoji, rows: Tensor, situation: str) -> dict[str, Tensor]:
    """Task -> logits of some emoji where this much is there."""
    x = {"picture": emoji.pictures["twitter"][rows], "name": emoji.ids[rows]}
    return model(x, SITUATIONS[situation])


def accuracies(outputs: Mapping[str, Tensor], emoji: Emoji, rows: Tensor) -> dict[str, float]:
    """Task -> accuracy."""
    return {
        name: float((y.argmax(1) == emoji.targets[name][rows]).float().mean())
        for name, y in outputs.items()
    }


@torch.no_grad()
def fill_with_means(model: Fused, emoji: Emoji, rows: Tensor) -> None:
    """What stands for a missing modality becomes the mean training token of that modality.

    A network that never saw anything missing never learned these vectors. The mean is what a
    careful user would fill in.
    """
    fusion = model.fusion
    x = {"picture": emoji.pictures["twitter"][rows], "name": emoji.ids[rows]}
    for name, entry in fusion.entries.items():
        tokens, there = entry(x[name])
        fusion.missing[name].copy_(tokens[there].mean(0))


def one_fusion(plan: Plan, seed: int) -> dict:
    """Every way to fuse, with and without modality dropout, on the split of one seed."""
    emoji = emoji_sets(plan.size)
    order = torch.randperm(len(emoji.names), generator=torch.Generator().manual_seed(seed))
    train = order[: plan.train]
    validation = order[plan.train : plan.train + plan.validation]
    test = order[plan.train + plan.validation :]

    def judge(model, situation, rows=test):
        return accuracies(logits(model, emoji, rows, situation), emoji, rows)

    @cache
    def trained(way, dropout, rate, only=None):
        return train_fused(plan, emoji, train, way, dropout, rate, seed, only)

    def searched(way, dropout, situations, only=None):
        """The network at its best rate: by the mean over tasks and over these situations."""
        best = None
        for rate in plan.rates:
            model = trained(way, dropout, rate, only)
            value = np.mean(
                [
                    list(
                        accuracies(logits(model, emoji, validation, s), emoji, validation).values()
                    )
                    for s in situations
                ]
            )
            if best is None or value > best[0]:
                best = value, rate, model
        return best[1:]

    def judged(model):
        return {situation: judge(model, situation) for situation in SITUATIONS}

    middle = plan.rates[len(plan.rates) // 2]
    shares = {str(share): judged(trained(LATE, share, middle)) for share in plan.shares}
    found, rates = {}, {}
    for way in (LATE, CROSS):
        rates[way], model = searched(way, 0.0, ["both"])
        found[way] = judged(model)
        model = copy.deepcopy(model)
        fill_with_means(model, emoji, train)
        found[f"{way}, mean filled in"] = judged(model)
        key = f"{way}, dropout"
        rates[key], model = searched(way, plan.dropout, list(SITUATIONS))
        found[key] = judged(model)
    alone = {}
    for only in ("picture", "name"):
        rates[only], alone[only] = searched(LATE, 0.0, [f"{only} alone"], only)
        found[f"{only} specialist"] = {
            f"{only} alone": accuracies(
                logits(alone[only], emoji, test, f"{only} alone"), emoji, test
            )
        }
    sure = {only: logits(alone[only], emoji, test, f"{only} alone") for only in alone}
    votes = {n: sum(sure[only][n].log_softmax(1) for only in sure) for n in TASKS}
    found["two specialists, votes added"] = {"both": accuracies(votes, emoji, test)}
    return {"results": found, "rates": rates, "shares": shares, "test": len(test)}


# ------------------------------------------------------------------------------------------- naming
def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture turned, zoomed, shifted a little, and its colours weakened or strengthened.

    x: [B, 3, H, H], white is 0.
    """

    def draw(*shape):
        return 2 * torch.rand(len(x), *shape, generator=generator) - 1

    turn, zoom, shift = 0.15 * draw(), 1 + 0.15 * draw(), 0.1 * draw(2)
    rows = torch.stack(
        [
            *(zoom * turn.cos(), -zoom * turn.sin(), shift[:, 0]),
            *(zoom * turn.sin(), zoom * turn.cos(), shift[:, 1]),
        ],
        dim=1,
    )
    grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False) * (1 + 0.3 * draw(3, 1, 1))


class Towers(nn.Module):
    """A tower for pictures and one for names, which end in the same space."""

    def __init__(self, plan: Plan, name: nn.Module):
        super().__init__()
        cells = PictureCells(3, plan.width, plan.size)
        self.layers = cells.layers
        flat = plan.width * (plan.size // 4) ** 2
        self.project = mlp([flat, 128, plan.width])
        self.name = name

    def picture(self, x: Tensor) -> Tensor:
        """Directions [B, width] of pictures."""
        return F.normalize(self.project(self.layers(x).flatten(1)), dim=1)

    def text(self, names: Tensor) -> Tensor:
        """Directions [B, width] of names."""
        return F.normalize(self.name(names), dim=1)


def train_towers(
    plan: Plan, emoji: Emoji, rows: Tensor, names: Tensor, tower: Callable[[], nn.Module], seed: int
) -> Towers:
    """Two towers that have learned which of Twitter's drawings has which name.

    names: [N, ...], what the name tower reads. tower: makes it.
    """
    model = seeded(lambda: Towers(plan, tower()), seed)
    optimizer = torch.optim.AdamW(model.parameters(), plan.naming_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.naming_rate, total_steps=plan.naming_steps
    )
    g = torch.Generator().manual_seed(seed)
    for _ in range(plan.naming_steps):
        some = rows[torch.randperm(len(rows), generator=g)[: plan.naming_batch]]
        pictures = moved(emoji.pictures["twitter"][some], g)
        loss = transfer.pair_loss(
            model.picture(pictures), model.text(names[some]), plan.temperature
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def hits(alike: Tensor, places: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """How often the right column of alike [N, N], that of the row's number, is among the best.

    Ties count against it.
    """
    right = alike.diagonal()[:, None]
    ahead = (alike >= right).sum(1) - 1
    return {str(k): float((ahead < k).float().mean()) for k in places}


@cache
def read_by_minilm(names: tuple[str, ...]) -> Tensor:
    """Features [N, 384] of names from a frozen MiniLM, each column with mean 0 and deviation 1."""
    files = data.load("minilm")
    features = encode(minilm(files), WordPiece(files.vocabulary)(names, 16))
    return (features - features.mean(0)) / features.std(0)


@torch.no_grad()
def one_naming(plan: Plan, seed: int) -> dict:
    """Naming another vendor's drawings: of emoji learned from, and of new ones, on one split."""
    emoji = emoji_sets(plan.size)
    order = torch.randperm(len(emoji.names), generator=torch.Generator().manual_seed(seed))
    parts = {"learned": order[: plan.named], "new": order[plan.named :]}
    ready = read_by_minilm(tuple(emoji.names))
    towers = {
        WORDS: (emoji.ids, lambda: nn.EmbeddingBag(emoji.words, plan.width, padding_idx=0)),
        ENCODER: (ready, lambda: mlp([ready.shape[1], 128, plan.width])),
    }
    found = {"count": {name: len(rows) for name, rows in parts.items()}}
    for name, (names, tower) in towers.items():
        with torch.enable_grad():
            model = train_towers(plan, emoji, parts["learned"], names, tower, seed)
        text = model.text(names)
        found[name] = {
            vendor: {
                part: hits(model.picture(x[rows]) @ text[rows].T) for part, rows in parts.items()
            }
            for vendor, x in emoji.pictures.items()
        }
    flat = {vendor: F.normalize(x.flatten(1), dim=1) for vendor, x in emoji.pictures.items()}
    rows = parts["learned"]
    found["pixels"] = {"google": {"learned": hits(flat["google"][rows] @ flat["twitter"][rows].T)}}
    return found


def run_emoji(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Fusion of emoji's pictures and names, for every seed. Plain JSON.

    Args:
        seeds: of splits, first weights and batches.
        report: takes a line of progress.
        plan: sizes; None takes those of the record.

    Returns:
        "fusion": what `one_fusion` gives, for each seed.
    """
    plan, results = plan or Plan(), []
    for seed in seeds:
        results.append(kept(f"{plan}, fusion, seed {seed}", one_fusion, plan, seed))
        last = results[-1]["results"]
        line = [f"{way} {last[way]['picture alone']['group']:.3f}" for way in (LATE, DROPPED)]
        report(f"seed {seed}, group from the picture alone: {', '.join(line)}")
    return {"fusion": results}


def run_naming(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Two towers that name another vendor's drawings, for every seed. Plain JSON.

    Args:
        seeds: of splits, first weights and batches.
        report: takes a line of progress.
        plan: sizes; None takes those of the record.

    Returns:
        "naming": what `one_naming` gives, for each seed.
    """
    plan, results = plan or Plan(), []
    for seed in seeds:
        results.append(kept(f"{plan}, naming, seed {seed}", one_naming, plan, seed))
        new = results[-1][ENCODER]["google"]["new"]["10"]
        report(f"seed {seed}, new emoji among the first ten: {new:.3f}")
    return {"naming": results}


# --------------------------------------------------------------------------------- text and stars
def recommender(text: nn.Module, width: int, dropout: float) -> nn.Module:
    """Would the customer recommend it? From a text and stars: late fusion and a head of one output.

    text: a module from tokens to features [B, width].
    """
    stars = nn.Embedding(6, width)
    entries = {"text": OneToken(text), "stars": OneToken(stars)}
    return nn.ModuleDict(
        {"fusion": LateFusion(entries, width, dropout), "head": nn.Linear(width, 1)}
    )


def train_recommender(
    model: nn.ModuleDict,
    x: Mapping[str, Tensor],
    y: Tensor,
    steps: int,
    rate: float,
    seed: int,
    there: Mapping[str, bool] | None = None,
    batch: int = 64,
) -> None:
    """Adam on the cross-entropy; `there` says what it learns from, None for both."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    g = torch.Generator().manual_seed(seed)

    def run():
        for _ in range(steps):
            rows = torch.randint(len(y), (batch,), generator=g)
            z = model["fusion"]({name: values[rows] for name, values in x.items()}, there)
            loss = F.binary_cross_entropy_with_logits(model["head"](z)[:, 0], y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    seeded(run, seed)
    model.eval()


@torch.no_grad()
def auc(
    model: nn.ModuleDict, x: Mapping[str, Tensor], y: Tensor, there: Mapping[str, bool] | None
) -> float:
    """Area under the ROC curve where this much is there."""
    return float(roc_auc_score(y, model["head"](model["fusion"](x, there))[:, 0]))
