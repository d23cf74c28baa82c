"""Chapter 5: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "partial_losses": [
        """
def partial_losses(prediction, target):
    found = []
    for t in range(target.shape[1]):
        rows = torch.isfinite(target[:, t])
        if rows.any():
            found.append(torch.nn.functional.mse_loss(prediction[rows, t], target[rows, t]))
        else:
            found.append(prediction[:, t].sum() * 0)
    return torch.stack(found)
""",
        """
def partial_losses(prediction, target):
    missing = torch.isnan(target)
    filled = target.masked_fill(missing, 0.0)
    squares = (prediction.masked_fill(missing, 0.0) - filled).pow(2)
    count = (1 - missing.to(prediction.dtype)).sum(dim=0)
    return squares.sum(dim=0) / torch.maximum(count, torch.ones_like(count))
""",
        """
def partial_losses(prediction, target):
    losses = []
    for p, y in zip(prediction.T, target.T):
        k = ~torch.isnan(y)
        losses.append(torch.nn.functional.mse_loss(p[k], y[k]) if k.any() else 0 * p[k].sum())
    return torch.stack(losses)
""",
        """
def partial_losses(prediction, target):
    mask = (~target.isnan()).to(prediction.dtype)
    error = prediction - torch.nan_to_num(target, nan=0.0)
    n = torch.einsum("nt->t", mask)
    squares = torch.einsum("nt,nt,nt->t", mask, error, error)
    return squares / torch.where(n > 0, n, torch.ones_like(n))
""",
    ],
    "noisy_total": [
        """
def noisy_total(losses, s, regression):
    total = losses.new_zeros(())
    for L, s_t, r in zip(losses, s, regression):
        sigma = torch.exp(s_t / 2)
        total = total + L / (2 * sigma**2 if r else sigma**2) + torch.log(sigma)
    return total
""",
        """
def noisy_total(losses, s, regression):
    precision = 1 / s.exp() / (1 + regression.to(s.dtype))
    return precision @ losses + 0.5 * s.sum()
""",
        """
def noisy_total(losses, s, regression):
    def one(loss, v, r):
        return torch.where(r, loss / 2, loss) * torch.exp(-v) + v / 2
    return torch.func.vmap(one)(losses, s, regression).sum()
""",
        """
def noisy_total(losses, s, regression):
    a = losses[regression] @ torch.exp(-s[regression]) / 2
    b = losses[~regression] @ torch.exp(-s[~regression])
    return a + b + 0.5 * s.sum()
""",
    ],
    "lowest_total": [
        """
def lowest_total(losses, regression):
    s = torch.log(losses) + (~regression) * math.log(2)
    return s, (len(losses) + s.sum()) / 2
""".replace("math.log(2)", "0.6931471805599453"),
        """
def lowest_total(losses, regression):
    f = 1 - 0.5 * regression.to(losses)
    sigma = (2 * f * losses).sqrt()
    s = 2 * sigma.log()
    return s, (f * losses / sigma.square()).sum() + sigma.log().sum()
""",
        """
def lowest_total(losses, regression):
    with torch.no_grad():
        s = torch.where(regression, losses, 2 * losses).log()
    c = torch.where(regression, 0.5, 1.0).to(losses)
    return s, (c * losses * torch.exp(-s) + s / 2).sum()
""",
        """
import numpy as np


def lowest_total(losses, regression):
    s = np.log(losses.detach().cpu().numpy() * np.where(regression.cpu().numpy(), 1, 2))
    s = torch.as_tensor(s, dtype=losses.dtype, device=losses.device)
    return [s, 0.5 * len(s) + 0.5 * s.sum()]
""",
    ],
    "joint_optimizer": [
        """
def joint_optimizer(model, combine, rate, decay):
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    for p in combine.parameters():
        optimizer.add_param_group({"params": [p], "weight_decay": 0})
    return optimizer
""",
        """
def joint_optimizer(model, combine, rate, decay):
    free = [dict(params=[p]) for p in combine.parameters()]
    decayed = [dict(params=model.parameters(), weight_decay=decay)]
    return torch.optim.AdamW(free + decayed, rate, weight_decay=0)
""",
        """
def joint_optimizer(model, combine, rate, decay):
    def trained(module, own):
        params = (p for p in module.parameters() if p.requires_grad)
        return {"params": params, "weight_decay": own, "lr": rate}
    return torch.optim.AdamW([trained(combine, 0.0), trained(model, decay)], lr=1.0, foreach=True)
""",
        """
def joint_optimizer(model, combine, rate, decay):
    both = nn.ModuleDict({"combine": combine, "model": model})
    groups = []
    for name, p in both.named_parameters():
        groups.append({"params": [p], "weight_decay": decay if name.startswith("model.") else 0.0})
    return torch.optim.AdamW(groups, lr=rate)
""",
    ],
    "gradnorm_target": [
        """
def gradnorm_target(weights, norms, losses, first, alpha):
    T = len(weights)
    mean = torch.dot(weights, norms) / T
    r = T * (losses / first) / (losses / first).sum()
    target = mean * torch.exp(alpha * torch.log(r))
    return target, torch.where(weights * norms > target, norms, -norms)
""",
        """
def gradnorm_target(weights, norms, losses, first, alpha):
    w = weights.clone().requires_grad_()
    progress = losses / first
    target = (w * norms).mean().detach() * (progress / progress.mean()).pow(alpha)
    slope, = torch.autograd.grad((w * norms - target).abs().sum(), w)
    return target, slope
""",
        """
import numpy as np


def gradnorm_target(weights, norms, losses, first, alpha):
    w, g, l, f = (a.detach().cpu().numpy() for a in (weights, norms, losses, first))
    r = l / f
    target = np.mean(w * g) * (r / r.mean()) ** alpha
    slope = g * np.sign(w * g - target)
    return torch.as_tensor(target).to(weights), torch.as_tensor(slope).to(weights)
""",
        """
def gradnorm_target(weights, norms, losses, first, alpha):
    r = losses / first
    rel = torch.exp(alpha * (r.log() - r.mean().log()))
    target = torch.dot(weights, norms) / len(norms) * rel
    f = lambda w: torch.sum(torch.abs(w * norms - target))
    return target, torch.func.grad(f)(weights)
""",
    ],
}

EQUIVALENT = {
    "partial_losses": {
        "error = torch.where(known, prediction - target, 0)  =>  error = torch.where(known, target - prediction, 0)": (
            "a square has no sign"
        ),
    },
    "gradnorm_target": {
        "return (target, torch.where(sizes > target, norms, -norms))  =>  return (target, torch.where(sizes >= target, norms, -norms))": (
            "differs only where a size equals its target exactly, where the derivative is not"
            " defined"
        ),
    },
}
