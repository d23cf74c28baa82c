"""Chapter 21: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "horizon_losses": [
        """
def horizon_losses(logits, time, died, horizons):
    losses = []
    for column, day in zip(logits.T, horizons):
        known = (died == 1) | (time >= day)
        labels = (died == 1) & (time <= day)
        if known.any():
            loss = F.binary_cross_entropy_with_logits(column[known], labels[known].to(column))
        else:
            loss = 0 * column.sum()
        losses.append(loss)
    return torch.stack(losses)
""",
        """
def horizon_losses(logits, time, died, horizons):
    # alive and dead, each with its own log-chance
    dead = (died[:, None] == 1) * (time[:, None] <= horizons)
    alive = time[:, None] > horizons
    alive = alive + (died[:, None] == 0) * (time[:, None] == horizons)
    said = dead * F.logsigmoid(logits) + alive * F.logsigmoid(-logits)
    return -said.sum(dim=0) / torch.maximum((dead + alive).sum(0), torch.ones_like(horizons))
""",
        """
def horizon_losses(logits, time, died, horizons):
    # patient by patient, with the two scores (0, z) of a softmax
    rows = []
    for column, day in zip(logits.unbind(1), horizons):
        who = [n for n in range(len(time)) if died[n] == 1 or time[n] >= day]
        if not who:
            rows.append((column * 0).sum())
            continue
        scores = torch.stack([torch.zeros_like(column[who]), column[who]], dim=1)
        dead = [int(died[n] == 1 and time[n] <= day) for n in who]
        rows.append(F.cross_entropy(scores, torch.tensor(dead, device=logits.device)))
    return torch.stack(rows)
""",
    ],
    "moved_chances": [
        """
def moved_chances(chances, before, now):
    ratio = before * (1 - now) / (now * (1 - before))
    return 1 / (1 + (1 / chances - 1) * ratio)
""",
        """
def moved_chances(chances, before, now):
    import math
    shift = math.log(now / (1 - now)) - math.log(before / (1 - before))
    return torch.sigmoid(torch.logit(chances) + shift)
""",
        """
def moved_chances(chances, before, now):
    k = (now / (1 - now)) / (before / (1 - before))
    return k * chances / (1 + (k - 1) * chances)
""",
    ],
    "decision_curve": [
        """
def decision_curve(chances, labels, cuts):
    def benefit(treated):
        y, treated = labels.double(), treated.double()
        return (treated * y).mean(1) - (treated * (1 - y)).mean(1) * cuts / (1 - cuts)
    treated = chances[None] >= cuts[:, None]
    return benefit(treated), benefit(treated | True)
""",
        """
def decision_curve(chances, labels, cuts):
    model, everyone = [], []
    for c in cuts.tolist():
        price = c / (1 - c)
        worth = [1.0 if y == 1 else -price for y in labels.tolist()]
        chosen = [w for w, p in zip(worth, chances.tolist()) if p >= c]
        model.append(sum(chosen) / len(worth))
        everyone.append(sum(worth) / len(worth))
    two = torch.tensor([model, everyone], dtype=cuts.dtype, device=cuts.device)
    return two[0], two[1]
""",
        """
def decision_curve(chances, labels, cuts):
    y = labels.to(chances)
    worth = y[None, :] - (1 - y)[None, :] / (1 / cuts[:, None] - 1)
    treated = (chances[None, :] >= cuts[:, None]).to(worth)
    return [(treated * worth).mean(dim=1), worth.mean(dim=1)]
""",
    ],
    "ready_table": [
        """
def ready_table(values, measured, time, died, train, day, horizon):
    columns = []
    for column, last in zip(values.T, measured.tolist()):
        if last > day:
            continue
        seen = column[train & ~column.isnan()]
        columns.append(column.nan_to_num(nan=float(seen.mean())))
    labels = torch.full_like(time, torch.nan)
    there = time >= day
    labels[there & (died == 1) & (time <= horizon)] = 1
    labels[there & ((time > horizon) | ((died == 0) & (time == horizon)))] = 0
    return torch.stack(columns, dim=1), labels
""",
        """
def ready_table(values, measured, time, died, train, day, horizon):
    x = values.clone()[:, ~(measured > day)]
    holes = x.isnan()
    weight = (~holes & train[:, None]).to(x)
    mean = (x.nan_to_num() * weight).sum(0) / weight.sum(0)
    x[holes] = mean.expand_as(x)[holes]
    dead, later = died.bool() & ~(time > horizon), died.bool() & (time > horizon)
    alive = ~died.bool() & ~(time < horizon)
    labels = torch.where(dead, 1.0, torch.where(later | alive, 0.0, torch.nan)).to(time)
    return x, labels.masked_fill(time < day, torch.nan)
""",
    ],
}

LAST_AXIS = "the last axis of a matrix is axis 1"

EQUIVALENT: dict[str, dict[str, str]] = {
    "decision_curve": {
        "found = (treated * labels).sum(1)  =>  found = (treated * labels).sum(-1)": LAST_AXIS,
        "needless = (treated * (1 - labels)).sum(1)  =>  needless = (treated * (1 - labels)).sum(-1)": (
            LAST_AXIS
        ),
    },
}
