"""The encoder of sentences against transformers' BERT, its tokens against those of tokenizers."""

import fnmatch

import pytest
import torch
from data_tools import load_or_skip
from torch import nn
from torch.nn import functional as F

from mtl_course import networks, transfer
from mtl_course.multitask import HardSharing
from mtl_course.networks.sentence_encoder import SentenceEncoder, WordPiece, encode, from_bert

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SENTENCES = [
    "The dress fits perfectly, and the colour is lovely.",
    "This dress fits well; its colour is beautiful!",
    "The central bank raised interest rates by half a point.",
    "no",
    "I'd say: 3 stars (out of 5) – unbelievably itchy fabric … sent it back <3",
]
TEXTS = [
    *SENTENCES,
    "",
    " \t\n ",
    "Crème brûlée à l'été, naïve ΣΑΣ İstanbul ß Ångström",
    "漢字 and 日本語 한국어 คน",
    "a\tb\nc\x0bd\x1ce\u200bf\u00a0g\x00h\ufffd",
    "x" * 100 + " " + "y" * 101,
    "🙂 good :-) 100% C++ <b>bold</b> a_b~c^d`e|f $5.99 “quotes”",
    "don't won't antidisestablishmentarianism zzzqqq",
    # every character of the Latin, Greek and Cyrillic alphabets, and the signs between them
    *(f"a{chr(code)}b" for code in range(0x500)),
]


@pytest.fixture(scope="module")
def files():
    return load_or_skip("minilm")


@pytest.fixture(scope="module")
def tokens(files):
    return WordPiece(files.vocabulary)


@pytest.fixture(scope="module")
def encoder(files):
    return networks.minilm(files)


def published(files) -> dict[str, torch.Tensor]:
    """The weights under their published names."""
    tensors, start = {}, 0
    for name, shape in zip(files.names.tolist(), files.shapes.tolist(), strict=True):
        sizes = [size for size in shape if size]
        end = start + torch.Size(sizes).numel()
        tensors[name] = torch.tensor(files.weights[start:end]).view(sizes)
        start = end
    return tensors


def bert(**options):
    """A BERT of transformers, without a pooler."""
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**options), add_pooling_layer=False).eval()


def check_equal(ours: SentenceEncoder, theirs, ids) -> None:
    there = ids != 0
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=there.long()).last_hidden_state
        found = ours.each_word(ids)
        assert (found - expected)[there].abs().max() < 1e-4
        mean = torch.stack([row[mask].mean(0) for row, mask in zip(expected, there, strict=True)])
        torch.testing.assert_close(ours(ids), mean, atol=1e-4, rtol=0)
        lengths = F.normalize(ours(ids)).norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones(len(ids)))


# -------------------------------------------------------------------------------------- the network


def test_a_small_bert_of_random_weights_is_the_same_network():
    """Needs no download. Scales and shifts of the norms are not those of a fresh network."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 40}
    theirs = bert(**sizes, num_attention_heads=12, max_position_embeddings=16, type_vocab_size=2)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    tensors = {name: value for name, value in theirs.state_dict().items() if "_ids" not in name}
    ours = from_bert(tensors, dropout=0.1)
    ids = torch.randint(1, 60, (7, 16))
    for row in range(6):
        ids[row, 3 * row + 1 :] = 0
    check_equal(ours, theirs, ids)


def test_the_pretrained_network_is_that_of_transformers(files, tokens, encoder):
    theirs = bert(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    wrong = theirs.load_state_dict(published(files), strict=False)
    assert not wrong.unexpected_keys and not [n for n in wrong.missing_keys if "_ids" not in n]
    check_equal(encoder, theirs, tokens(SENTENCES))
    assert networks.parameters(encoder) == 22_564_608


def test_sentences_of_one_meaning_are_close(tokens, encoder):
    with torch.no_grad():
        features = F.normalize(encoder(tokens(SENTENCES)))
    cosines = features @ features.T
    assert cosines[0, 1] > 0.8 and cosines[0, 2] < 0.2


def small(**options) -> SentenceEncoder:
    torch.manual_seed(0)
    return SentenceEncoder(30, **({"width": 24, "layers": 2, "heads": 2, "hidden": 16} | options))


IDS = torch.tensor([[2, 7, 9, 4, 3], [2, 5, 3, 0, 0], [2, 3, 0, 0, 0]])


def test_padding_and_neighbours_change_nothing():
    model = small().eval()
    alone = torch.cat([model(ids[ids != 0][None]) for ids in IDS])
    torch.testing.assert_close(model(IDS), alone)
    torch.testing.assert_close(encode(model, IDS, batch=2), alone)
    assert encode(model, IDS[:0]).shape == (0, 24)
    assert not torch.allclose(model(IDS[:1]), model(IDS[:1, [0, 2, 1, 3, 4]])), "order counts"


def test_dropout_is_for_training_only():
    model = small(dropout=0.5)
    assert not torch.equal(model.train()(IDS), model(IDS))
    assert torch.equal(model.eval()(IDS), model(IDS))
    assert not torch.equal(small(dropout=0.0).train()(IDS), model.train()(IDS))


def test_layers_are_found_by_name_and_train():
    """What LoRA and freezing ask of a network: its Linear layers have names to match."""
    model = small()
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    kinds = [f"attention.{kind}" for kind in ("query", "key", "value", "out")] + ["grow", "shrink"]
    assert sorted(linear) == sorted(f"layers.{n}.{kind}" for n in range(2) for kind in kinds)
    chosen = fnmatch.filter(linear, "layers.*.query") + fnmatch.filter(linear, "layers.1.*")
    assert len(set(chosen)) == 7
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[0] in chosen)
    head = nn.Linear(24, 2)
    learned = [p for p in [*model.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=0.01)
    labels, losses = torch.tensor([0, 1, 0]), []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(30):
        loss = F.cross_entropy(head(model.eval()(IDS)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert losses[-1] < 0.2 * losses[0]
    assert {name.rpartition(".")[0] for name in changed} == set(chosen)


def test_lora_by_name_changes_the_chosen_layers_only():
    model = small().eval()
    before = model(IDS)
    transfer.add_lora(model, ["layers.*.query", "layers.*.value"], r=2)
    names = {f"layers.{n}.attention.{kind}" for n in range(2) for kind in ("query", "value")}
    assert set(transfer.lora_layers(model)) == names
    torch.testing.assert_close(model(IDS), before)
    model(IDS).square().sum().backward()
    learned = {name for name, value in model.named_parameters() if value.grad is not None}
    assert learned == {f"{name}.{matrix}.default" for name in names for matrix in "AB"}


def test_it_is_a_trunk_for_several_heads():
    model = HardSharing(small(), {"stars": nn.Linear(24, 1), "topic": nn.Linear(24, 6)})
    assert {task: list(out.shape) for task, out in model(IDS).items()} == {
        "stars": [3, 1],
        "topic": [3, 6],
    }


@pytest.mark.parametrize(
    "ids, message",
    [
        (IDS[0], r"ids \[B, L\] of 1 to 8 tokens; these have the shape \[5\]"),
        (torch.ones(2, 9, dtype=torch.int64), r"these have the shape \[2, 9\]"),
        (torch.ones(2, 0, dtype=torch.int64), r"these have the shape \[2, 0\]"),
        (torch.tensor([[2, 30]]), "at place 1, outside the vocabulary of 30"),
        (torch.tensor([[2, -1]]), "at place 1, outside the vocabulary of 30"),
        (torch.tensor([[2, 3], [0, 0]]), "Row 1 has no token, only padding"),
    ],
)
def test_ids_that_cannot_be_read(ids, message):
    for call in (small(positions=8), lambda ids: encode(small(positions=8), ids, batch=1)):
        with pytest.raises(ValueError, match=message):
            call(ids)


def test_weights_of_another_network_are_refused():
    sizes = {"vocab_size": 9, "hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 8}
    theirs = bert(**sizes, num_attention_heads=12, max_position_embeddings=4)
    tensors = {name: value for name, value in theirs.state_dict().items() if "_ids" not in name}
    name = "encoder.layer.0.attention.self.query.weight"
    for change, message in (
        (
            {name: tensors[name][:3]},
            "not the weights of such an encoder.*layers.0.attention.query.weight",
        ),
        ({"lm_head.bias": torch.ones(3)}, "no place in the encoder: lm_head.bias"),
    ):
        with pytest.raises(ValueError, match=message):
            from_bert(tensors | change, 0.1)
    for lost, message in (
        (name, r"Missing key\(s\).*layers.0.attention.query.weight"),
        ("embeddings.word_embeddings.weight", "not the weights of a BERT: .* is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            from_bert({key: value for key, value in tensors.items() if key != lost}, 0.1)


# --------------------------------------------------------------------------------------- the tokens


def test_tokens_are_those_of_the_tokenizers_library(files, tokens):
    from tokenizers import BertWordPieceTokenizer

    numbers = {str(piece): number for number, piece in enumerate(files.vocabulary)}
    theirs = BertWordPieceTokenizer(numbers, lowercase=True)
    for text in TEXTS:
        ids = tokens([text], length=512)[0].tolist()
        assert ids == theirs.encode(text).ids, repr(text)


def test_a_batch_is_padded_and_cut():
    words = WordPiece([*SPECIAL, "a", "b", "##b"])
    assert words(["a bb ab", "a"]).tolist() == [[2, 4, 5, 6, 4, 6, 3], [2, 4, 3, 0, 0, 0, 0]]
    assert words(["a bb ab", "a"], length=4).tolist() == [[2, 4, 5, 3], [2, 4, 3, 0]]
    assert words(["", "a"], length=2).tolist() == [[2, 3], [2, 3]]
    assert words([]).shape == (0, 0) and words(["a"]).dtype == torch.int64
    assert words(iter(["ac"])).tolist() == [[2, 1, 3]], "a word with an unknown rest is unknown"


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: WordPiece(["a", *SPECIAL]), ValueError, "as its first"),
        (lambda: WordPiece(SPECIAL[:3]), ValueError, r"it lacks \[SEP\]"),
        (lambda: WordPiece(SPECIAL)("one text"), TypeError, "a list of texts"),
        (lambda: WordPiece(SPECIAL)(["a"], length=1), ValueError, "at least 2.*it is 1"),
    ],
)
def test_bad_calls_of_the_tokens(call, error, message):
    with pytest.raises(error, match=message):
        call()
