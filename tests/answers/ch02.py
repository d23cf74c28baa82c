"""Chapter 2: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "source_penalty": [
        """
def source_penalty(parameters, source, alpha, beta):
    near = [(p - source[name]).flatten()
            for name, p in parameters.items() if name in source]
    new = [p.flatten() for name, p in parameters.items() if name not in source]
    return alpha * torch.cat(near).square().sum() + beta * torch.cat(new).square().sum()
""",
        """
def source_penalty(parameters, source, alpha, beta):
    shared = sum(((parameters[k] - source[k]) ** 2).sum() for k in source)
    new = sum((v**2).sum() for k, v in parameters.items() if k not in source)
    return alpha * shared + beta * new
""",
        """
def source_penalty(parameters, source, alpha, beta):
    terms = []
    for name in parameters:
        value = parameters[name].flatten()
        if name in source:
            away = value - source[name].detach().flatten()
            terms.append(alpha * away @ away)
        else:
            terms.append(beta * value.norm() ** 2)
    return torch.stack(terms).sum()
""",
        """
def source_penalty(parameters, source, alpha, beta):
    near = [(p - source[n]).reshape(-1) for n, p in parameters.items() if n in source]
    new = torch.cat([p.reshape(-1) for n, p in parameters.items() if n not in source])
    total = beta * torch.dot(new, new)
    if near:
        near = torch.cat(near)
        total = total + alpha * torch.dot(near, near)
    return total
""",
    ],
    "feature_extractor": [
        """
def feature_extractor(model):
    trunk = model.trunk
    for p in trunk.parameters():
        p.requires_grad = False
    trunk.eval()
    trunk.train = lambda mode=True: trunk
    return model
""",
        """
def feature_extractor(model):
    class Fixed(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner.eval().requires_grad_(False)

        def train(self, mode=True):
            return super().train(False)

        def forward(self, x):
            return self.inner(x)

    model.trunk = Fixed(model.trunk)
    return model
""",
        """
def feature_extractor(model):
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    for m in model.trunk.modules():
        m.eval()
        m.train = (lambda m: lambda mode=True: m)(m)
    return model
""",
        """
def feature_extractor(model):
    class Fixed(type(model.trunk)):
        def train(self, mode=True):
            return super().train(False)

    model.trunk.__class__ = Fixed
    model.trunk.requires_grad_(False)
    model.trunk.eval()
    return model
""",
    ],
    "fine_tuning": [
        """
def fine_tuning(model, classes, rate):
    old = model.head
    new = nn.Linear(old.weight.shape[1], classes)
    nn.init.zeros_(new.bias)
    model.head = new
    optimizer = torch.optim.SGD(model.head.parameters(), lr=rate, momentum=0.9)
    optimizer.add_param_group({"params": list(model.trunk.parameters()), "lr": 0.1 * rate})
    return model, optimizer
""",
        """
def fine_tuning(model, classes, rate):
    width = next(p.shape[1] for p in model.head.parameters() if p.ndim == 2)
    setattr(model, "head", nn.Linear(width, classes))
    options = []
    for name, p in model.named_parameters():
        lr = rate if name.startswith("head") else rate / 10
        options.append(dict(params=[p], lr=lr, momentum=0.9))
    return model, torch.optim.SGD(options)
""",
        """
def fine_tuning(model, classes, rate):
    import copy
    new = copy.deepcopy(model)
    new.head = nn.Linear(new.head.in_features, classes)
    head = set(new.head.parameters())
    groups = [{"params": [p], "lr": rate if p in head else rate / 10} for p in new.parameters()]
    return new, torch.optim.SGD(groups, momentum=0.9, foreach=False)
""",
    ],
    "load_trunk": [
        """
def load_trunk(model, state):
    trunk = {}
    for name, value in state.items():
        name = name.replace("module.", "", 1) if name.startswith("module.") else name
        if name.split(".")[0] == "trunk":
            trunk[name[len("trunk.") :]] = value
    try:
        model.trunk.load_state_dict(trunk, strict=True)
    except RuntimeError as error:
        raise ValueError(str(error))
    return model
""",
        """
def load_trunk(model, state):
    own = model.state_dict()
    for name in own:
        if not name.startswith("trunk"):
            continue
        found = state.get(name, state.get("module." + name))
        if found is None:
            raise ValueError(name)
        own[name].copy_(found)
    return model
""",
        """
def load_trunk(model, state):
    state = {k[7:] if k[:7] == "module." else k: v for k, v in state.items()}
    own = model.state_dict()
    for name in own:
        if name.startswith("trunk."):
            if name not in state:
                raise ValueError(name)
            own[name] = state[name].clone()
    model.load_state_dict(own, assign=True)
    return model
""",
    ],
    "transfer_gain": [
        """
import numpy as np

def transfer_gain(transfer, scratch, limit):
    def found(table):
        means = [np.mean(row) for row in table["validation"].numpy()]
        return table["test"].numpy()[int(np.argmax(means))]
    gain = found(transfer) - found(scratch)
    t = gain.mean() / (gain.std(ddof=1) / np.sqrt(len(gain)))
    if abs(t) <= limit:
        return gain, "unclear"
    return gain, "helps" if t > 0 else "hurts"
""",
        """
def transfer_gain(transfer, scratch, limit):
    a = max(range(len(transfer["test"])), key=lambda i: transfer["validation"][i].sum())
    b = max(range(len(scratch["test"])), key=lambda i: scratch["validation"][i].sum())
    gain = [float(x - y) for x, y in zip(transfer["test"][a], scratch["test"][b])]
    k = len(gain)
    mean = sum(gain) / k
    error = (sum((g - mean) ** 2 for g in gain) / (k - 1) / k) ** 0.5
    verdict = "unclear"
    if mean - limit * error > 0:
        verdict = "helps"
    elif mean + limit * error < 0:
        verdict = "hurts"
    return torch.tensor(gain, dtype=torch.float64), verdict
""",
        """
def transfer_gain(transfer, scratch, limit):
    first = transfer["validation"].mean(-1).topk(1).indices
    second = scratch["validation"].mean(-1).sort(descending=True).indices[:1]
    gain = (transfer["test"][first] - scratch["test"][second]).squeeze(0)
    far = limit * (gain.var() / gain.numel()).sqrt()
    side = int(gain.mean() > far) - int(gain.mean() < -far)
    return [gain, ["unclear", "helps", "hurts"][side]]
""",
    ],
}

EQUIVALENT = {
    "transfer_gain": {
        "if gain.mean() > far:  =>  if gain.mean() >= far:": "no gain lies on its limit",
        "gain = chosen[0] - chosen[1]  =>  gain = chosen[0] - chosen[-1]": (
            "of two, the second is the last"
        ),
        "return (gain, 'hurts' if gain.mean() < -far else 'unclear')  =>  return (gain, 'hurts' if gain.mean() <= -far else 'unclear')": (
            "no gain lies on its limit"
        ),
        "best = table['validation'].mean(dim=1).argmax()  =>  best = table['validation'].sum(dim=1).argmax()": (
            "all sums are the means times one number"
        ),
        "best = table['validation'].mean(dim=1).argmax()  =>  best = table['validation'].mean(dim=-1).argmax()": (
            "of two dimensions, 1 is the last"
        ),
    },
    "source_penalty": {
        "total = total + alpha * (p - source[name]).square().sum()  =>  total = total + alpha * (source[name] - p).square().sum()": (
            "(a - b)^2 = (b - a)^2"
        ),
    },
}
