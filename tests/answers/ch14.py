"""Chapter 14: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "distillation_loss": [
        """
def distillation_loss(z, v, T):
    with torch.no_grad():
        p = torch.softmax(v / T, 1)
    q = torch.log_softmax(z / T, 1)
    return T * T * torch.nn.functional.kl_div(q, p, reduction="batchmean")
""",
        """
def distillation_loss(z, v, T):
    total = 0
    for student, teacher in zip(z, v):
        a = student / T - torch.logsumexp(student / T, 0)
        b = (teacher / T - torch.logsumexp(teacher / T, 0)).detach()
        total = total + sum(bi.exp() * (bi - ai) for ai, bi in zip(a, b))
    return T**2 * total / len(z)
""",
    ],
    "hot_gradient": [
        """
def hot_gradient(z, v):
    d = z - v
    n, c = d.shape
    centre = torch.eye(c, dtype=d.dtype, device=d.device) - 1 / c
    return d @ centre / c / n
""",
        """
def hot_gradient(z, v):
    z = z.detach().clone().requires_grad_()
    with torch.enable_grad():
        a = z - z.mean(1, keepdim=True)
        b = v - v.mean(1, keepdim=True)
        loss = ((a - b) ** 2).sum(1).mean() / (2 * z.shape[1])
    return torch.autograd.grad(loss, z)[0]
""",
    ],
    "several_teachers_loss": [
        """
def several_teachers_loss(outputs, answers, labels, T):
    losses = []
    for task in labels:
        z, y = outputs[task], labels[task]
        v = answers[task].detach()
        some = y != -1
        hard = torch.nn.functional.cross_entropy(z[some], y[some], reduction="sum")
        soft = torch.nn.functional.kl_div(
            torch.log_softmax(z[~some] / T, 1),
            torch.softmax(v[~some] / T, 1),
            reduction="sum",
        )
        losses.append((hard + T**2 * soft) / len(y))
    return torch.stack(losses).sum()
""",
        """
def several_teachers_loss(outputs, answers, labels, T):
    total = 0.0
    for task in sorted(outputs):
        for z, v, y in zip(outputs[task], answers[task], labels[task].tolist()):
            if y >= 0:
                loss = torch.logsumexp(z, 0) - z[y]
            else:
                p = torch.log_softmax(v.detach() / T, 0)
                q = torch.log_softmax(z / T, 0)
                loss = T * T * (p.exp() * (p - q)).sum()
            total = total + loss / len(labels[task])
    return total
""",
    ],
    "best_student": [
        """
def best_student(students, teacher, pools, inputs):
    right = teacher(inputs).detach().argmax(dim=1)
    best, name = -1, None
    for key in students:
        count = int((students[key](inputs).detach().argmax(dim=1) == right).sum())
        if count > best:
            best, name = count, key
    return name
""",
        """
def best_student(students, teacher, pools, inputs):
    def classes(network):
        return [int(network(x[None])[0].argmax()) for x in inputs]
    said = classes(teacher)
    differ = {
        name: sum(a != b for a, b in zip(classes(network), said))
        for name, network in students.items()
    }
    return sorted(differ, key=lambda name: differ[name])[0]
""",
    ],
    "one_byte": [
        """
def one_byte(W):
    q = torch.zeros(W.shape, dtype=torch.int8, device=W.device)
    scale = torch.ones(len(W), dtype=W.dtype, device=W.device)
    for i, row in enumerate(W):
        top = row.abs().max()
        if top > 0:
            scale[i] = top / 127
            q[i] = torch.round(row / scale[i]).to(torch.int8)
    return q, scale
""",
        """
import numpy as np


def one_byte(W):
    w = W.detach().cpu().numpy()
    top = np.abs(w).max(axis=1)
    scale = np.where(top == 0, 127, top) / 127
    q = np.rint(w / scale[:, None]).astype(np.int8)
    return torch.from_numpy(q).to(W.device), torch.from_numpy(scale).to(W)
""",
    ],
}

_LAST = "the classes are the last of two dimensions"
_IMPLICIT = "torch takes dimension 1 of two where none is named, and warns"
_LOGS = "log_p, log_q = (F.log_softmax(v / T, dim=1), F.log_softmax(z / T, dim=1))"

EQUIVALENT = {
    "distillation_loss": {
        "log_p = F.log_softmax(v.detach() / T, dim=1)  =>  log_p = F.log_softmax(v.detach() / T)": (
            _IMPLICIT
        ),
        "log_q = F.log_softmax(z / T, dim=1)  =>  log_q = F.log_softmax(z / T)": _IMPLICIT,
        "log_p = F.log_softmax(v.detach() / T, dim=1)  =>  log_p = F.log_softmax(v.detach() / T, dim=-1)": (
            _LAST
        ),
        "log_q = F.log_softmax(z / T, dim=1)  =>  log_q = F.log_softmax(z / T, dim=-1)": _LAST,
        "divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)  =>  divergence = (log_p.exp() * (log_p - log_q)).sum(dim=-1)": (
            _LAST
        ),
    },
    "hot_gradient": {
        "student = z - z.mean(dim=1, keepdim=True)  =>  student = z - z.mean(dim=-1, keepdim=True)": (
            _LAST
        ),
        "teacher = v - v.mean(dim=1, keepdim=True)  =>  teacher = v - v.mean(dim=-1, keepdim=True)": (
            _LAST
        ),
    },
    "several_teachers_loss": {
        f"{_LOGS}  =>  log_p, log_q = (F.log_softmax(v / T), F.log_softmax(z / T, dim=1))": (
            _IMPLICIT
        ),
        f"{_LOGS}  =>  log_p, log_q = (F.log_softmax(v / T, dim=1), F.log_softmax(z / T))": (
            _IMPLICIT
        ),
        f"{_LOGS}  =>  log_p, log_q = (F.log_softmax(v / T, dim=-1), F.log_softmax(z / T, dim=1))": (
            _LAST
        ),
        f"{_LOGS}  =>  log_p, log_q = (F.log_softmax(v / T, dim=1), F.log_softmax(z / T, dim=-1))": (
            _LAST
        ),
        "soft = T ** 2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)  =>  soft = T ** 2 * (log_p.exp() * (log_p - log_q)).sum(dim=-1)": (
            _LAST
        ),
    },
    "best_student": {
        "said = teacher(inputs).argmax(1)  =>  said = teacher(inputs).argmax(-1)": _LAST,
        "same = student(inputs).argmax(1) == said  =>  same = student(inputs).argmax(-1) == said": (
            _LAST
        ),
        "agreement[name] = float(same.float().mean())  =>  agreement[name] = same.float().mean()": (
            "a tensor compares as its number does"
        ),
        "agreement[name] = float(same.float().mean())  =>  agreement[name] = float(same.float().sum())": (
            "all students meet the same inputs, so counts are in the order of shares"
        ),
    },
    "one_byte": {
        "scale = W.abs().amax(dim=1) / 127  =>  scale = W.abs().amax(dim=-1) / 127": (
            "the inputs are the last of two dimensions"
        ),
    },
}
