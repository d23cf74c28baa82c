"""Fusion of modalities: what is missing changes nothing, and errors name it."""

import pytest
import torch
from torch import nn

from mtl_course import networks

KINDS = {"late": networks.LateFusion, "cross": networks.CrossAttentionFusion}
BOTH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def build(kind, dropout=0.0, width=8):
    torch.manual_seed(0)
    entries = {
        "picture": networks.PictureCells(3, width, 8),
        "name": networks.WordTokens(20, width),
    }
    return kind(entries, width, dropout=dropout)


def rows(n=5):
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 20, (n, 4), generator=g)
    ids[0, 2:] = 0
    return {"picture": torch.randn(n, 3, 8, 8, generator=g), "name": ids}


# ------------------------------------------------------------------------------------ entrances
def test_cells_are_the_convolution_of_their_corner_of_the_picture():
    cells = networks.PictureCells(1, 4, 12).eval()
    x = torch.randn(2, 1, 12, 12)
    tokens, there = cells(x)
    assert tokens.shape == (2, 9, 4) and there.all()
    whole = cells.layers(x)  # [2, 4, 3, 3]
    torch.testing.assert_close(tokens[1, 5], whole[1, :, 1, 2] + cells.places[5])


@pytest.mark.parametrize("size", [0, 2, 10])
def test_a_size_without_whole_cells_is_refused(size):
    with pytest.raises(ValueError, match="multiple of 4"):
        networks.PictureCells(3, 8, size)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\[3, 12, 12\].*\[3, 8, 8\]"):
        networks.PictureCells(3, 8, 8)(torch.zeros(1, 3, 12, 12))


@pytest.mark.parametrize(
    "ids,words",
    [([[2, 3], [0, 0]], "Row 1 has no token"), ([[2, 25]], "token 25"), ([[2, 0, 3]], "gap")],
)
def test_words_that_cannot_be_read_are_refused(ids, words):
    with pytest.raises(ValueError, match=words):
        networks.WordTokens(20, 8)(torch.tensor(ids))


def test_one_token_is_what_the_module_gives():
    module = nn.Linear(3, 8)
    tokens, there = networks.OneToken(module)(x := torch.randn(4, 3))
    assert torch.equal(tokens[:, 0], module(x)) and there.shape == (4, 1) and there.all()


# ----------------------------------------------------------------------------- modality dropout
def test_a_share_of_the_rows_loses_one_each_equally_often():
    there = torch.ones(30_000, 3, dtype=torch.bool)
    kept = networks.modality_dropout(there, 0.6, torch.Generator().manual_seed(0))
    lost = ~kept
    assert (lost.sum(1) <= 1).all() and there.all(), "the input stays"
    torch.testing.assert_close(lost.float().mean(0), torch.full((3,), 0.2), atol=0.01, rtol=0)


def test_a_row_loses_only_what_it_has_and_never_the_last():
    there = torch.tensor([[True, False, True]] * 200 + [[False, True, False]] * 200)
    kept = networks.modality_dropout(there, 1.0)
    assert not (kept & ~there).any() and kept.any(1).all()
    assert (kept[:200].sum(1) == 1).all() and torch.equal(kept[200:], there[200:])
    assert len({tuple(row) for row in kept[:200].tolist()}) == 2, "either may go"


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="from 0 to 1"):
        networks.modality_dropout(torch.ones(2, 2, dtype=torch.bool), share)
    with pytest.raises(ValueError, match="from 0 to 1"):
        build(networks.LateFusion, share)


def test_a_row_with_nothing_is_named():
    there = torch.tensor([[True, True], [False, False]])
    with pytest.raises(ValueError, match="Row 1"):
        networks.modality_dropout(there, 0.5)


# --------------------------------------------------------------------------------------- fusion
def test_late_fusion_is_the_means_side_by_side():
    model, x = build(networks.LateFusion).eval(), rows()
    cells, _ = model.entries["picture"](x["picture"])
    words, there = model.entries["name"](x["name"])
    means = torch.stack([w[t].mean(0) for w, t in zip(words, there, strict=True)])
    by_hand = model.join(torch.cat([cells.mean(1), means], dim=1)).clamp_min(0)
    torch.testing.assert_close(model(x), by_hand)


def test_cross_attention_is_torchs():
    model, x = build(networks.CrossAttentionFusion).eval(), rows()
    cells, _ = model.entries["picture"](x["picture"])
    words, there = model.entries["name"](x["name"])
    looks = model.looks["picture"]
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        parts = looks.query, looks.key, looks.value
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        theirs.out_proj.load_state_dict(looks.out.state_dict())
    query, memory = model.norms["picture"](cells), model.norms["name"](words)
    read, _ = theirs(query, memory, memory, key_padding_mask=~there)
    seen = []
    handle = model.join.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(x)
    handle.remove()
    torch.testing.assert_close(seen[0][:, :8], (cells + read).mean(1), atol=1e-5, rtol=1e-5)


@BOTH
@pytest.mark.parametrize("gone", ["picture", "name"])
def test_what_is_missing_is_not_looked_at(kind, gone):
    model, x = build(kind).eval(), rows()
    left = {name: values for name, values in x.items() if name != gone}
    without = model(left, {gone: False})
    torch.testing.assert_close(model(x, {gone: False}), without)
    torch.testing.assert_close(model(x, {gone: torch.zeros(5, dtype=torch.bool)}), without)
    assert not torch.allclose(model(x), without)
    # rows are told apart: what one lacks, another has
    there = torch.tensor([True, False, True, True, False])
    mixed = model(x, {gone: there})
    torch.testing.assert_close(mixed[there], model(x)[there])
    torch.testing.assert_close(mixed[~there], without[~there])


@BOTH
def test_a_missing_row_may_be_broken(kind):
    """An empty name, or a picture of NaN, does no harm where it is said to be missing."""
    model, x = build(kind).eval(), rows()
    clean = model(x, {"name": torch.arange(5) > 1, "picture": torch.arange(5) < 4})
    x["name"][:2], x["picture"][4] = 0, torch.nan
    again = model(x, {"name": torch.arange(5) > 1, "picture": torch.arange(5) < 4})
    torch.testing.assert_close(clean, again)


@BOTH
def test_gradients_reach_the_stand_in_of_what_is_missing_alone(kind):
    model, x = build(kind), rows()
    model({"picture": x["picture"]}, {"name": False}).sum().backward()
    assert model.missing["name"].grad.any() and not model.missing["picture"].grad.any()
    assert model.entries["name"].table.weight.grad is None


@BOTH
def test_dropout_works_in_training_alone_and_a_batch_of_one_runs(kind):
    model, x = build(kind, dropout=1.0), rows()
    torch.manual_seed(0)
    full = model.eval()(x)
    torch.testing.assert_close(model(x), full)
    assert not torch.allclose(model.train()(x), full)
    one = {name: values[:1] for name, values in x.items()}
    torch.testing.assert_close(model.eval()(one), full[:1])


@BOTH
@pytest.mark.parametrize(
    "change,there,words",
    [
        (lambda x: x.pop("name"), None, "A 'picture' without its 'name'"),
        (lambda x: x.pop("picture"), None, "A 'name' without its 'picture'"),
        (lambda x: x.clear(), None, "no inputs: give picture or name"),
        (lambda x: x.update(sound=x["name"]), None, "'sound' is no modality"),
        (lambda x: x.update(name=x["name"][:3]), None, "Row 3 has a 'picture' without its 'name'"),
        (lambda x: x.update(picture=x["picture"][:2]), None, "Row 2 has a 'name' without"),
        (lambda x: None, {"name": torch.ones(4, dtype=torch.bool)}, r"there\['name'\]"),
        (lambda x: None, {"name": torch.ones(5)}, r"there\['name'\]"),
        (lambda x: None, {"name": torch.arange(5) > 0, "picture": torch.arange(5) > 1}, "Row 0"),
        (lambda x: None, {"name": False, "picture": False}, "Row 0 has none"),
        (lambda x: None, {"taste": True}, "'taste' is no modality"),
        (lambda x: x["name"].__setitem__(1, 0), None, "Row 1 has no token"),
    ],
)
def test_what_does_not_fit_is_named(kind, change, there, words):
    model, x = build(kind).eval(), rows()
    change(x)
    with pytest.raises(ValueError, match=words):
        model(x, there)


def test_cross_attention_needs_two():
    with pytest.raises(ValueError, match="1 modality"):
        networks.CrossAttentionFusion({"name": networks.WordTokens(5, 8)}, 8)


@BOTH
def test_three_modalities_and_a_checkpoint(kind):
    torch.manual_seed(0)
    entries = {"a": nn.Embedding(5, 8), "b": nn.Linear(3, 8), "c": nn.Linear(2, 8)}
    model = kind({n: networks.OneToken(m) for n, m in entries.items()}, 8, dropout=0.5)
    x = {"c": torch.randn(4, 2), "a": torch.tensor([1, 2, 3, 4]), "b": torch.randn(4, 3)}
    z = model.eval()(x, {"b": False})
    assert z.shape == (4, 8) and z.isfinite().all()
    torch.manual_seed(9)
    other = {"a": nn.Embedding(5, 8), "b": nn.Linear(3, 8), "c": nn.Linear(2, 8)}
    copy = kind({n: networks.OneToken(m) for n, m in other.items()}, 8).eval()
    copy.load_state_dict(model.state_dict())
    torch.testing.assert_close(copy(x, {"b": False}), z)
