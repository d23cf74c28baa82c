"""Chapter 4: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "numbers_shared": [
        """
def numbers_shared(first, second):
    total, seen = 0, set()
    for p in first.parameters():
        for q in second.parameters():
            if p.data_ptr() == q.data_ptr() and p.data_ptr() not in seen:
                seen.add(p.data_ptr())
                total += p.numel()
    return total
""",
        """
def numbers_shared(first, second):
    def places(model):
        return {(p.untyped_storage().data_ptr(), p.numel()) for p in model.parameters()}
    return sum(n for _, n in places(first) & places(second))
""",
        """
def numbers_shared(first, second):
    def numbers(network):
        return {p.data_ptr() + i * p.element_size()
                for p in network.parameters() for i in range(p.numel())}
    return len(numbers(first) & numbers(second))
""",
    ],
    "chained_outputs": [
        """
def chained_outputs(z, heads):
    earlier, outputs = [], {}
    for name in heads:
        W, b = heads[name]
        y = torch.nn.functional.linear(torch.cat([z[name]] + earlier, 1), W, b)
        earlier.append(y)
        outputs[name] = y
    return outputs
""",
        """
def chained_outputs(z, heads):
    k, outputs = next(iter(z.values())).shape[1], {}
    for name, (W, b) in heads.items():
        y, start = z[name] @ W[:, :k].T + b, k
        for read in outputs.values():
            y = y + read @ W[:, start : start + read.shape[1]].T
            start += read.shape[1]
        outputs[name] = y
    return outputs
""",
        """
def chained_outputs(z, heads):
    outputs = {}
    for t, (W, b) in heads.items():
        rows = []
        for i in range(len(z[t])):
            read = torch.cat([z[t][i]] + [y[i] for y in outputs.values()])
            rows.append(torch.stack([(w * read).sum() for w in W]) + b)
        outputs[t] = torch.stack(rows)
    return outputs
""",
    ],
    "expert_mixture": [
        """
def expert_mixture(x, experts, W, b):
    shares = (torch.einsum("bd,ted->tbe", x, W) + b[:, None]).softmax(-1)
    return torch.einsum("tbe,ebk->tbk", shares, experts)
""",
        """
def expert_mixture(x, experts, W, b):
    logits = x @ W.transpose(1, 2) + b.unsqueeze(1)
    raised = (logits - logits.amax(2, keepdim=True)).exp()
    shares = raised / raised.sum(2, keepdim=True)
    return sum(shares[:, :, e, None] * experts[e] for e in range(len(experts)))
""",
        """
def expert_mixture(x, experts, W, b):
    def one(gate, bias):
        return torch.einsum("be,ebk->bk", torch.softmax(x @ gate.T + bias, 1), experts)
    return torch.vmap(one)(W, b)
""",
    ],
    "epoch_rows": [
        """
def epoch_rows(sizes, orders, batch):
    import itertools
    streams = {t: itertools.chain.from_iterable(orders[t]) for t in sizes}
    left, batches = max(sizes.values()), []
    while left > 0:
        n = min(batch, left)
        batches.append({t: list(itertools.islice(s, n)) for t, s in streams.items()})
        left -= n
    return batches
""",
        """
def epoch_rows(sizes, orders, batch):
    longest, batches = max(sizes.values()), []
    for i in range(longest):
        if i % batch == 0:
            batches.append({t: [] for t in sizes})
        for t, n in sizes.items():
            batches[-1][t].append(orders[t][i // n][i % n])
    return batches
""",
        """
def epoch_rows(sizes, orders, batch):
    longest = max(sizes.values())
    parts = {t: torch.cat([torch.tensor(p) for p in orders[t]])[:longest].split(batch)
             for t in sizes}
    return [{t: parts[t][k] for t in sizes} for k in range(-(-longest // batch))]
""",
    ],
    "networks_on_one_trunk": [
        """
def networks_on_one_trunk(trunk, heads, rate):
    optimizer = torch.optim.SGD(trunk.parameters(), lr=rate)
    networks = {}
    for task, head in heads.items():
        networks[task] = nn.Sequential(trunk, head)
        held = {p for group in optimizer.param_groups for p in group["params"]}
        own = [p for p in head.parameters() if p not in held]
        optimizer.add_param_group({"params": own})
    return networks, optimizer
""",
        """
def networks_on_one_trunk(trunk, heads, rate):
    networks, parameters = {}, dict.fromkeys(trunk.parameters())
    for task, head in heads.items():
        networks[task] = nn.Sequential(trunk, head)
        parameters.update(dict.fromkeys(head.parameters()))
    return networks, torch.optim.SGD(list(parameters), rate)
""",
        """
def networks_on_one_trunk(trunk, heads, rate):
    networks = {t: nn.Sequential(*trunk, head) for t, head in heads.items()}
    return networks, torch.optim.SGD(nn.ModuleList(networks.values()).parameters(), lr=rate)
""",
    ],
}

EQUIVALENT = {
    "chained_outputs": {
        "read = torch.cat([z[name], *outputs.values()], dim=1)  =>  read = torch.cat([z[name], *outputs.values()], dim=-1)": (
            "everything joined has two dimensions, so 1 and -1 are the same one"
        ),
    },
    "epoch_rows": {
        "return [{t: rows[i:min(i + batch, longest)] for t, rows in streams.items()} for i in cuts]  =>  return [{t: rows[i:min(longest, i + batch)] for t, rows in streams.items()} for i in cuts]": (
            "the smaller of two numbers does not depend on their order"
        ),
    },
    "expert_mixture": {
        "shares = (x @ gate.T + bias).softmax(1)  =>  shares = (x @ gate.T + bias).softmax(-1)": (
            "the logits of one task have two dimensions, so 1 and -1 are the same one"
        ),
    },
}
