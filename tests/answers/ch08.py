"""Chapter 8: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "map_sides": [
        """
def map_sides(side, layers):
    sides = []
    for k, s, p in layers:
        last = side + 2 * p - k
        side = len(range(0, last + 1, s))
        sides.append(side)
    return sides
""",
        """
def map_sides(side, layers):
    x = torch.zeros(1, 1, side, side)
    out = []
    for k, s, p in layers:
        x = torch.nn.MaxPool2d(k, s)(torch.nn.functional.pad(x, (p, p, p, p)))
        out += [int(x.shape[3])]
    return out
""",
        """
def map_sides(side, layers):
    out = []
    for layer in layers:
        k, s, p = layer
        places = 0
        at = -p
        while at + k <= side + p:
            places += 1
            at += s
        side = places
        out.append(places)
    return tuple(out)
""",
        """
def map_sides(side, layers):
    out = []
    x = torch.empty(1, 1, side, side, device="meta")
    for k, s, p in layers:
        x = torch.nn.Conv2d(1, 1, k, s, p, device="meta")(x)
        out.append(x.size(-1))
    return out
""",
    ],
    "paired_batches": [
        """
def paired_batches(long, shuffles, size):
    short = shuffles.reshape(-1)
    pairs = []
    for start in range(0, len(long), size):
        stop = min(start + size, len(long))
        pairs.append((long[start:stop], short[start:stop]))
    return pairs
""",
        """
def paired_batches(long, shuffles, size):
    stream = iter([row for order in shuffles for row in order])
    found = []
    for rows in long.split(size):
        found.append((rows, torch.stack([next(stream) for _ in rows])))
    return found
""",
        """
def paired_batches(long, shuffles, size):
    M = shuffles.shape[1]
    i = torch.arange(len(long), device=long.device)
    short = shuffles[i // M, i % M]
    return [(a, b) for a, b in zip(torch.split(long, size), torch.split(short, size))]
""",
        """
def paired_batches(long, shuffles, size):
    both = torch.stack([long, torch.cat(list(shuffles))[: len(long)]])
    return [tuple(part) for part in both.split(size, dim=1)]
""",
    ],
    "one_space": [
        """
def one_space(names_a, names_b, labels):
    number = {name: k for k, name in enumerate(names_a)}
    for name in names_b:
        number.setdefault(name, len(number))
    return list(number), torch.stack([labels.new_tensor(number[names_b[int(k)]]) for k in labels])
""",
        """
def one_space(names_a, names_b, labels):
    names = list(names_a)
    new = torch.empty_like(labels)
    for old, name in enumerate(names_b):
        if name not in names:
            names.append(name)
        new[labels == old] = names.index(name)
    return names, new
""",
        """
def one_space(names_a, names_b, labels):
    names = list(dict.fromkeys(names_a + names_b))
    import numpy as np

    table = np.array([names.index(n) for n in names_b])
    return names, torch.as_tensor(table, device=labels.device).index_select(0, labels)
""",
        """
def one_space(names_a, names_b, labels):
    fresh = sorted(set(names_b) - set(names_a), key=names_b.index)
    names = names_a + fresh
    hot = torch.nn.functional.one_hot(labels, len(names_b))
    table = torch.tensor([names.index(n) for n in names_b], device=labels.device)
    return names, (hot * table).sum(1)
""",
    ],
    "balanced_loss": [
        """
def balanced_loss(logits, targets):
    total = 0.0
    for name in targets:
        chance = torch.full_like(logits[name][0], 0.0).logsumexp(0)
        right = logits[name].log_softmax(dim=1).gather(1, targets[name][:, None])
        total = total - right.mean() / chance
    return total / len(targets)
""",
        """
def balanced_loss(logits, targets):
    shares = []
    for name, z in logits.items():
        every = torch.logsumexp(z, dim=-1) - z[torch.arange(len(z)), targets[name]]
        shares.append(every.sum() / (len(every) * math.log(z.size(-1))))
    return sum(shares) / len(shares)
""",
        """
def balanced_loss(logits, targets):
    return sum(
        F.nll_loss(logits[t].log_softmax(1), targets[t]) / math.log(logits[t].shape[1])
        for t in logits
    ) / len(logits)
""",
        """
def balanced_loss(logits, targets):
    losses = []
    for t, z in logits.items():
        losses.append(
            F.cross_entropy(z, targets[t])
            / F.cross_entropy(torch.zeros_like(z), targets[t])
        )
    return torch.mean(torch.stack(losses))
""",
    ],
    "fair_gain": [
        """
def fair_gain(joint, rivals):
    order = sorted(rivals, key=lambda n: rivals[n]["validation"].sum().item(), reverse=True)
    for name in order:
        if not rivals[name]["compute"] > joint["compute"]:
            return name, torch.sub(joint["test"], rivals[name]["test"])
""",
        """
def fair_gain(joint, rivals):
    names = [n for n in rivals if rivals[n]["compute"] / joint["compute"] <= 1]
    table = torch.stack([rivals[n]["validation"] for n in names])
    name = names[int(table.mean(1).argmax())]
    return [name, -(rivals[name]["test"] - joint["test"])]
""",
        """
def fair_gain(joint, rivals):
    best, name = -float("inf"), None
    for rival, runs in rivals.items():
        mean = sum(runs["validation"].tolist()) / len(runs["validation"])
        if runs["compute"] <= joint["compute"] and mean > best:
            best, name = mean, rival
    gains = [a - b for a, b in zip(joint["test"].tolist(), rivals[name]["test"].tolist())]
    return name, torch.tensor(gains, dtype=torch.float64, device=joint["test"].device)
""",
        """
def fair_gain(joint, rivals):
    behind = {
        n: float((joint["validation"] - runs["validation"]).mean())
        for n, runs in rivals.items()
        if runs["compute"] <= joint["compute"] * (1 + 1e-9)
    }
    name = min(behind, key=behind.get)
    gains = joint["test"].clone()
    gains -= rivals[name]["test"]
    return name, gains
""",
        """
import numpy as np


def fair_gain(joint, rivals):
    fair = [n for n in rivals if rivals[n]["compute"] <= joint["compute"]]
    means = [np.mean(rivals[n]["validation"].cpu().numpy()) for n in fair]
    name = fair[int(np.argmax(means))]
    return name, joint["test"] - rivals[name]["test"]
""",
    ],
}

EQUIVALENT = {
    "fair_gain": {
        'fair[name] = runs["validation"].mean()  =>  fair[name] = runs["validation"].sum()'.replace(
            '"', "'"
        ): "every rival has as many seeds"
    },
    "balanced_loss": {
        "losses.append(loss / math.log(z.shape[1]))  =>  losses.append(loss / math.log(z.shape[-1]))": (
            "the logits have two dimensions"
        )
    },
}
