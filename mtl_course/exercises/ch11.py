"""Exercises of chapter 11: attention, tokens of tasks, missing modalities, prompts."""

import math

import torch
from torch.nn import functional as F

from ..checks.exercise import exercise
from .inputs import (
    LEAVES_NO_TRACE,
    different,
    leaves_no_trace,
    shuffled,
    task_names,
    whole,
)
from .outcomes import named, required


def _padding(generator, rows, places):
    """Where words are, bool [rows, places]: at least one per row, padding after the end."""
    lengths = torch.randint(1, places + 1, (rows,), generator=generator)
    lengths[whole(generator, 0, rows)] = whole(generator, 1, places)  # some row is padded
    return torch.arange(places) < lengths[:, None]


# -------------------------------------------------------------------------------- 1. attention mask
# inputs
def _queries(scale, rows=None, queries=None):
    """Queries, keys and values whose sizes all differ, and where the keys are."""

    def draw(generator):
        B, Q, K, d, v = different(generator, 5, 2, 8)
        B, Q = rows or B, queries or Q
        query = scale * torch.randn(B, Q, d, generator=generator, dtype=torch.float64)
        key = torch.randn(B, K, d, generator=generator, dtype=torch.float64)
        value = torch.randn(B, K, v, generator=generator, dtype=torch.float64)
        return query, key, value, _padding(generator, B, K)

    return draw


# reference
@exercise(
    [_queries(1.0), _queries(2000.0), _queries(1.0, rows=1), _queries(1.0, queries=1)],
    points=2,
    hints=(
        "Which of the scores belong to padding, and what must the softmax make of them?",
        (
            "A score of minus infinity becomes a weight of exactly 0. So mask the scores before the"
            " softmax, not the weights after it."
        ),
        (
            "`scores.masked_fill(~there[:, None], -torch.inf)`, where scores is [B, Q, K]; softmax"
            " over the last axis; then times `value`."
        ),
    ),
)
def padded_attention(query, key, value, there):
    """What each query reads, softmax(Q K' / sqrt(d)) V, without
    looking at padding.

    query: [B, Q, d]. key: [B, K, d]. value: [B, K, v].
    there: bool [B, K], False where a key is padding; each row
        has at least one True.
    Return the means [B, Q, v]. A score may be in the thousands.
    """
    ### BEGIN SOLUTION
    scores = query @ key.mT / key.shape[2] ** 0.5
    scores = scores.masked_fill(~there[:, None], -torch.inf)
    return scores.softmax(2) @ value
    ### END SOLUTION


# laws
@padded_attention.law("what stands at padding changes nothing")
def _(answer, query, key, value, there):
    hole = ~there[..., None]
    other = answer(query, key.masked_fill(hole, 50.0), value.masked_fill(hole, -70.0), there)
    return torch.allclose(other, answer(query, key, value, there))


@padded_attention.law("a query that asks for nothing gets the mean of the words that are there")
def _(answer, query, key, value, there):
    mean = (value * there[..., None]).sum(1) / there.sum(1, keepdim=True)
    means = mean[:, None].expand(-1, query.shape[1], -1)
    return torch.allclose(answer(0 * query, key, value, there), means)


padded_attention.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _read(query, key, value, there, power=0.5, side=None, axis=2, fill=-math.inf, mask=True):
    """Attention with one thing changed."""
    scores = query @ key.mT / (side or key.shape[2]) ** power
    if mask:
        scores = scores.masked_fill(~there[:, None], fill)
    return scores.softmax(axis) @ value


padded_attention.variants(
    _read,
    {
        "The scores are not divided by the root of d.": {"power": 0.0},
        "The scores are divided by d. It is its root: a sum of d random products is as large as"
        " that.": {"power": 1.0},
        "Padding is looked at: `there` has no effect.": {"mask": False},
        "The scores of padding are 0, which is no small score: exp(0) is 1."
        " Minus infinity becomes a weight of 0.": {"fill": 0.0},
    },
)


@padded_attention.mistake(
    "The weights of padding are set to 0 after the softmax, so that the others no longer sum to 1."
    " Mask the scores before it."
)
def _(query, key, value, there):
    weights = (query @ key.mT / key.shape[2] ** 0.5).softmax(2)
    return (weights * there[:, None]) @ value


@padded_attention.mistake("The mask is turned round: only padding is looked at.")
def _(query, key, value, there):
    scores = query @ key.mT / key.shape[2] ** 0.5
    return scores.masked_fill(there[:, None], -math.inf).softmax(2).nan_to_num(0.0) @ value


@padded_attention.mistake(
    "The root is that of the number of keys, K. It is that of d, the length of a key."
)
def _(query, key, value, there):
    return _read(query, key, value, there, side=key.shape[1])


@padded_attention.mistake(
    "The softmax goes over the queries. Each query spreads its attention over the keys, the last"
    " axis of the scores."
)
def _(query, key, value, there):
    scores = query @ key.mT / key.shape[2] ** 0.5
    return scores.masked_fill(~there[:, None], -math.inf).softmax(1).nan_to_num(0.0) @ value


@padded_attention.mistake(
    "Your exponentials overflow where a score is in the thousands. `softmax` subtracts the largest"
    " score first."
)
def _(query, key, value, there):
    e = (query @ key.mT / key.shape[2] ** 0.5).exp() * there[:, None]
    return e / e.sum(2, keepdim=True) @ value


# ----------------------------------------------------------------------------------- 2. task tokens
# inputs
def _reading(scale, rows=None):
    """Tokens of two to five tasks in any order, and words whose sizes all differ."""

    def draw(generator):
        B, L, d = different(generator, 3, 2, 8)
        names = task_names(generator, whole(generator, 2, 6))
        tokens = {
            name: scale * torch.randn(d, generator=generator, dtype=torch.float64)
            for name in names
        }
        B = rows or B
        words = torch.randn(B, L, d, generator=generator, dtype=torch.float64)
        return tokens, words, _padding(generator, B, L)

    return draw


# reference
@exercise(
    [_reading(1.0), _reading(1000.0), _reading(1.0, rows=1)],
    points=2,
    hints=(
        "What are query, key and value here? How many queries does a task have?",
        (
            "The token is the query; the words are keys and values. One score per word, masked,"
            " a softmax over the words, and a weighted mean of the words."
        ),
        "`words @ token / d ** 0.5` is [B, L]; `(weights[..., None] * words).sum(1)` is [B, d].",
    ),
)
def task_token_features(tokens, words, there):
    """What the token of each task reads, equation 2.

    tokens: dict task -> [d], the task's query.
    words: [B, L, d], keys and values both.
    there: bool [B, L], False at padding; each row has a word.
    Return a dict task -> features [B, d]. A score may be in the
    hundreds.
    """
    ### BEGIN SOLUTION
    features = {}
    for name, token in tokens.items():
        scores = words @ token / len(token) ** 0.5
        weights = scores.masked_fill(~there, -torch.inf).softmax(1)
        features[name] = (weights[..., None] * words).sum(1)
    return features
    ### END SOLUTION


# laws
@task_token_features.law("one more task changes nothing for the others")
def _(answer, tokens, words, there):
    more = answer({"a new one": words[0, 0].detach(), **tokens}, words, there)
    few = answer(tokens, words, there)
    return set(more) == {"a new one", *few} and all(torch.allclose(more[n], few[n]) for n in few)


@task_token_features.law("what stands at padding changes nothing")
def _(answer, tokens, words, there):
    other = answer(tokens, words.masked_fill(~there[..., None], 30.0), there)
    return all(torch.allclose(z, other[n]) for n, z in answer(tokens, words, there).items())


task_token_features.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _tokens(tokens, words, there, power=0.5, mask=True, axis=1, fill=-math.inf):
    """The features with one thing changed."""
    features = {}
    for name, token in tokens.items():
        scores = words @ token / len(token) ** power
        if mask:
            scores = scores.masked_fill(~there, fill)
        weights = scores.softmax(axis).nan_to_num(0.0)
        features[name] = (weights[..., None] * words).sum(1)
    return features


task_token_features.variants(
    _tokens,
    {
        "The scores are not divided by the root of d.": {"power": 0.0},
        "The scores are divided by d, not by its root.": {"power": 1.0},
        "Padding is read like a word: mask the scores.": {"mask": False},
        "A score of 0 does not keep padding out, since exp(0) is 1: it has to be minus infinity.": {
            "fill": 0.0
        },
        "The softmax goes over the batch: rows compete with each other. It goes over the words.": {
            "axis": 0
        },
    },
)


@task_token_features.mistake(
    "The tasks compete for the words: your softmax goes over the tasks. Each token spreads its own"
    " attention over the words, whatever the other tasks do."
)
def _(tokens, words, there):
    scores = torch.stack([words @ token / len(token) ** 0.5 for token in tokens.values()])
    weights = scores.softmax(0) * there
    return {n: (w[..., None] * words).sum(1) for n, w in zip(tokens, weights, strict=True)}


@task_token_features.mistake(
    "Every task gets the plain mean of the words: its token has no effect."
)
def _(tokens, words, there):
    mean = (words * there[..., None]).sum(1) / there.sum(1, keepdim=True)
    return {name: mean.clone() for name in tokens}


@task_token_features.mistake(
    "Each task gets the one word with the highest score. The softmax gives a mean of words, through"
    " which gradients reach the token."
)
def _(tokens, words, there):
    features = {}
    for name, token in tokens.items():
        best = (words @ token).masked_fill(~there, -math.inf).argmax(1)
        features[name] = words[torch.arange(len(words)), best]
    return features


# ----------------------------------------------------------------------------- 3. pooling per task
# inputs
WAYS = ("mean", "max", "first", "each")


def _pools(scale=1.0, rows=None):
    """Words, where they are, and how each task wants them: every way occurs."""

    def draw(generator):
        B, L, d = different(generator, 3, 2, 8)
        B = rows or B
        names = task_names(generator, 5)
        ways = {name: WAYS[k % 4] for k, name in enumerate(names)}
        words = torch.randn(B, L, d, generator=generator, dtype=torch.float64)
        words = words - 3 * (torch.rand(B, 1, d, generator=generator) < 0.5)  # all below zero
        return scale * words, _padding(generator, B, L), shuffled(generator, ways)

    return draw


# reference
@exercise(
    [_pools(), _pools(scale=1e6), _pools(rows=1)],
    points=1,
    hints=(
        "What would a padded place add to a mean, and what might it do to a maximum?",
        (
            "`words.masked_fill(~there[..., None], 0.0)` before the sum, which is divided by"
            " `there.sum(1, keepdim=True)`; minus infinity in place of 0 before the maximum."
        ),
    ),
)
def pooled(words, there, ways):
    """Features for tasks that ask different things of a text.

    words: [B, L, d]. there: bool [B, L], False at padding, which
        stands after the end; each row has a word.
    ways: dict task -> "mean" or "max" over the words that are
        there, number by number, or "first", the first word: each
        [B, d]; or "each", for a task that labels every word: the
        words themselves, [B, L, d], with 0 at padding.
    Return a dict task -> features.
    """
    ### BEGIN SOLUTION
    hole = ~there[..., None]
    each = words.masked_fill(hole, 0.0)
    kinds = {
        "first": words[:, 0],
        "mean": each.sum(1) / there.sum(1, keepdim=True),
        "max": words.masked_fill(hole, -torch.inf).amax(1),
        "each": each,
    }
    return {task: kinds[way] for task, way in ways.items()}
    ### END SOLUTION


# laws
@pooled.law("longer padding changes no feature of a whole text")
def _(answer, words, there, ways):
    more = torch.cat([words, 9.0 + words[:, :1].detach()], dim=1)
    longer = answer(more, torch.cat([there, there[:, :1] & False], dim=1), ways)
    z = answer(words, there, ways)
    return all(torch.allclose(z[n], longer[n]) for n, way in ways.items() if way != "each")


pooled.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _pooled(words, there, ways, fill=-math.inf, count=None, zero=True, over=1, masked=True):
    """The features with one thing changed."""
    hole = ~there[..., None]
    each = words.masked_fill(hole, 0.0) if masked else words
    n = there.sum(1, keepdim=True) if count is None else count(there)
    kinds = {
        "first": words[:, 0],
        "mean": each.sum(1) / n,
        "max": words.masked_fill(hole, fill).amax(1),
        "each": each if zero else words,
    }
    return {task: kinds[way] for task, way in ways.items()}


pooled.variants(
    _pooled,
    {
        "The maximum sees padding as 0, which is more than numbers below zero."
        " Fill it with minus infinity first.": {"fill": 0.0},
        "The mean divides by L, the places, and not by the words that are there.": {
            "count": lambda there: there.shape[1]
        },
        "What the task that labels words gets at padding is not 0.": {"zero": False},
        "The mean divides by all words of the batch. Each row has a number of its own.": {
            "count": lambda there: there.sum()
        },
    },
)


@pooled.mistake("Padding is not masked anywhere: it enters mean, maximum and single words.")
def _(words, there, ways):
    kinds = {"first": words[:, 0], "mean": words.mean(1), "max": words.amax(1), "each": words}
    return {task: kinds[way] for task, way in ways.items()}


@pooled.mistake("\"first\" is the first word of each text. Yours is the last that is there.")
def _(words, there, ways):
    last = words[torch.arange(len(words)), there.sum(1) - 1]
    z = _pooled(words, there, ways)
    return {task: last if ways[task] == "first" else z[task] for task in ways}


# ------------------------------------------------------------------------------ 4. modality dropout
# inputs
def _rows(modalities, share=None):
    """Which modalities rows have, a lot for each, and a draw per row; some rows have one only."""

    def draw(generator):
        B, M = whole(generator, 9, 16), whole(generator, *modalities)
        there = torch.rand(B, M, generator=generator) < 0.7
        there[torch.arange(B), torch.randint(M, (B,), generator=generator)] = True
        there[whole(generator, 0, B)] = True
        lots = torch.stack([torch.randperm(M, generator=generator) for _ in range(B)]).float()
        lots = (lots + 0.5) * 10.0 ** whole(generator, -3, 4)
        u = torch.rand(B, generator=generator)
        if share is None:  # some row's u is the share itself: it loses nothing
            u[0], there[0] = u.median(), True
            return there, lots, u, float(u[0])
        return there, lots, u, share

    return draw


# reference
@exercise(
    [_rows((3, 6)), _rows((2, 3)), _rows((3, 5), 1.0), _rows((3, 5), 0.0)],
    points=2,
    grad=False,
    hints=(
        "Which modality may a row lose, if it does not have all of them? Which rows lose none?",
        (
            "Hide the lots of what a row does not have, so that they cannot be the largest; the"
            " argmax says which is lost."
        ),
        (
            "`lost = one_hot(argmax, M).bool()`; it counts for rows with `u < share` that have two"
            " or more; `there & ~(...)` is new and leaves the input alone."
        ),
    ),
)
def hide_modality(there, lots, u, share):
    """Modality dropout, with the random numbers drawn already.

    there: bool [B, M], which of M modalities each row has; at
        least one. lots: [B, M], above 0, no two equal in a row.
    u: [B], between 0 and 1. share: a float from 0 to 1.
    A row with u < share loses one modality: of those that it
    has, the one with the largest lot. A row that has only one
    keeps it.
    Return bool [B, M], new.
    """
    ### BEGIN SOLUTION
    chosen = (lots * there).argmax(1)
    lost = torch.nn.functional.one_hot(chosen, lots.shape[1])
    hit = (u < share) & (there.sum(1) > 1)
    return there & ~(lost.bool() & hit[:, None])
    ### END SOLUTION


# laws
@hide_modality.law("no row is left with nothing, and none gains anything")
def _(answer, there, lots, u, share):
    kept = answer(there, lots, 0 * u, 1.0)
    return bool(kept.any(1).all()) and not bool((kept & ~there).any())


@hide_modality.law("at share 1 each row that has several loses exactly one")
def _(answer, there, lots, u, share):
    kept = answer(there, lots, u, 1.0)
    return torch.equal(kept.sum(1), (there.sum(1) - 1).clamp_min(1))


@hide_modality.law("what it returns is new, also where nothing is lost")
def _(answer, there, lots, u, share):
    mine = there.clone()
    answer(mine, lots, u, 0.0).fill_(False)
    return torch.equal(mine, there)


hide_modality.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _hidden(there, lots, u, share, own=True, several=True, less=True, most=True, whole_batch=False):
    """Modality dropout with one thing changed."""
    lots = lots if own is False else lots.masked_fill(~there, -1.0 if most else 2.0)
    chosen = lots.argmax(1) if most else lots.argmin(1)
    lost = F.one_hot(chosen, lots.shape[1]).bool()
    hit = u < share if less else u >= share
    if whole_batch:
        hit = hit[:1].expand(len(u))
    if several:
        hit = hit & (there.sum(1) > 1)
    return there & ~(lost & hit[:, None])


hide_modality.variants(
    _hidden,
    {
        "The largest lot may belong to a modality that the row does not have: then it loses"
        " nothing. Look only at those that it has.": {"own": False},
        "A row with one modality loses it and is left with nothing.": {"several": False},
        "The rows are exchanged: those with u < share lose one.": {"less": False},
        "The smallest lot is lost; it is to be the largest.": {"most": False},
        "One draw decides for the whole batch. Each row has its own u.": {"whole_batch": True},
    },
)


@hide_modality.mistake(
    "A row that is hit keeps only one modality. It is to lose one, and to keep the rest."
)
def _(there, lots, u, share):
    lost = F.one_hot((lots * there).argmax(1), lots.shape[1]).bool()
    hit = (u < share) & (there.sum(1) > 1)
    return there & (lost | ~hit[:, None])


@hide_modality.mistake(
    "Each modality is hidden for itself, so a row can lose several, or all of them."
)
def _(there, lots, u, share):
    return there & (lots >= share)


@hide_modality.mistake("Nothing is hidden: this is `there` itself.")
def _(there, lots, u, share):
    return there.clone()


# -------------------------------------------------------------------- 5. a task that nobody trained
# inputs
_TEXTS = ("too tight", "lovely", "{ok}", "runs large", "soft", "a gift", "scratchy", "warm", "blue")
_ANSWERS = ("yes", "no", "5", "2", "dress", "top")


def _instructions(generator):
    """Tasks of three kinds in any order; two of the held-out one's kind, and texts in common."""
    names = task_names(generator, 6)
    kinds = ("sentiment", "sentiment", "topic", "topic", "length", "age")
    tasks = {}
    for place, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        texts = [_TEXTS[k] for k in different(generator, whole(generator, 3, 6), 0, len(_TEXTS))]
        rows = [(text, _ANSWERS[whole(generator, 0, len(_ANSWERS))]) for text in texts]
        tasks[name] = {"kind": kind, "prompt": f"{name} {place}? {{text}}", "rows": rows}
    held_out = names[whole(generator, 0, 4)]
    known = {text for text, _ in tasks[held_out]["rows"]}
    other = next(n for n in names if tasks[n]["kind"] != tasks[held_out]["kind"])
    fresh = next(text for text in _TEXTS if text not in known)
    tasks[other]["rows"] += [(next(iter(sorted(known))), "yes"), (fresh, "no")]
    # texts that are part of another one are no less new; and a row may be there twice
    tasks[held_out]["rows"] += [("a gift", "yes")] * 2
    tasks[other]["rows"] += [("gift", "no"), ("a gift again", "5")] * 2
    return shuffled(generator, tasks), held_out


def _lists(answer, *args):
    parts = named(required(answer(*args)), "train", "test")
    return {
        name: sorted(f"{prompt} -> {reply}" for prompt, reply in rows)
        for name, rows in parts.items()
    }


# reference
def _leaky(tasks, held_out):
    """Examples to train a text-to-text network, and to test it on
    a task that it was never trained on.

    tasks: dict task -> {"kind": what it asks for, such as
        "sentiment"; "prompt": a text with one {text} in it;
        "rows": list of (text, answer)}.
    held_out: the task to test on.
    Return (train, test), lists of (prompted text, answer) in any
    order. Test on all rows of the held-out task. The score shall
    say how the network does on a kind of question, and on texts,
    that it has never met. Train on all that this leaves.
    """
    train, test = [], []
    for name, task in tasks.items():
        for text, reply in task["rows"]:
            pair = task["prompt"].format(text=text), reply
            (test if name == held_out else train).append(pair)
    return train, test


@exercise(
    [_instructions],
    points=2,
    grad=False,
    device=False,
    starter=_leaky,
    call=_lists,
    hints=(
        "What else in `train` could teach the network to answer the held-out task?",
        (
            "Two things leak: another task of the same kind is the same question in other words;"
            " and a text of the test may come with another task's answer."
        ),
        (
            "A row may be trained on if `task[\"kind\"] != kind and text not in known`, with the"
            " held-out task's kind, and the set of its texts."
        ),
    ),
)
def unseen_task(tasks, held_out):
    kind = tasks[held_out]["kind"]
    known = {text for text, _ in tasks[held_out]["rows"]}
    train, test = [], []
    for name, task in tasks.items():
        for text, reply in task["rows"]:
            pair = task["prompt"].format(text=text), reply
            if name == held_out:
                test.append(pair)
            elif task["kind"] != kind and text not in known:
                train.append(pair)
    return train, test


# laws
@unseen_task.law("other answers of the held-out task change no training example")
def _(answer, tasks, held_out):
    turned = {n: dict(task) for n, task in tasks.items()}
    turned[held_out]["rows"] = [(text, "maybe") for text, _ in tasks[held_out]["rows"]]
    return _lists(answer, turned, held_out)["train"] == _lists(answer, tasks, held_out)["train"]


@unseen_task.law("leaves the tasks as they were")
def _(answer, tasks, held_out):
    earlier = repr(tasks)
    answer(tasks, held_out)
    return repr(tasks) == earlier


# mistakes
def _honest(tasks, held_out, by_kind=True, by_text=True, prompted=True, test_all=True):
    """The split with one thing changed."""
    kind = tasks[held_out]["kind"]
    known = {text for text, _ in tasks[held_out]["rows"]}
    train, test = [], []
    for name, task in tasks.items():
        same = task["kind"] == kind if by_kind else name == held_out
        for text, reply in task["rows"]:
            pair = (task["prompt"].format(text=text) if prompted else text), reply
            if name == held_out or (not test_all and same):
                test.append(pair)
            elif not same and not (by_text and text in known):
                train.append(pair)
    return train, test


unseen_task.variants(
    _honest,
    {
        "Another task asks for the same kind of answer in other words, and is trained on:"
        " the held-out task is practised under another name.": {"by_kind": False},
        "Texts of the test are trained on, with another task's prompt."
        " Leave such rows out, whatever task they belong to.": {"by_text": False},
        "The prompts are missing: the network cannot know what is asked.": {"prompted": False},
        "Tasks of the same kind are tested on as well. Test on the held-out task alone.": {
            "test_all": False
        },
    },
)


@unseen_task.mistake(
    "Nothing is mended yet. Ask of every training example: does it show the test's question in"
    " other words, or one of its texts?"
)
def _(tasks, held_out):
    return _leaky(tasks, held_out)


@unseen_task.mistake(
    "The rows with texts of the test are missing from the test, not from training."
)
def _(tasks, held_out):
    train, test = _honest(tasks, held_out, by_text=False)
    others = {
        text
        for name, task in tasks.items()
        for text, _ in task["rows"]
        if task["kind"] != tasks[held_out]["kind"]
    }
    prompt = tasks[held_out]["prompt"]
    taken = {prompt.format(text=text) for text in others}
    return train, [pair for pair in test if pair[0] not in taken]
