"""Exercises of chapter 4: what the tasks share."""

from copy import deepcopy

import torch
from torch import nn

from ..checks.exercise import exercise
from .inputs import (
    LEAVES_NO_TRACE,
    batch,
    different,
    expect,
    filled,
    layer,
    leaves_no_trace,
    shuffled,
    task_names,
    trunk,
    twin,
    whole,
)


# ----------------------------------------------------------------- 1. do they share, or look alike?
# inputs
def _networks(kind):
    """Two networks, alike or with something in common.

    one: a nested trunk with buffers and a frozen layer, at another place in the second; copy:
    alike, but for the memory of one tensor; tied: a tensor that has another name in the second,
    or that is twice in the first.
    """

    def draw(generator):
        if kind == "tied":
            wide = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
            wide[1].weight = nn.Parameter(wide[0].weight.detach())
            second = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(3, 3, bias=False))
            second[2].weight = wide[0].weight
            return wide, second
        body, _, width = trunk(generator, whole(generator, 1, 4), frozen=True, shared=True)
        first = nn.Sequential(body, layer(1, width, 2))
        if kind == "one":
            return first, nn.Sequential(layer(1, width, width), nn.Sequential(body, nn.Tanh()))
        second = twin(first)
        # the same memory in another Parameter
        second[1].bias = nn.Parameter(first[1].bias.detach())
        return first, second

    return draw


# reference
@exercise(
    [_networks(kind) for kind in ("one", "copy", "tied")],
    points=1,
    grad=False,
    device=False,
    hints=(
        (
            "Equal values are no proof: a copy has them too. Where does a tensor keep its"
            " numbers, and what tells you that place?"
        ),
        "p.data_ptr() is the place. Collect those of the second network's parameters in a set.",
        (
            "Then add up p.numel() for the first's parameters with p.data_ptr() in that set,"
            " each place once."
        ),
    ),
)
def numbers_shared(first, second):
    """How many numbers two networks share: parameters of both
    that lie in the same place of the memory, whatever their
    names and their values. A place that the first network uses
    twice counts once. first, second: nn.Module. Return an int.
    """
    ### BEGIN SOLUTION
    places = {p.data_ptr() for p in second.parameters()}
    found = {p.data_ptr(): p.numel() for p in first.parameters()}
    return sum(n for place, n in found.items() if place in places)
    ### END SOLUTION


# laws
@numbers_shared.law("does not depend on which network comes first")
def _(answer, first, second):
    return answer(first, second) == answer(second, first)


# mistakes
@numbers_shared.mistake(
    "You compare values. A copy has the same values, and goes its own way with the first step."
)
def _(first, second):
    return sum(
        p.numel()
        for p in first.parameters()
        if any(p.shape == q.shape and torch.equal(p, q) for q in second.parameters())
    )


@numbers_shared.mistake(
    "You compare names and shapes."
    " Two networks of one architecture have those in common and nothing else."
)
def _(first, second):
    shapes = {name: q.shape for name, q in second.named_parameters()}
    return sum(p.numel() for name, p in first.named_parameters() if shapes.get(name) == p.shape)


@numbers_shared.mistake(
    "You compare the Parameter objects. Two of them may lie on the same memory: compare data_ptr()."
)
def _(first, second):
    held = {id(q) for q in second.parameters()}
    return sum(p.numel() for p in first.parameters() if id(p) in held)


@numbers_shared.mistake(
    "You compare memory, but only between parameters of the same name."
    " A shared tensor may have another name."
)
def _(first, second):
    places = {name: q.data_ptr() for name, q in second.named_parameters()}
    return sum(
        p.numel() for name, p in first.named_parameters() if places.get(name) == p.data_ptr()
    )


@numbers_shared.mistake("You count tensors. The question is about numbers: numel() of each.")
def _(first, second):
    return len(
        {p.data_ptr() for p in first.parameters()} & {q.data_ptr() for q in second.parameters()}
    )


@numbers_shared.mistake("A place that the first network uses twice is counted twice.")
def _(first, second):
    places = {q.data_ptr() for q in second.parameters()}
    return sum(p.numel() for p in first.parameters() if p.data_ptr() in places)


@numbers_shared.mistake("A place that the second network uses twice is counted twice.")
def _(first, second):
    places = {p.data_ptr() for p in first.parameters()}
    return sum(q.numel() for q in second.parameters() if q.data_ptr() in places)


@numbers_shared.mistake(
    "Buffers are counted too, such as BatchNorm's running statistics."
    " The question is about parameters."
)
def _(first, second):
    def places(network):
        held = [*network.parameters(), *network.buffers()]
        return {t.data_ptr(): t.numel() for t in held}

    return sum(n for place, n in places(first).items() if place in places(second))


@numbers_shared.mistake(
    "Parameters that are frozen are left out. They lie in one place for both networks all the same."
)
def _(first, second):
    places = {q.data_ptr() for q in second.parameters() if q.requires_grad}
    found = {p.data_ptr(): p.numel() for p in first.parameters() if p.requires_grad}
    return sum(n for place, n in found.items() if place in places)


@numbers_shared.mistake(
    "You compare the parameters position by position. What is shared may stand anywhere."
)
def _(first, second):
    pairs = zip(first.parameters(), second.parameters(), strict=False)
    found = {p.data_ptr(): p.numel() for p, q in pairs if p.data_ptr() == q.data_ptr()}
    return sum(found.values())


# -------------------------------------------------------------------------- 2. a task reads another
# inputs
def _chain(tasks, rows=None):
    """Tasks whose names, features and heads come in orders of their own, and widths that differ."""

    def draw(generator):
        names = task_names(generator, tasks)
        k = whole(generator, 2, 5)
        n = rows or whole(generator, 2, 6)
        z = {t: torch.randn(n, k, generator=generator) for t in names}
        heads, read = {}, 0
        for t, m in zip(names, different(generator, tasks, 1, 6), strict=True):
            heads[t] = [
                torch.randn(m, k + read, generator=generator),
                torch.randn(m, generator=generator),
            ]
            read += m
        return shuffled(generator, z), heads

    return draw


def _chain_of_equals(generator):
    """Three tasks with two outputs each, whose features come in another order than the heads."""
    names = task_names(generator, 3)
    z = {t: torch.randn(4, 3, generator=generator) for t in names}
    heads = {
        t: [torch.randn(2, 3 + 2 * i, generator=generator), torch.randn(2, generator=generator)]
        for i, t in enumerate(names)
    }
    return shuffled(generator, z), heads


# reference
@exercise(
    [_chain_of_equals, _chain(4), _chain(3, rows=1)],
    points=2,
    hints=(
        "What does the third head read that the first does not?",
        (
            "Go through the heads in order and keep the outputs so far in a list: a head reads"
            " its own features and then all of that list."
        ),
        "torch.cat([z[name], *earlier], dim=1) @ W.T + b, then append the result to the list.",
    ),
)
def chained_outputs(z, heads):
    """Sequential heads: each task also reads the outputs of all
    tasks before it, y_t = W_t [z_t, y_1, ..., y_{t-1}] + b_t.

    z: dict task -> features [B, k]. heads: dict task -> [W, b]
    with W [m, k + numbers read] and b [m], in the order in
    which the tasks read each other. Return a dict task ->
    output [B, m]. Gradients flow through what is read.
    """
    ### BEGIN SOLUTION
    outputs = {}
    for name, (W, b) in heads.items():
        read = torch.cat([z[name], *outputs.values()], dim=1)
        outputs[name] = read @ W.T + b
    return outputs
    ### END SOLUTION


# laws
def _chained(z, heads, order=lambda own, earlier: [own, *earlier], bias=True, seen=lambda y: y):
    """The chain with one thing changed: what the mistakes below are made of."""
    outputs = {}
    for name, (W, b) in heads.items():
        read = torch.cat(order(z[name], [seen(y) for y in outputs.values()]), dim=1)
        outputs[name] = read @ W[:, : read.shape[1]].T + (b if bias else 0)
    return outputs


@chained_outputs.law("the first task's output does not depend on the others")
def _(answer, z, heads):
    first = next(iter(heads))
    return torch.allclose(
        answer(z, heads)[first], answer({first: z[first]}, {first: heads[first]})[first]
    )


chained_outputs.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
chained_outputs.variants(
    _chained,
    {
        "What is read is cut from the graph, so a later task cannot teach the earlier ones."
        " Leave out the detach.": {"seen": lambda y: y.detach()},
        "The features come first, then the outputs: W_t has its columns in this order.": {
            "order": lambda own, earlier: [*earlier, own]
        },
        "The outputs are read in the wrong order: the first task's comes first.": {
            "order": lambda own, earlier: [own, *earlier[::-1]]
        },
        "The bias is missing.": {"bias": False},
        "You pass softmaxes on. The outputs are read as they are.": {
            "seen": lambda y: y.softmax(1)
        },
    },
)


@chained_outputs.mistake(
    "Features and heads are paired by position. The two dicts have orders of their own: go by name."
)
def _(z, heads):
    outputs = {}
    for features, (name, (W, b)) in zip(z.values(), heads.items(), strict=True):
        outputs[name] = torch.cat([features, *outputs.values()], dim=1) @ W.T + b
    return outputs


@chained_outputs.mistake("The tasks run side by side here: nobody reads anybody's output.")
def _(z, heads):
    return {name: z[name] @ W[:, : z[name].shape[1]].T + b for name, (W, b) in heads.items()}


@chained_outputs.mistake("All heads read the first task's features; each has its own.")
def _(z, heads):
    first = z[next(iter(heads))]
    return _chained(dict.fromkeys(heads, first), heads)


@chained_outputs.mistake(
    "Each task reads only the one right before it. It is to read all earlier ones."
)
def _(z, heads):
    outputs, last = {}, []
    for name, (W, b) in heads.items():
        read = torch.cat([z[name], *last], dim=1)
        outputs[name] = read @ W[:, : read.shape[1]].T + b
        last = [outputs[name]]
    return outputs


# ------------------------------------------------------------------------------------- 3. the gates
# inputs
def _mixture(kind):
    """Examples, features, experts, outputs and tasks whose numbers all differ.

    one: one example, expert, feature and output each, of two tasks; sharp: logits so far apart
    that one expert gets nearly everything, and about 100, so that in 32 bits their exponentials
    are infinite.
    """

    def draw(generator):
        rows, d, k, experts, tasks = different(generator, 5, 2, 8)
        if kind == "one":
            rows, d, k, experts, tasks = 1, 1, 1, 1, 2
        width, level = (8.0, 100.0) if kind == "sharp" else (2.0, 0.0)
        return (
            torch.randn(rows, d, generator=generator),
            torch.randn(experts, rows, k, generator=generator),
            width * torch.randn(tasks, experts, d, generator=generator) / d**0.5,
            level + torch.randn(tasks, experts, generator=generator),
        )

    return draw


# reference
@exercise(
    [_mixture("plain"), _mixture("sharp"), _mixture("one")],
    points=2,
    hints=(
        "Over which dimension must the shares of one example add up to 1?",
        (
            "Task t gives each example one logit per expert: x @ W[t].T + b[t], which is [B, E]."
            " A softmax over the experts turns a row into shares."
        ),
        (
            "For task t: shares = (x @ W[t].T + b[t]).softmax(1) [B, E], experts [E, B, k]. The"
            " sum over e of shares[:, e, None] * experts[e] is [B, k]."
        ),
    ),
)
def expert_mixture(x, experts, W, b):
    """MMoE's features: for task t the sum over the experts e of
    softmax(W_t x + b_t)_e times the output of expert e.

    x: [B, d]; experts: their outputs on x, [E, B, k]; gates:
    W [T, E, d] and b [T, E]. Return [T, B, k]. What goes into
    the softmax may be in the hundreds.
    """
    ### BEGIN SOLUTION
    features = []
    for gate, bias in zip(W, b):
        shares = (x @ gate.T + bias).softmax(1)
        features.append((shares.T[:, :, None] * experts).sum(0))
    return torch.stack(features)
    ### END SOLUTION


# laws
def _logits(x, W, b):
    return torch.einsum("bd,ted->tbe", x, W) + b[:, None]


def _mixed(shares, experts):
    return torch.einsum("tbe,ebk->tbk", shares, experts)


@expert_mixture.law("with equal gates all tasks get the same features")
def _(answer, x, experts, W, b):
    same = answer(x, experts, W[:1].expand_as(W), b[:1].expand_as(b))
    return torch.allclose(same[0], same[-1], atol=1e-6)


@expert_mixture.law("experts that agree are returned as they are")
def _(answer, x, experts, W, b):
    return torch.allclose(answer(x, experts[:1].expand_as(experts), W, b)[0], experts[0], atol=1e-5)


expert_mixture.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
@expert_mixture.mistake(
    "The softmax runs over the examples. Each example's shares over the *experts* sum to 1."
)
def _(x, experts, W, b):
    return _mixed(_logits(x, W, b).softmax(1), experts)

@expert_mixture.mistake(
    "The exponential of a large number is infinite, and infinite over infinite is nan. softmax()"
    " takes the largest one away first, which changes no share."
)
def _(x, experts, W, b):
    shares = _logits(x, W, b).exp()
    return _mixed(shares / shares.sum(-1, keepdim=True), experts)



@expert_mixture.mistake(
    "The softmax runs over the tasks, which then compete for an expert."
    " Each task's shares over the experts sum to 1."
)
def _(x, experts, W, b):
    return _mixed(_logits(x, W, b).softmax(0), experts)


@expert_mixture.mistake(
    "You weight by the logits themselves. A softmax makes them positive shares."
)
def _(x, experts, W, b):
    return _mixed(_logits(x, W, b), experts)


@expert_mixture.mistake(
    "A sigmoid opens each expert by itself;"
    " the shares then do not sum to 1. MMoE's gate is a softmax."
)
def _(x, experts, W, b):
    return _mixed(_logits(x, W, b).sigmoid(), experts)


@expert_mixture.mistake(
    "All tasks use the first gate. That is one gate for all (OMoE);"
    " the first M of MMoE is one gate per task."
)
def _(x, experts, W, b):
    return _mixed(_logits(x, W[:1].expand_as(W), b[:1].expand_as(b)).softmax(2), experts)


@expert_mixture.mistake("The gate's bias is missing.")
def _(x, experts, W, b):
    return _mixed(_logits(x, W, torch.zeros_like(b)).softmax(2), experts)


@expert_mixture.mistake(
    "One expert takes all: you use the largest share alone."
    " The mixture is soft, and an argmax has no gradient."
)
def _(x, experts, W, b):
    winner = _logits(x, W, b).argmax(2)
    return _mixed(nn.functional.one_hot(winner, W.shape[1]).to(experts), experts)


@expert_mixture.mistake("The shares are averaged over the batch. Each example has its own.")
def _(x, experts, W, b):
    shares = _logits(x, W, b).softmax(2)
    return _mixed(shares.mean(1, keepdim=True).expand_as(shares), experts)


@expert_mixture.mistake(
    "A softmax of a softmax: the shares come out nearly even, whatever the gate says. Take it once."
)
def _(x, experts, W, b):
    return _mixed(_logits(x, W, b).softmax(2).softmax(2), experts)


@expert_mixture.mistake(
    "You take the mean over the experts after weighting them, which divides by E once too often."
)
def _(x, experts, W, b):
    return _mixed(_logits(x, W, b).softmax(2), experts) / len(experts)


# --------------------------------------------------------------------- 4. loaders of unequal length
# inputs
def _passes(kind):
    """Sets whose names follow no order, and passes that come in an order of their own.

    plain: the batches do not fit; fitting: the largest is a whole number of batches, and two sets
    are equally large; tiny: a set of one row, seen in every batch many times; whole: one batch is
    larger than all; alone: one set.
    """

    def draw(generator):
        batch = whole(generator, 3, 6)
        longest = batch * whole(generator, 2, 4)
        last = 0 if kind == "fitting" else whole(generator, 1, batch)
        sizes = [longest + last, *different(generator, 2, batch + 1, longest)]
        sizes[2] = {"fitting": longest, "tiny": 1}.get(kind, sizes[2])
        sizes = sizes[:1] if kind == "alone" else sizes
        batch = max(sizes) + 2 if kind == "whole" else batch
        drawn = dict(zip(task_names(generator, len(sizes)), sizes, strict=True))
        sizes = shuffled(generator, drawn)
        orders = {
            t: [torch.randperm(n, generator=generator).tolist() for _ in range(longest // n + 4)]
            for t, n in sizes.items()
        }
        return sizes, shuffled(generator, orders), batch

    return draw


def _numbered(answer, sizes, orders, batch):
    """The answer's batches with plain lists of row numbers, however it keeps them."""
    batches = answer(sizes, orders, batch)
    fits = isinstance(batches, list | tuple) and all(isinstance(part, dict) for part in batches)
    expect(fits, "a list of dicts", batches)

    def numbers(rows):
        return rows.tolist() if hasattr(rows, "tolist") else rows

    return [{t: numbers(rows) for t, rows in part.items()} for part in batches]


# reference
def _zipped(sizes, orders, batch):
    """One epoch over data sets of unequal size, one task each.

    sizes: dict task -> number of rows. orders: dict task -> list
    of passes; orders[t][k] is the order of the rows of set t in
    its pass number k. Return the batches, a list of dicts task
    -> row numbers. A batch has `batch` rows of every set. The
    epoch ends when the largest set has been seen once, so the
    last batch may be smaller, for all alike. A smaller set goes
    on with its next pass, in the middle of a batch if need be.
    """
    parts = []
    for task in sizes:
        rows, cuts = orders[task][0], range(0, sizes[task], batch)
        parts.append([rows[i : i + batch] for i in cuts])
    return [dict(zip(sizes, rows)) for rows in zip(*parts)]


@exercise(
    [_passes(kind) for kind in ("plain", "fitting", "tiny", "whole", "alone")],
    points=2,
    call=_numbered,
    grad=False,
    device=False,
    starter=_zipped,
    hints=(
        "zip ends with the shortest. How many rows of the larger sets has nobody seen?",
        (
            "Make one long stream for each task: its passes one after the other. Cut all streams"
            " at the same places, up to the largest size."
        ),
        (
            "sum(orders[t], []) is the stream of task t; its batches are stream[i : min(i +"
            " batch, longest)] for i in range(0, longest, batch), with longest ="
            " max(sizes.values())."
        ),
    ),
)
def epoch_rows(sizes, orders, batch):
    longest = max(sizes.values())
    streams = {t: sum(passes, []) for t, passes in orders.items()}
    cuts = range(0, longest, batch)
    return [{t: rows[i : min(i + batch, longest)] for t, rows in streams.items()} for i in cuts]


# laws
@epoch_rows.law("shows every row of the largest set exactly once")
def _(answer, sizes, orders, batch):
    task = max(sizes, key=sizes.get)
    return sorted(row for part in answer(sizes, orders, batch) for row in part[task]) == list(
        range(sizes[task])
    )


@epoch_rows.law("has as many rows of each task in a batch")
def _(answer, sizes, orders, batch):
    return all(
        len({len(rows) for rows in part.values()}) == 1 for part in answer(sizes, orders, batch)
    )


epoch_rows.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _cut(streams, longest, batch):
    return [
        {t: rows[i : min(i + batch, longest)] for t, rows in streams.items()}
        for i in range(0, longest, batch)
    ]


@epoch_rows.mistake(
    "zip ends with the shortest set:"
    " the others' remaining rows are never seen, in any epoch of this order."
)
def _(sizes, orders, batch):
    return _zipped(sizes, orders, batch)


@epoch_rows.mistake(
    "The epoch ends with the smallest set, so most rows of the largest are not seen."
)
def _(sizes, orders, batch):
    return _cut({t: sum(passes, []) for t, passes in orders.items()}, min(sizes.values()), batch)


@epoch_rows.mistake(
    "The epoch ends with the set that comes first in `sizes`. The largest may stand anywhere."
)
def _(sizes, orders, batch):
    streams = {t: sum(passes, []) for t, passes in orders.items()}
    return _cut(streams, next(iter(sizes.values())), batch)


@epoch_rows.mistake(
    "A smaller set goes on for two passes only. A set of one row needs as many as the largest has"
    " rows: join all passes."
)
def _(sizes, orders, batch):
    streams = {t: passes[0] + passes[1] for t, passes in orders.items()}
    return _cut(streams, max(sizes.values()), batch)


@epoch_rows.mistake(
    "Sets and orders are paired by position. The two dicts have orders of their own: go by name."
)
def _(sizes, orders, batch):
    pairs = zip(sizes, orders.values(), strict=True)
    return _cut({t: sum(passes, []) for t, passes in pairs}, max(sizes.values()), batch)


@epoch_rows.mistake(
    "A smaller set repeats its first order, as itertools.cycle does:"
    " the same rows meet in a batch again and again. Take the next pass."
)
def _(sizes, orders, batch):
    return _cut(
        {t: passes[0] * len(passes) for t, passes in orders.items()}, max(sizes.values()), batch
    )


@epoch_rows.mistake(
    "The last batch is filled up beyond the largest set's end,"
    " so some of its rows come twice in an epoch."
)
def _(sizes, orders, batch):
    streams = {t: sum(passes, []) for t, passes in orders.items()}
    return [
        {t: rows[i : i + batch] for t, rows in streams.items()}
        for i in range(0, max(sizes.values()), batch)
    ]


@epoch_rows.mistake(
    "The last, smaller batch is dropped: some rows of the largest set are not seen."
)
def _(sizes, orders, batch):
    longest = max(sizes.values())
    return _cut(
        {t: sum(passes, []) for t, passes in orders.items()}, longest - longest % batch, batch
    )


@epoch_rows.mistake(
    "A smaller set ends its pass with a short batch."
    " It is to go on with its next pass in the same batch."
)
def _(sizes, orders, batch):
    longest, found = max(sizes.values()), {}
    for t, passes in orders.items():
        found[t] = [rows[i : i + batch] for rows in passes for i in range(0, len(rows), batch)]
    return [{t: parts[k] for t, parts in found.items()} for k in range(-(-longest // batch))]


@epoch_rows.mistake(
    "A smaller set is missing from the batches after its end. It starts again with its next pass."
)
def _(sizes, orders, batch):
    return [
        {t: passes[0][i : i + batch] for t, passes in orders.items() if i < sizes[t]}
        for i in range(0, max(sizes.values()), batch)
    ]


# ----------------------------------------------------------------- 5. the trunk that was not shared
# inputs
def _setting(tasks):
    """A nested trunk that holds a BatchNorm and a frozen layer, and a head for each task.

    Of three heads two have a layer in common.
    """

    def draw(generator):
        body, inputs, width = trunk(generator, frozen=True, shared=tasks == 2)
        heads = nn.ModuleDict(
            {
                task: filled(nn.Linear(width, 1 + i), generator)
                for i, task in enumerate(task_names(generator, tasks))
            }
        )
        if tasks == 3:
            common = filled(nn.Linear(width, width), generator)
            for task in list(heads)[1:]:
                heads[task] = nn.Sequential(common, heads[task])
        return body, heads, 0.02, batch(generator, 6, inputs)

    return draw


def _two_steps(answer, trunk, heads, rate, x):
    """What two steps on the sum of the losses do, to the answer's networks and to what was given.

    The second step shows a momentum, a weight decay, a copy. Whether networks share is seen by what
    they give.
    """
    answered = answer(trunk, dict(heads.items()), rate)
    fits = isinstance(answered, tuple | list) and len(answered) == 2
    fits = fits and isinstance(answered[0], dict) and answered[0].keys() == heads.keys()
    fits = fits and isinstance(answered[1], torch.optim.Optimizer)
    expect(fits, "(networks, optimizer), with one network per task", answered)
    networks, optimizer = answered
    tasks = sorted(networks)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        each = torch.stack([networks[task](x).square().mean() for task in tasks])
        each.sum().backward()
        optimizer.step()
        losses.append(each.detach())
    held = [p for group in optimizer.param_groups for p in group["params"]]
    parameters = {id(p) for network in networks.values() for p in network.parameters()}
    features = trunk.eval()(x)
    return {
        "optimizer": type(optimizer).__name__,
        "parameters that it lacks": len(parameters - {id(p) for p in held}),
        "parameters held twice": len(held) - len({id(p) for p in held}),
        "losses": torch.stack(losses),
        "outputs of the given trunk and heads afterwards": [
            heads[task](features).detach() for task in tasks
        ],
    }


# reference
def _each_its_own(trunk, heads, rate):
    """One network per task, all on one trunk, and one optimizer.

    trunk: nn.Module; heads: dict task -> nn.Module. Return a
    dict task -> nn.Sequential(trunk, head), and a
    torch.optim.SGD with learning rate `rate` that holds every
    parameter of all networks exactly once. Two heads may have
    a layer in common.
    """
    networks, parameters = {}, []
    for task, head in heads.items():
        networks[task] = torch.nn.Sequential(deepcopy(trunk), head)
        parameters += networks[task].parameters()
    return networks, torch.optim.SGD(parameters, lr=rate)


@exercise(
    [_setting(2), _setting(3)],
    points=3,
    call=_two_steps,
    grad=False,
    device=False,
    starter=_each_its_own,
    hints=(
        (
            "Compare networks[a][0][0].weight.data_ptr() for two tasks. Why do they differ, and"
            " what would you expect?"
        ),
        (
            "deepcopy gives each task a trunk of its own. And a list of all networks' parameters"
            " holds those of a shared trunk once per task: SGD would step them as often."
        ),
        (
            "Sequential(trunk, head) without a copy;"
            " torch.nn.ModuleList(networks.values()).parameters() names each parameter once."
        ),
    ),
)
def networks_on_one_trunk(trunk, heads, rate):
    networks = {}
    for task, head in heads.items():
        networks[task] = torch.nn.Sequential(trunk, head)
    together = torch.nn.ModuleList(networks.values())
    return networks, torch.optim.SGD(together.parameters(), lr=rate)


# mistakes
def _on(trunk, heads):
    return {t: nn.Sequential(trunk, head) for t, head in heads.items()}


@networks_on_one_trunk.mistake(
    "Still a copy of the trunk for each task:"
    " they start alike, and nothing that one task learns reaches another."
)
def _(trunk, heads, rate):
    return _each_its_own(trunk, heads, rate)


@networks_on_one_trunk.mistake(
    "The networks share the trunk now,"
    " but the list for the optimizer holds it once per task, and it is stepped as often."
)
def _(trunk, heads, rate):
    networks = _on(trunk, heads)
    return networks, torch.optim.SGD(
        [p for network in networks.values() for p in network.parameters()], lr=rate
    )


@networks_on_one_trunk.mistake(
    "The trunk is held once, but a layer that two heads have in common is held twice, and it is"
    " stepped as often."
)
def _(trunk, heads, rate):
    own = [p for head in heads.values() for p in head.parameters()]
    return _on(trunk, heads), torch.optim.SGD([*trunk.parameters(), *own], lr=rate)


@networks_on_one_trunk.mistake(
    "The optimizer holds the first network only: the other tasks' heads are never trained."
)
def _(trunk, heads, rate):
    networks = _on(trunk, heads)
    return networks, torch.optim.SGD(next(iter(networks.values())).parameters(), lr=rate)


@networks_on_one_trunk.mistake("The optimizer holds the heads only: the trunk stays as it was.")
def _(trunk, heads, rate):
    return _on(trunk, heads), torch.optim.SGD(
        [p for head in heads.values() for p in head.parameters()], lr=rate
    )


@networks_on_one_trunk.mistake("The optimizer holds the trunk only: the heads stay as they were.")
def _(trunk, heads, rate):
    return _on(trunk, heads), torch.optim.SGD(trunk.parameters(), lr=rate)


@networks_on_one_trunk.mistake(
    "One trunk for all, but it is a copy of the one that was given:"
    " whoever holds the original sees nothing of the training."
)
def _(trunk, heads, rate):
    networks = _on(deepcopy(trunk), heads)
    return networks, torch.optim.SGD(nn.ModuleList(networks.values()).parameters(), lr=rate)


@networks_on_one_trunk.mistake(
    "One trunk for all, but the heads are copies:"
    " whoever holds the given ones sees nothing of their training."
)
def _(trunk, heads, rate):
    networks = _on(trunk, {t: deepcopy(head) for t, head in heads.items()})
    return networks, torch.optim.SGD(nn.ModuleList(networks.values()).parameters(), lr=rate)


@networks_on_one_trunk.mistake(
    "The learning rate is divided by the number of tasks."
    " The sum of the losses is what is to be descended, at the given rate."
)
def _(trunk, heads, rate):
    networks = _on(trunk, heads)
    return networks, torch.optim.SGD(
        nn.ModuleList(networks.values()).parameters(), lr=rate / len(heads)
    )


def _with_options(**options):
    def wrong(trunk, heads, rate):
        networks = _on(trunk, heads)
        together = nn.ModuleList(networks.values())
        return networks, torch.optim.SGD(together.parameters(), lr=rate, **options)

    return wrong


networks_on_one_trunk.mistake(
    "The first step is right, the later ones are too long: nobody asks for a momentum."
)(_with_options(momentum=0.9))
networks_on_one_trunk.mistake("The optimizer climbs: maximize=True turns every step.")(
    _with_options(maximize=True)
)


@networks_on_one_trunk.mistake(
    "What wants no gradients is not in the optimizer. It is to hold every parameter,"
    " those that are frozen too: they may be thawed later."
)
def _(trunk, heads, rate):
    networks = _on(trunk, heads)
    together = nn.ModuleList(networks.values())
    return networks, torch.optim.SGD([p for p in together.parameters() if p.requires_grad], lr=rate)
