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
