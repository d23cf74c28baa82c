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
    ],
    "first_map": [
        """
def first_map(x, weight):
    return torch.conv2d(x, weight, padding="same").clamp(min=0)
""",
        """
def first_map(x, weight):
    B, _, H, W = x.shape
    k = weight.shape[-1]
    patches = torch.nn.functional.unfold(x, k, padding=(k - 1) // 2)
    return (weight.flatten(1) @ patches).view(B, len(weight), H, W).relu()
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
    ],
}

EQUIVALENT = {
    "first_map": {"k = weight.shape[-1]  =>  k = weight.shape[-2]": "the kernels are square"},
    "balanced_loss": {
        "losses.append(loss / math.log(z.shape[1]))  =>  losses.append(loss / math.log(z.shape[-1]))": (
            "the logits have two dimensions"
        )
    },
}
