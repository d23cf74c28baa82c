"""Chapter 11: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "padded_attention": [
        """
def padded_attention(query, key, value, there):
    rows = []
    for q, k, v, t in zip(query, key, value, there):
        k, v = k[t], v[t]
        rows.append(torch.softmax(q @ k.T / q.shape[1] ** 0.5, dim=-1) @ v)
    return torch.stack(rows)
""",
        """
import torch.nn.functional as F


def padded_attention(query, key, value, there):
    mask = there.unsqueeze(1).expand(-1, query.shape[1], -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
""",
    ],
    "task_token_features": [
        """
def task_token_features(tokens, words, there):
    T = torch.stack(list(tokens.values()))
    scores = torch.einsum("td,bld->btl", T, words) / T.shape[1] ** 0.5
    scores = scores.masked_fill(~there[:, None], -torch.inf)
    read = scores.softmax(-1) @ words
    return {name: read[:, k] for k, name in enumerate(tokens)}
""",
        """
def task_token_features(tokens, words, there):
    def read(token):
        rows = []
        for text, t in zip(words, there):
            own = text[t]
            rows.append(((own @ token) / len(token) ** 0.5).softmax(0) @ own)
        return torch.stack(rows)
    return {name: read(token) for name, token in tokens.items()}
""",
    ],
    "pooled": [
        """
def pooled(words, there, ways):
    texts = [text[t] for text, t in zip(words, there)]
    z = {}
    for task, way in ways.items():
        if way == "mean":
            z[task] = torch.stack([text.mean(0) for text in texts])
        elif way == "max":
            z[task] = torch.stack([text.max(0).values for text in texts])
        elif way == "first":
            z[task] = torch.stack([text[0] for text in texts])
        else:
            z[task] = words * there.unsqueeze(-1)
    return z
""",
        """
def pooled(words, there, ways):
    m = there[:, :, None].to(words.dtype)
    out = {}
    for task in ways:
        if ways[task] == "first":
            out[task] = words.select(1, 0)
        elif ways[task] == "each":
            out[task] = words * m
        elif ways[task] == "mean":
            out[task] = torch.einsum("bld,bl->bd", words, m[..., 0] / m.sum(1))
        else:
            out[task] = torch.where(m.bool(), words, -1e300).max(dim=1)[0]
    return out
""",
    ],
    "hide_modality": [
        """
def hide_modality(there, lots, u, share):
    kept = there.clone()
    for row in range(len(kept)):
        own = there[row].nonzero().flatten().tolist()
        if float(u[row]) < share and len(own) > 1:
            kept[row, max(own, key=lambda m: float(lots[row, m]))] = False
    return kept
""",
        """
def hide_modality(there, lots, u, share):
    own = torch.where(there, lots, torch.full_like(lots, -1.0))
    largest = own == own.max(dim=1, keepdim=True).values
    hit = torch.logical_and(u < share, there.long().sum(1) >= 2)
    return torch.where(hit[:, None] & largest, torch.zeros_like(there), there)
""",
    ],
    "unseen_task": [
        """
def unseen_task(tasks, held_out):
    target = tasks[held_out]
    def ask(task, rows):
        return [(task["prompt"].replace("{text}", text), reply) for text, reply in rows]
    texts = [text for text, _ in target["rows"]]
    train = []
    for task in tasks.values():
        if task["kind"] == target["kind"]:
            continue
        train += ask(task, [row for row in task["rows"] if row[0] not in texts])
    return train, ask(target, target["rows"])
""",
        """
def unseen_task(tasks, held_out):
    test = [(tasks[held_out]["prompt"].format(text=t), a) for t, a in tasks[held_out]["rows"]]
    met = dict(tasks[held_out]["rows"])
    train = [
        (task["prompt"].format(text=t), a)
        for task in tasks.values()
        if task["kind"] != tasks[held_out]["kind"]
        for t, a in task["rows"]
        if t not in met
    ]
    return [train, test]
""",
    ],
}

LAST_AXIS = "the last axis of a matrix is axis 1"

EQUIVALENT: dict[str, dict[str, str]] = {
    "hide_modality": {
        "chosen = (lots * there).argmax(1)  =>  chosen = (lots * there).argmax(-1)": LAST_AXIS,
        "lost = torch.nn.functional.one_hot(chosen, lots.shape[1])  =>  lost = torch.nn.functional.one_hot(chosen, lots.shape[-1])": (
            LAST_AXIS
        ),
        "hit = (u < share) & (there.sum(1) > 1)  =>  hit = (u < share) & (there.sum(-1) > 1)": (
            LAST_AXIS
        ),
    },
    "pooled": {
        "kinds = {'first': words[:, 0], 'mean': each.sum(1) / there.sum(1, keepdim=True), 'max': words.masked_fill(hole, -torch.inf).amax(1), 'each': each}  =>  kinds = {'first': words[:, 0], 'mean': each.sum(1) / there.sum(-1, keepdim=True), 'max': words.masked_fill(hole, -torch.inf).amax(1), 'each': each}": (
            LAST_AXIS
        ),
    },
    "task_token_features": {
        "weights = scores.masked_fill(~there, -torch.inf).softmax(1)  =>  weights = scores.masked_fill(~there, -torch.inf).softmax(-1)": (
            LAST_AXIS
        ),
    },
}
