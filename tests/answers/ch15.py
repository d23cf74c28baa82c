"""Chapter 15: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "reverse": [
        """
class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * -ctx.strength, None

def reverse(x, strength):
    return _Back.apply(x, strength)
""",
        """
def reverse(x, strength):
    y = x.clone()
    if y.requires_grad:
        y.register_hook(lambda gradient: -strength * gradient)
    return y
""",
        """
def reverse(x, strength):
    turned = -strength * x
    return turned + (x - turned).detach()
""",
    ],
    "coral_loss": [
        """
def coral_loss(source, target):
    d = source.shape[1]
    a, b = (torch.cov(x.T).reshape(d, d) for x in (source, target))
    return torch.linalg.norm(a - b) ** 2 / (4 * d * d) if (a != b).any() else ((a - b) ** 2).sum()
""",
        """
def coral_loss(source, target):
    n, d = source.shape
    m = len(target)
    total = 0
    for i in range(d):
        for j in range(d):
            a, b = source[:, i] - source[:, i].mean(), source[:, j] - source[:, j].mean()
            e, f = target[:, i] - target[:, i].mean(), target[:, j] - target[:, j].mean()
            total = total + ((a * b).sum() / (n - 1) - (e * f).sum() / (m - 1)) ** 2
    return total / (2 * d) ** 2
""",
    ],
    "strength_now": [
        """
def strength_now(step, steps, largest):
    return largest * torch.tanh(torch.tensor(5 * step / steps))
""",
        """
def strength_now(step, steps, largest):
    import math

    return largest * math.tanh(5 * step / steps)
""",
        """
def strength_now(step, steps, largest):
    p = torch.tensor(step / steps, dtype=torch.float64)
    return largest * (2 * torch.sigmoid(10 * p) - 1)
""",
    ],
    "shares_of_target": [
        """
import numpy as np


def shares_of_target(labels, predicted, says, classes):
    M = np.zeros((classes, classes))
    np.add.at(M, (predicted.numpy(), labels.numpy()), 1)
    M /= M.sum(0)
    s = np.bincount(says.numpy(), minlength=classes) / len(says)
    q = np.linalg.lstsq(M, s, rcond=None)[0].clip(0)
    return (q / q.sum()).tolist()
""",
        """
def shares_of_target(labels, predicted, says, classes):
    said = torch.nn.functional.one_hot(predicted, classes).float()
    true = torch.nn.functional.one_hot(labels, classes).float()
    s = torch.nn.functional.one_hot(says, classes).float().mean(0)
    q = torch.linalg.solve(said.T @ true / true.sum(0), s).relu()
    return q / q.sum()
""",
        """
def shares_of_target(labels, predicted, says, classes):
    columns = [
        torch.bincount(predicted[labels == j], minlength=classes).double() / (labels == j).sum()
        for j in range(classes)
    ]
    s = torch.bincount(says, minlength=classes).double() / len(says)
    q = torch.linalg.inv(torch.stack(columns, dim=1)) @ s
    q[q < 0] = 0
    return q / q.sum()
""",
        """
def shares_of_target(labels, predicted, says, classes):
    import numpy as np

    y, p, s = labels.cpu().numpy(), predicted.cpu().numpy(), says.cpu().numpy()
    M = np.array([[np.mean(p[y == j] == i) for j in range(classes)] for i in range(classes)])
    q = np.linalg.solve(M, np.array([np.mean(s == i) for i in range(classes)]))
    q = np.maximum(q, 0)
    return torch.tensor(q / q.sum(), device=says.device)
""",
    ],
    "choose_strength": [
        """
def choose_strength(strengths, fit, source, target, rehearsal):
    def score(s, a, b):
        model = fit(a["x"], a["y"], b["x"], s)
        return (model(b["x_test"]) == b["y_test"]).float().mean().item()

    best = max(strengths, key=lambda s: score(s, *rehearsal))
    return best, score(best, source, target)
""",
        """
def choose_strength(strengths, fit, source, target, rehearsal):
    import numpy as np

    here, there = rehearsal
    rights = []
    for s in strengths:
        guesses = fit(here["x"], here["y"], there["x"], s)(there["x_test"])
        rights.append(sum(int(a == b) for a, b in zip(guesses, there["y_test"])))
    s = strengths[int(np.argmax(rights))]
    final = fit(source["x"], source["y"], target["x"], s)
    guesses = final(target["x_test"])
    return s, np.mean([int(a == b) for a, b in zip(guesses, target["y_test"])])
""",
    ],
}

GAP = "gap = covariances[0] - covariances[1]  =>  gap = covariances[1] - covariances[0]"
COUNTS = "the columns are divided by their sums, so a factor of all counts does not matter"
SCALE = "M q = s is linear, and q is divided by its sum: a positive factor of s does not matter"
RIGHT_IN_TEST = "right = (model(there['x_test']) == there['y_test']).double()"

EQUIVALENT: dict[str, dict[str, str]] = {
    "coral_loss": {
        GAP: "every entry is squared",
        "gap = covariances[0] - covariances[1]  =>  gap = covariances[0] - covariances[-1]": (
            "there are two: the last is the second"
        ),
        "centred = x - x.mean(0)  =>  centred = x.mean(0) - x": (
            "the product of two entries of the same sign change is the same"
        ),
        "covariances.append(centred.T @ centred / (len(x) - 1))  =>  "
        "covariances.append(centred.T @ centred / (1 - len(x)))": (
            "both matrices change their sign, and every entry of the gap is squared"
        ),
        "return gap.square().sum() / (4 * source.shape[1] ** 2)  =>  "
        "return gap.square().sum() / (4 * source.shape[-1] ** 2)": "features have two sides",
    },
    "shares_of_target": {
        "M[i, j] += 1  =>  M[i, j] -= 1": COUNTS,
        "M[i, j] += 1  =>  M[i, j] += 2": COUNTS,
        "M[i, j] += 1  =>  M[i, j] += -1": COUNTS,
        "M = M / M.sum(0)  =>  M = M / M.mean(0)": (
            "the mean is the sum over the number of classes: " + SCALE
        ),
        **{
            f"q = torch.linalg.solve(M, s / s.sum()).clamp(min=0)  =>  "
            f"q = torch.linalg.solve(M, {other}).clamp(min=0)": SCALE
            for other in ("s * s.sum()", "s", "s / s.mean()", "s / s.max()")
        },
    },
    "choose_strength": {
        f"{RIGHT_IN_TEST}.mean()  =>  {RIGHT_IN_TEST}.sum()": (
            "the number of right answers orders the strengths as their share does"
        ),
        "return (chosen, float(right))  =>  return (chosen, right)": "a scalar tensor will do",
        "chosen, best = (None, -1.0)  =>  chosen, best = (None, -2.0)": "no share is below 0",
        "chosen, best = (strength, float(right))  =>  chosen, best = (strength, right)": (
            "a scalar tensor compares as its number"
        ),
    },
}
