"""Attention against torch's; layers against torch's; masks, positions, task tokens, bad input."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course.data import pad
from mtl_course.multitask import HardSharing, Network, Parallel
from mtl_course.networks.recurrent import GRU, LastState
from mtl_course.networks.sentence_encoder import SentenceEncoder
from mtl_course.networks.transformer import (
    EncoderLayer,
    MultiHeadAttention,
    Positions,
    TaskTokens,
    Transformer,
    attention,
    attention_mask,
)

IDS = torch.tensor([[3, 8, 2, 5], [5, 7, 0, 0], [6, 0, 0, 0]])
THERE = IDS != 0


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def close(a, b, at=1e-6):
    torch.testing.assert_close(a, b, atol=at, rtol=0)


# ---------------------------------------------------------------------------------------- attention
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_torchs_fused_one(causal, padded):
    query, key, value = torch.randn(3, 3, 2, 4, 6)
    mask = attention_mask(THERE if padded else torch.ones_like(THERE), causal)
    ours, weights = attention(query, key, value, mask)
    close(ours, F.scaled_dot_product_attention(query, key, value, mask))
    if causal and not padded:
        close(ours, F.scaled_dot_product_attention(query, key, value, is_causal=True))
    if not padded and not causal:
        close(ours, attention(query, key, value)[0])
    close(weights.sum(-1), torch.ones(3, 2, 4))
    assert not weights[~mask.expand_as(weights)].any(), "nobody looks where the mask forbids it"


def test_attention_is_the_formula_in_a_loop():
    query, key, value = torch.randn(4, 3), torch.randn(5, 3), torch.randn(5, 2)
    ours, _ = attention(query, key, value)
    for q, mean in zip(query, ours, strict=True):
        scores = [(q @ k / 3**0.5).exp() for k in key]
        close(mean, sum(s * v for s, v in zip(scores, value, strict=True)) / sum(scores))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("memory", [False, True])
def test_multi_head_attention_is_torchs(fused, memory):
    ours, theirs = (
        MultiHeadAttention(8, 2, fused=fused),
        nn.MultiheadAttention(8, 2, 0.0, batch_first=True),
    )
    nn.init.normal_(theirs.in_proj_bias)
    names = ("query", "key", "value")
    for name, weight, bias in zip(
        names, theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True
    ):
        getattr(ours, name).load_state_dict({"weight": weight, "bias": bias})
    ours.out.load_state_dict(theirs.out_proj.state_dict())
    x, z = torch.randn(3, 6, 8), torch.randn(3, 4, 8)
    x, z = (x, z) if memory else (z, z)
    expected, weights = theirs(x, z, z, key_padding_mask=~THERE, average_attn_weights=False)
    mask = attention_mask(THERE)
    close(ours(x, z if memory else None, mask), expected)
    close(ours.weights(x, z if memory else None, mask), weights)


def test_by_hand_and_fused_have_the_same_gradients_and_the_same_rate_of_dropout():
    hand, fused = MultiHeadAttention(8, 2, fused=False), MultiHeadAttention(8, 2)
    fused.load_state_dict(hand.state_dict())
    x = torch.randn(3, 4, 8)
    for layer in (hand, fused):
        layer(x, mask=attention_mask(THERE, causal=True)).square().sum().backward()
    for a, b in zip(hand.parameters(), fused.parameters(), strict=True):
        close(a.grad, b.grad, 1e-5)
    for way in (True, False):
        layer = MultiHeadAttention(8, 2, dropout=0.5, fused=way)
        assert not torch.equal(layer(x), layer.eval()(x))
        assert torch.equal(layer(x), layer(x))


def test_a_query_that_may_look_nowhere_and_heads_that_do_not_divide():
    mask = torch.tensor([[True, False], [False, False]])
    z = torch.randn(2, 4)
    for call in (
        lambda: attention(z, z, z, mask),
        lambda: MultiHeadAttention(4, 2)(z[None], mask=mask),
    ):
        with pytest.raises(ValueError, match=r"no True in its row \[1\]"):
            call()
    with pytest.raises(ValueError, match="3 heads cannot share a width of 8"):
        MultiHeadAttention(8, 3)


# ------------------------------------------------------------------------------------------- layers
@pytest.mark.parametrize("norm_first", [False, True])
def test_a_layer_is_torchs(norm_first):
    theirs = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
    )
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    state = theirs.state_dict()
    parts = {
        "attention.out": "self_attn.out_proj",
        "attention_norm": "norm1",
        "grow": "linear1",
        "shrink": "linear2",
        "norm": "norm2",
    }
    own = {
        f"{a}.{kind}": state[f"{b}.{kind}"] for a, b in parts.items() for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        values = state[f"self_attn.in_proj_{kind}"].chunk(3)
        for name, value in zip(("query", "key", "value"), values, strict=True):
            own[f"attention.{name}.{kind}"] = value
    ours = EncoderLayer(8, 2, 16, norm_first=norm_first)
    ours.load_state_dict(own)
    x = torch.randn(3, 4, 8)
    expected = theirs(x, src_key_padding_mask=~THERE)
    close(ours(x, attention_mask(THERE))[THERE], expected[THERE], 1e-5)


def test_dropout_is_for_training_only():
    layer, x = EncoderLayer(8, 2, 16, dropout=0.5), torch.randn(3, 4, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


# -------------------------------------------------------------------------------------------- trunk
def texts(**options):
    return Transformer(nn.Embedding(9, 8), width=8, heads=2, longest=6, **options)


def test_padding_never_leaks_into_texts():
    trunk = texts()
    longer = F.pad(IDS, (0, 2))
    close(trunk(longer), trunk(IDS))
    for row, length in enumerate(THERE.sum(1).tolist()):
        close(trunk(IDS)[row], trunk(IDS[row : row + 1, :length])[0])
    # whatever the padding's own vector is
    before = trunk(IDS)
    with torch.no_grad():
        trunk.embed.weight[0] = 1e3
    close(trunk(IDS), before)
    trunk(IDS).sum().backward()
    assert not trunk.embed.weight.grad[0].any(), "nothing is learned about padding"


def test_series_are_read_to_their_ends_and_every_parameter_learns():
    series = [torch.randn(n, 3) for n in (4, 1, 5)]
    trunk = Transformer(nn.Linear(3, 8), width=8, longest=5)
    x = pad(series)
    close(trunk(x), torch.cat([trunk(row[None]) for row in series]))
    trunk(x).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in trunk.parameters())
    idle = {name for name, p in trunk.named_parameters() if not p.grad.abs().max() > 1e-9}
    assert idle <= {f"layers.{k}.attention.key.bias" for k in range(2)}, "a shift of all scores"


def test_the_order_of_words_counts_and_later_ones_are_hidden_where_it_is_causal():
    ids, turned = torch.tensor([[3, 8, 2, 5]]), torch.tensor([[5, 2, 8, 3]])
    assert (texts()(ids) - texts()(turned)).abs().max() > 1e-3
    trunk = texts(causal=True)
    changed = torch.tensor([[3, 8, 2, 7]])
    close(trunk.each_word(ids)[:, :3], trunk.each_word(changed)[:, :3])
    trunk.causal = False
    assert (trunk.each_word(ids) - trunk.each_word(changed))[:, 0].abs().max() > 1e-4


def test_the_order_of_positions_alone_is_what_tells_places_apart():
    trunk = texts()
    nn.init.zeros_(trunk.positions.table.weight)
    close(trunk(torch.tensor([[3, 8, 2, 5]])), trunk(torch.tensor([[5, 2, 8, 3]])))


def test_it_is_a_trunk_for_several_heads_and_for_one_row():
    model = HardSharing(texts(), {"stars": nn.Linear(8, 1), "topic": nn.Linear(8, 6)})
    shapes = {task: list(out.shape) for task, out in model(IDS[2:]).items()}
    assert shapes == {"stars": [1, 1], "topic": [1, 6]} and model.trunk.features == 8
    assert texts()(IDS[:0]).shape == (0, 8), "the last piece of a shorter set"


def test_short_precision_is_close():
    trunk = texts().eval()
    with torch.autocast("cpu", torch.bfloat16):
        short = trunk(IDS)
    assert (short.float() - trunk(IDS)).abs().max() < 0.1


# ------------------------------------------------------------------------------------- task tokens
TRUNKS = {
    "Transformer": texts,
    "LastState": lambda: LastState(GRU(4, 8), nn.Embedding(9, 4)),
    "SentenceEncoder": lambda: SentenceEncoder(9, 8, 1, 2, 16, 6, dropout=0.0),
}


@pytest.mark.parametrize("kind", TRUNKS)
def test_each_task_has_a_token_that_reads_the_words(kind):
    trunk = TRUNKS[kind]()
    pattern = TaskTokens(trunk, ["stars", "topic"], width=8, heads=2)
    features, weights = pattern(IDS), pattern.weights(IDS)
    assert list(features) == list(weights) == ["stars", "topic"]
    value = pattern.attention.value(trunk.each_word(IDS))
    for t, task in enumerate(features):
        assert not weights[task][~THERE].any()
        close(weights[task].sum(1), torch.ones(3))
        # by hand: each head mixes its half of the values
        key = pattern.attention.key(trunk.each_word(IDS)).chunk(2, -1)
        query = pattern.attention.query(pattern.tokens[t]).chunk(2, -1)
        mixed = []
        for q, k, v in zip(query, key, value.chunk(2, -1), strict=True):
            scores = (k @ q / 2).masked_fill(~THERE, -torch.inf).softmax(-1)
            mixed.append((scores[..., None] * v).sum(1))
        close(features[task], pattern.attention.out(torch.cat(mixed, -1)))


def test_a_token_gets_no_gradient_from_another_task():
    heads = Parallel({"stars": nn.Linear(8, 1), "topic": nn.Linear(8, 6)})
    model = Network(TaskTokens(texts(), heads, width=8), heads)
    model(IDS)["topic"].square().sum().backward()
    stars, topic = model.pattern.tokens.grad
    assert not stars.any() and topic.any() and model.pattern.trunk.embed.weight.grad.any()


# ---------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    "ids, message",
    [
        (torch.ones(2, 7, dtype=torch.int64), "7 places and the table of positions 6"),
        (torch.ones(2, 0, dtype=torch.int64), "L of at least 1"),
        (torch.tensor([[3, 2], [0, 0]]), "Row 1 has no token, only padding"),
        (torch.tensor([[3, 0, 2]]), "Row 0 has a gap at place 1"),
        (torch.tensor([[3, 2], [4, 9]]), "Row 1 has the token 9 at place 1"),
        (torch.tensor([3, 2]), r"this is torch.int64 \[2\]"),
    ],
)
def test_texts_that_cannot_be_read(ids, message):
    for call in (texts(), TaskTokens(texts(), ["a"], 8)):
        with pytest.raises(ValueError, match=message):
            call(ids)


def test_series_that_cannot_be_read():
    trunk = Transformer(nn.Linear(3, 8), width=8)
    x = torch.randn(2, 4, 3)
    for place, message in (
        ((1,), "Row 1 has no step, only padding"),
        ((1, 2), "Row 1 has a gap at place 2"),
        ((0, 3, 1), "Row 0 has nan at place 3, column 1"),
    ):
        bad = x.clone()
        bad[place] = torch.nan
        with pytest.raises(ValueError, match=message):
            trunk(bad)


def test_positions_beyond_the_table():
    with pytest.raises(ValueError, match="5 places and the table of positions 4: cut them"):
        Positions(4, 2)(torch.zeros(1, 5, 2))
