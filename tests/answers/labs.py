"""For each lab a naive, a sensible and a strong answer, which land on their rungs.

They are written as a learner may write them: with nothing but what `learn` is given.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


# --------------------------------------------------------------------------------------- lab 1
def ridge(x, y, strength, towards):
    """Weights that fit the labels and stay near others."""
    return towards + np.linalg.solve(
        x.T @ x + strength * np.eye(x.shape[1]), x.T @ (y - x @ towards)
    )


def per_task(few, strength, towards):
    rows = [few.task == t for t in range(40)]
    weights = np.stack([ridge(few.x[r], few.y[r], strength, towards) for r in rows])
    return lambda x, task: (x * weights[task]).sum(1)


def lab_1_naive(few):
    """Each task alone."""
    return per_task(few, 1.0, np.zeros(16))


def lab_1_sensible(few):
    """Each task pulled towards the regression on all rows."""
    return per_task(few, 3.0, ridge(few.x, few.y, 1.0, np.zeros(16)))


def lab_1_strong(few, rounds=100):
    """A common normal prior of the weights: mean, covariance and noise by EM."""
    mean, spread, noise = np.zeros(16), np.eye(16), 1.0
    tasks = [(few.x[few.task == t], few.y[few.task == t]) for t in range(40)]
    for _ in range(rounds):
        precision, error = np.linalg.inv(spread), 0.0
        weights, doubt = [], np.zeros((16, 16))
        for x, y in tasks:
            cover = np.linalg.inv(precision + x.T @ x / noise)
            weights.append(cover @ (precision @ mean + x.T @ y / noise))
            doubt += cover
            error += ((y - x @ weights[-1]) ** 2).sum() + np.trace(x @ cover @ x.T)
        weights = np.array(weights)
        mean = weights.mean(0)
        spread = (doubt + (weights - mean).T @ (weights - mean)) / 40 + 1e-3 * np.eye(16)
        noise = max(error / len(few.y), 0.05)
    return lambda x, task: (x * weights[task]).sum(1)


# --------------------------------------------------------------------------------------- lab 2
def distances(theta):
    """Squared distances to two points, two apart."""
    point = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=theta.dtype)
    return torch.stack([(theta - point).square().sum(1), (theta + point).square().sum(1)], 1)


def lab_2_naive():
    """Two bowls that conflict, and weights that never change."""
    return distances, lambda gradients, losses, step: torch.ones_like(losses)


def largest_share():
    """Weigh the task of which more is left, in the mean first loss of each."""
    first = {}

    def rule(gradients, losses, step):
        if step == 0:
            first["losses"] = losses.mean(0).clamp(min=1e-12)
        return (10 * losses / first["losses"]).softmax(1)

    return rule


def lab_2_sensible():
    """Losses that flatten far from their points: the front between the tasks is bent inwards."""
    return lambda theta: torch.log1p(20 * distances(theta)), largest_share()


def lab_2_strong():
    """The same, not so steep: what lies between the two points is better for both."""
    return lambda theta: torch.log1p(3 * distances(theta)), largest_share()


# --------------------------------------------------------------------------------------- lab 3
def lab_3_naive(train):
    """The class with the nearest mean picture."""
    means = torch.stack([train.x[train.y == c].mean(0).flatten() for c in range(25)])
    return lambda x: torch.cdist(x.flatten(1), means).argmin(1)


def written(x):
    """The pictures turned, slanted, scaled, moved, and with noise."""

    def uniform(low, high):
        return low + (high - low) * torch.rand(len(x))

    turn, slant = uniform(-0.45, 0.45), uniform(-0.35, 0.35)
    wide, high = uniform(0.8, 1.3), uniform(0.8, 1.3)
    cos, sin = turn.cos(), turn.sin()
    first = torch.stack([wide * cos, wide * (slant * cos - sin), uniform(-0.2, 0.2)], 1)
    second = torch.stack([high * sin, high * (slant * sin + cos), uniform(-0.2, 0.2)], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), [len(x), 1, 16, 16], False)
    moved = F.grid_sample(x[:, None], grid, align_corners=False)[:, 0]
    return (moved + 0.15 * torch.randn(moved.shape)).clamp(0, 1)


def small_trunk(width):
    def layer(i, o):
        return [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()]

    return nn.Sequential(
        nn.Unflatten(1, (1, 16)),
        *layer(1, width),
        nn.MaxPool2d(2),
        *layer(width, 2 * width),
        nn.MaxPool2d(2),
        *layer(2 * width, 2 * width),
        nn.Flatten(),
        nn.Linear(32 * width, 96),
        nn.BatchNorm1d(96),
    )


def trained(x, y, steps, rate, width=16, batch=100):
    """A trunk trained to tell these classes apart, on warped pictures."""
    trunk, head = small_trunk(width), nn.Linear(96, int(y.max()) + 1)
    optimizer = torch.optim.Adam([*trunk.parameters(), *head.parameters()], rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (batch,))
        optimizer.zero_grad()
        F.cross_entropy(head(trunk(written(x[rows]))), y[rows]).backward()
        optimizer.step()
        schedule.step()
    return trunk.eval(), head.eval()


def lab_3_sensible(train):
    """The fifty labels alone, warped anew at every step."""
    trunk, head = trained(train.x, train.y, steps=120, rate=4e-3)
    return lambda x: head(trunk(x)).argmax(1)


def with_turns(train):
    """All sources, each letter turned by a right angle as a letter of its own."""
    pictures, labels, classes = [], [], 0
    for x, y in train.sources.values():
        for turns in range(4):
            pictures.append(x.rot90(turns, (1, 2)))
            labels.append(y + classes)
            classes += int(y.max()) + 1
    return torch.cat(pictures), torch.cat(labels)


def lab_3_strong(train, steps=600, width=16, turns=True, rounds=10, sharp=20.0):
    """A trunk trained on the sources; class means of its features, moved by the questions."""
    x, y = with_turns(train)
    if not turns:
        x = torch.cat([train.sources[s][0] for s in ("Latin", "Greek")])
        y = torch.cat([train.sources["Latin"][1], 1000 + train.sources["Greek"][1]])
        y = y.unique(return_inverse=True)[1]
    trunk, _ = trained(x, y, steps, 8e-3, width, 128)

    def features(x):
        with torch.no_grad():
            return F.normalize(trunk(x), dim=1)

    seen = features(torch.cat([train.x, *(written(train.x) for _ in range(15))]))
    seen = torch.stack([seen[train.y.repeat(16) == c].mean(0) for c in range(25)])

    def predict(x):
        asked = features(x)
        means = F.normalize(seen, dim=1)
        for _ in range(rounds):
            share = (sharp * asked @ means.T).softmax(1)
            means = F.normalize(5 * seen + share.T @ asked, dim=1)
        return (asked @ means.T).argmax(1)

    return predict


def lab_3_transfer(train):
    """The class means of a trunk that was trained on the sources."""
    return lab_3_strong(train, steps=250, width=16, turns=False, rounds=0)


# --------------------------------------------------------------------------------------- lab 4
def nearest(features):
    """The letter with the nearest mean of these features."""

    def predict(support_x, support_y, query_x):
        seen = features(support_x)
        means = torch.stack([seen[support_y == c].mean(0) for c in range(10)])
        return torch.cdist(features(query_x), means).argmin(1)

    return predict


def lab_4_naive(train):
    """The letter with the nearest mean picture."""
    return nearest(lambda x: x.flatten(1))


def lab_4_sensible(train, steps=120, ways=5, shots=5, queries=5):
    """A prototypical network, trained on episodes of the pictures as they are."""
    trunk = small_trunk(8)
    optimizer = torch.optim.Adam(trunk.parameters(), 2e-3)
    classes = [x[y == c] for x, y in train.values() for c in range(int(y.max()) + 1)]
    y = torch.arange(ways).repeat_interleave(queries)
    for _ in range(steps):
        chosen = [classes[c] for c in torch.randperm(len(classes))[:ways]]
        x = torch.cat([x[torch.randperm(12)[: shots + queries]] for x in chosen])
        z = trunk(x).unflatten(0, (ways, -1))
        apart = torch.cdist(z[:, shots:].flatten(0, 1), z[:, :shots].mean(1)).square()
        optimizer.zero_grad()
        F.cross_entropy(-apart / 10, y).backward()
        optimizer.step()
    trunk.eval()
    return nearest(lambda x: trunk(x).detach())


def all_letters(train, steps):
    """Features of a trunk that tells all letters of the alphabets apart, on warped pictures."""
    classes = [int(y.max()) + 1 for _, y in train.values()]
    first = [sum(classes[:i]) for i in range(len(classes))]
    x = torch.cat([x for x, _ in train.values()])
    y = torch.cat([y + f for (_, y), f in zip(train.values(), first, strict=True)])
    trunk, _ = trained(x, y, steps, rate=8e-3, batch=128)
    return lambda x: F.normalize(trunk(x).detach(), dim=1)


def lab_4_classifier(train):
    """The class means of such features."""
    return nearest(all_letters(train, steps=250))


def lab_4_strong(train, steps=500, copies=4, rounds=12, sharp=15.0):
    """The same, trained longer; the means also of warped copies, and moved by the questions."""
    features = all_letters(train, steps)

    def predict(x, y, query_x):
        seen = features(torch.cat([x, *(written(x) for _ in range(copies))]))
        labels = y.repeat(copies + 1)
        seen = torch.stack([seen[labels == c].mean(0) for c in range(10)]) * (len(y) / 10)
        asked, means = features(query_x), F.normalize(seen, dim=1)
        for _ in range(rounds):
            share = (sharp * asked @ means.T).softmax(1)
            means = F.normalize(seen + share.T @ asked, dim=1)
        return (asked @ means.T).argmax(1)

    return predict


# --------------------------------------------------------------------------------------- lab 5
class Heads(nn.Module):
    """A trunk with a linear head for each question."""

    def __init__(self, trunk, width):
        super().__init__()
        self.trunk = trunk
        classes = {"letter": 24, "family": 3, "bold": 2}
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in classes.items()})

    def forward(self, x):
        features = self.trunk(x)
        return {name: head(features) for name, head in self.heads.items()}


def fitted(model, train, steps, rate, change=lambda x: x):
    """Trained on the sum of the three losses."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(train.x), (128,))
        optimizer.zero_grad()
        scores = model(change(train.x[rows]))
        sum(F.cross_entropy(scores[q], train.y[q][rows]) for q in scores).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def two_convolutions(width, features):
    def layer(i, o):
        return [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]

    trunk = [nn.Unflatten(1, (1, 16)), *layer(1, width), *layer(width, 2 * width), nn.Flatten()]
    return Heads(nn.Sequential(*trunk, nn.Linear(32 * width, features), nn.ReLU()), features)


def lab_5_naive(train):
    """Three linear classifiers of the pixels."""
    return fitted(Heads(nn.Flatten(), 256), train, 300, 5e-3)


def lab_5_sensible(train):
    """A convolutional network of the usual size."""
    return fitted(two_convolutions(16, 64), train, 400, 5e-3)


class Int8(nn.Module):
    """A layer whose weights are whole numbers of eight bits, with one scale per output."""

    def __init__(self, layer):
        super().__init__()
        rest = tuple(range(1, layer.weight.dim()))
        scale = layer.weight.detach().abs().amax(rest, keepdim=True) / 127
        self.register_buffer("weight", (layer.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", layer.bias.detach().clone())

    def forward(self, x):
        weight = self.weight * self.scale
        if weight.dim() == 4:
            return F.conv2d(x, weight, self.bias, padding=1)
        return F.linear(x, weight, self.bias)


def in_eight_bits(module):
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d | nn.Linear):
            setattr(module, name, Int8(child))
        else:
            in_eight_bits(child)
    return module


def lab_5_strong(train):
    """A narrower network, trained longer on shifted pictures, with weights of eight bits."""

    def shifted(x):
        return x.roll(torch.randint(-1, 2, (2,)).tolist(), (1, 2))

    return in_eight_bits(fitted(two_convolutions(12, 32), train, 800, 8e-3, shifted))


ANSWERS = {
    "lab_1": (lab_1_naive, lab_1_sensible, lab_1_strong),
    "lab_2": (lab_2_naive, lab_2_sensible, lab_2_strong),
    "lab_3": (lab_3_naive, lab_3_sensible, lab_3_transfer, lab_3_strong),
    "lab_4": (lab_4_naive, lab_4_sensible, lab_4_classifier, lab_4_strong),
    "lab_5": (lab_5_naive, lab_5_sensible, lab_5_strong),
}


def main(name):
    """Run the baselines of a lab on its held-out tasks and write its record."""
    import time

    from mtl_course import chapters, records
    from mtl_course.labs import scorer

    task, results = scorer.task_of(name), {}
    for rung, answer in zip(task.rungs, ANSWERS[name], strict=True):
        start = time.process_time() + children()
        score = scorer.scored(task, chapters.LABS[name], answer, task.seeds)
        seconds = round(time.process_time() + children() - start, 1)
        print(score, f"{seconds} s in all", flush=True)
        results[rung.name] = {"measures": score.measures, "seconds": seconds}
    provenance = records.provenance(list(task.seeds))
    provenance["command"] = f"PYTHONPATH=tests python -m answers.labs {name}"
    number = name.removeprefix("lab_")
    print(records.save(records.Record("lab", number, results, provenance)))


def children():
    """Processor time of the processes that have ended."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
