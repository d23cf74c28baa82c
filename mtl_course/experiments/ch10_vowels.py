"""Chapter 10, speech: who is speaking, from few labelled utterances, and what comes next.

A GRU reads two spoken vowels. One head names the speaker at the end; the other guesses the next
frame at every step, for which no label is needed. `compare` trains four ways to use the labels and
the unlabelled utterances, with the same search, and a bag of frames beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import data
from .ch10_many import Parameters, copies, head, last, states, train

SPEAKERS = 9
WAYS = ("speaker alone", "+ next, labelled", "+ next, all", "next, then speaker")
BAGS = ("bag of frames",)


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        features: of the GRU's state.
        shots: labelled utterances per speaker.
        validation: utterances per speaker that settings are chosen by.
        labelled: utterances with a label per step.
        unlabelled: utterances per step whose next frames are guessed.
        weight: of the next frame's loss.
        rates: that every way may try.
        stops: numbers of steps that validation chooses among.
    """

    features: int = 32
    shots: tuple[int, ...] = (1, 2, 8)
    validation: int = 10
    labelled: int = 16
    unlabelled: int = 32
    weight: float = 1.0
    rates: tuple[float, ...] = (0.005, 0.015, 0.05)
    stops: tuple[int, ...] = (50, 100, 200)


@dataclass(frozen=True)
class Utterances:
    """All utterances, scaled by the training part's frames.

    Args:
        x: [640, 29, 12], 0 after the end.
        lengths: [640].
        y: speakers [640], 0 to 8.
        pool: rows of the training part, 30 per speaker.
        test: rows of the test part.
    """

    x: Tensor
    lengths: Tensor
    y: Tensor
    pool: Tensor
    test: Tensor

    def parts(self, shots: int, validation: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows with a label, rows to guess next frames of, and rows to validate on.

        The first are among the second; smaller draws are among larger ones.
        """
        g = torch.Generator().manual_seed(seed)
        labelled, free, valid = [], [], []
        for speaker in range(SPEAKERS):
            rows = self.pool[self.y[self.pool] == speaker]
            rows = rows[torch.randperm(len(rows), generator=g)]
            valid.append(rows[:validation])
            free.append(rows[validation:])
            labelled.append(rows[validation : validation + shots])
        return torch.cat(labelled), torch.cat(free), torch.cat(valid)

    @property
    def bags(self) -> Tensor:
        """What is left without the order: mean and deviation of each coefficient, [640, 24]."""
        there = (torch.arange(self.x.shape[1]) < self.lengths[:, None])[..., None]
        mean = self.x.sum(1) / self.lengths[:, None]
        apart = (self.x - mean[:, None]).masked_fill(~there, 0)
        return torch.cat([mean, (apart.square().sum(1) / self.lengths[:, None]).sqrt()], dim=1)


def utterances() -> Utterances:
    """The set, with every coefficient scaled by the frames of the training part."""
    ds = data.load("japanese_vowels")
    lengths = torch.as_tensor(np.array(ds["length"]))
    inside = np.array(ds["train"])
    x = data.pad([row[:n] for row, n in zip(ds["x"], ds["length"], strict=True)]).numpy()
    scaler = data.Scaler(x, past=int(inside.sum()))  # the training part stands first
    return Utterances(
        torch.as_tensor(scaler(x)).float().nan_to_num(0.0),
        lengths,
        torch.as_tensor(np.array(ds["speaker"])),
        torch.as_tensor(np.flatnonzero(inside)),
        torch.as_tensor(np.flatnonzero(~inside)),
    )


# ------------------------------------------------------------------------------------------ losses
def next_frame_loss(parameters: Parameters, x: Tensor, outputs: Tensor, lengths: Tensor) -> Tensor:
    """[G]: squared error of the next frame, mean over all frames that there are.

    Args:
        parameters: of G networks with a head "next".
        x: [G, B, L, D].
        outputs: their states [G, B, L, H].
        lengths: [G, B].
    """
    guess = head(parameters, "next", outputs[:, :, :-1])
    there = torch.arange(x.shape[2] - 1) < lengths[..., None] - 1
    error = (guess - x[:, :, 1:]).square().mean(-1) * there
    return error.sum((1, 2)) / there.sum((1, 2))


def speaker_loss(parameters: Parameters, features: Tensor, y: Tensor) -> Tensor:
    """[G]: cross-entropy of the speaker, from features [G, B, H] and y [G, B]."""
    logits = head(parameters, "speaker", features)
    return F.cross_entropy(logits.transpose(1, 2), y, reduction="none").mean(1)


def accuracy(parameters: Parameters, sounds: Utterances, rows: Tensor) -> Tensor:
    """[G]: the share of these utterances that each network gives to the right speaker."""
    groups = len(next(iter(parameters.values())))
    n = sounds.lengths[rows].expand(groups, -1)
    z = last(states(parameters, sounds.x[rows].expand(groups, -1, -1, -1)), n)
    return (head(parameters, "speaker", z).argmax(-1) == sounds.y[rows]).float().mean(1)


# ---------------------------------------------------------------------------------------- training
def learn(
    plan: Plan,
    sounds: Utterances,
    labelled: Tensor,
    free: Tensor | None,
    seed: int,
    judge,
    start: Parameters | None = None,
    speaker: bool = True,
) -> Parameters:
    """One way to train, with every rate of the plan side by side.

    Args:
        plan: settings.
        sounds: all utterances.
        labelled: rows with a label.
        free: rows to guess next frames of; None for the speaker alone.
        seed: of the start and of the batches.
        judge: as in `ch10_many.train`.
        start: parameters to go on from; None for a fresh network.
        speaker: False to learn the next frame alone.
    """
    groups = len(plan.rates)
    if start is None:
        heads = {"speaker": SPEAKERS, "next": sounds.x.shape[2]}
        start = copies(sounds.x.shape[2], plan.features, heads, seed, groups)
    g = torch.Generator().manual_seed(seed)

    def batch(rows: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = rows[torch.randint(len(rows), (size,), generator=g)]
        n, L = sounds.lengths[rows], int(sounds.lengths[rows].max())
        x = sounds.x[rows, :L].expand(groups, -1, -1, -1)
        return x, n.expand(groups, -1), sounds.y[rows].expand(groups, -1)

    def loss(parameters: Parameters) -> Tensor:
        total = torch.zeros(groups)
        if speaker:
            x, n, y = batch(labelled, plan.labelled)
            total = total + speaker_loss(parameters, last(states(parameters, x), n), y)
        if free is not None:
            x, n, _ = batch(free, plan.unlabelled)
            outputs = states(parameters, x)
            total = total + plan.weight * next_frame_loss(parameters, x, outputs, n)
        return total

    return train(start, loss, plan.rates, plan.stops, judge)


def compare(plan: Plan, sounds: Utterances, shots: int, seed: int) -> dict[str, dict]:
    """Every way and the bag of frames; rate and stop are those with the best validation accuracy.

    Returns:
        Way -> "test" and "validation" accuracy, "rate" and "steps" (the bag: "strength").
    """
    labelled, free, valid = sounds.parts(shots, plan.validation, seed)
    results = {"bag of frames": bag(sounds, labelled, valid)}
    for way in WAYS:
        tried = []

        def judge(step, parameters, tried=tried):
            both = (accuracy(parameters, sounds, rows).tolist() for rows in (valid, sounds.test))
            for rate, validation, test in zip(plan.rates, *both, strict=True):
                row = {"test": test, "validation": validation, "rate": rate, "steps": step}
                tried.append(row)

        if way == "next, then speaker":
            first = learn(plan, sounds, labelled, free, seed, lambda *_: None, speaker=False)
            learn(plan, sounds, labelled, None, seed, judge, start=first)
        else:
            rows = {"speaker alone": None, "+ next, labelled": labelled, "+ next, all": free}[way]
            learn(plan, sounds, labelled, rows, seed, judge)
        results[way] = max(tried, key=lambda row: row["validation"])
    return results


def bag(sounds: Utterances, labelled: Tensor, valid: Tensor) -> dict[str, float]:
    """Logistic regression on means and deviations of the frames, its strength chosen likewise."""
    from sklearn.linear_model import LogisticRegression

    x, y, best = sounds.bags.numpy(), sounds.y.numpy(), None
    for strength in (0.01, 0.1, 1.0, 10.0, 100.0):
        model = LogisticRegression(C=strength, max_iter=2000).fit(x[labelled], y[labelled])
        validation, test = (float(model.score(x[rows], y[rows])) for rows in (valid, sounds.test))
        if best is None or validation > best["validation"]:
            best = {"test": test, "validation": validation, "strength": strength}
    return best


def accuracies(seeds: Sequence[dict], shots: int, way: str) -> np.ndarray:
    """Test accuracy in percent, one for each seed of a record."""
    return 100 * np.array([seed[str(shots)][way]["test"] for seed in seeds])
