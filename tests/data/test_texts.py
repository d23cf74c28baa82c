"""Texts with labels: counts, what the labels mean, and that no line is lost or moved."""

import gzip
import io
import tarfile

import numpy as np
import pytest
from data_tools import HERE, load_or_skip

from mtl_course.data.tiers import texts


@pytest.fixture(scope="module")
def reviews():
    return load_or_skip("reviews")


@pytest.fixture(scope="module")
def vader():
    return load_or_skip("vader")


def lines(column) -> bool:
    """Whether every text is one line with something in it."""
    return all(text and text == " ".join(text.split()) for text in column.tolist())


def test_reviews_have_the_counts_of_the_source(reviews):
    assert lines(reviews.text) and reviews.text.dtype.kind == "U"
    assert np.bincount(reviews.rating).tolist() == [0, 821, 1549, 2823, 4908, 12527]
    assert np.bincount(reviews.recommend).tolist() == [4101, 18527]
    counts = np.bincount(reviews.department).tolist()
    assert dict(zip(reviews.department_names.tolist(), counts, strict=True)) == {
        "Bottoms": 3662,
        "Dresses": 6145,
        "Intimate": 1653,
        "Jackets": 1002,
        "Tops": 10048,
        "Trend": 118,
    }
    assert reviews.age.min() == 18 and reviews.age.max() == 99
    assert all(reviews[name].dtype == np.int64 for name in ("rating", "recommend", "age", "item"))


def test_reviews_labels_belong_to_their_texts(reviews):
    first = reviews.text[0], reviews.rating[0], reviews.recommend[0], reviews.age[0]
    assert first == ("Absolutely wonderful - silky and sexy and comfortable", 4, 1, 33)
    assert reviews.department_names[reviews.department[0]] == "Intimate"
    # stars and recommendation agree, and the words of a department are in its reviews
    assert np.corrcoef(reviews.rating, reviews.recommend)[0, 1] > 0.75
    dress = np.array(["dress" in text.lower() for text in reviews.text.tolist()])
    shares = [dress[reviews.department == number].mean() for number in range(6)]
    assert np.argmax(shares) == 1 and shares[1] > 0.7 and sorted(shares)[-2] < 0.5
    perfect, disappointed = (
        np.array([word in text.lower() for text in reviews.text.tolist()])
        for word in ("perfect", "disappointed")
    )
    assert reviews.rating[perfect].mean() > 4.3 > 3.3 > reviews.rating[disappointed].mean()


def test_an_item_has_one_department(reviews):
    pairs = set(zip(reviews.item.tolist(), reviews.department.tolist(), strict=True))
    assert len(pairs) == len(set(reviews.item.tolist())) == 1172


def test_vader_has_the_counts_of_its_description(vader):
    assert vader.domain_names.tolist() == ["tweets", "films", "products", "editorials"]
    assert np.bincount(vader.domain).tolist() == [4200, 10605, 3708, 5190]
    assert lines(vader.text) and (np.abs(vader.rating) <= 4).all() and (vader.spread >= 0).all()
    documents = [len(np.unique(vader.document[vader.domain == number])) for number in range(4)]
    assert documents == [4200, 10605, 300, 498]


def test_vaders_ratings_belong_to_their_texts(vader):
    row = vader.text.tolist().index("Yay. Another good phone interview.")
    # the mean of its ratings; the source prints 1.44 beside it
    assert vader.rating[row] == pytest.approx(2.2626, abs=1e-4)
    row = vader.text.tolist().index("Effective but too tepid biopic")
    assert vader.rating[row] == pytest.approx(-0.6)
    for word, sign in (("great", 1), ("terrible", -1)):
        there = np.array([f" {word} " in f" {text.lower()} " for text in vader.text.tolist()])
        for domain in range(4):
            rows = there & (vader.domain == domain)
            assert rows.sum() < 3 or sign * vader.rating[rows].mean() > 0.3


def test_vader_is_the_copy_of_the_data_root(vader):
    folder = HERE / "vader_text"
    if not folder.is_dir():
        pytest.skip("no data root with vader_text: set MTL_COURSE_DATA")
    differing = []
    for domain, name in enumerate(texts.DOMAINS.values()):
        content = gzip.decompress((folder / f"{name}_GroundTruth.txt.gz").read_bytes())
        rows = [row.split("\t") for row in content.decode("utf-8-sig").splitlines() if row.strip()]
        there = vader.domain == domain
        assert [" ".join(row[2].split()) for row in rows] == vader.text[there].tolist()
        printed = np.array([float(row[1]) for row in rows])
        differing.append(int((np.abs(printed - vader.rating[there]) > 1e-3).sum()))
    assert differing == [199, 0, 0, 0], "the note says so"


def archive(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as made:
        for path, text in files.items():
            content = text.encode("utf-8-sig")
            entry = tarfile.TarInfo(f"hutto_ICWSM_2014/{path}.txt")
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def test_vaders_reader_joins_texts_and_ratings_by_their_number():
    files = {}
    for name in texts.DOMAINS.values():
        files[f"{name}_GroundTruth"] = "7_1\t0\ta  b\r\n7_2\t0\té\r\n"
        files[f"{name}_anonDataRatings"] = "7_2\t0\t0\t[1, 3]\n7_1\t0\t0\t[-4]\n"
    arrays = texts.vader(archive(files))
    assert arrays["text"].tolist() == ["a b", "é"] * 4
    assert arrays["rating"].tolist() == [-4, 2] * 4 and arrays["spread"].tolist() == [0, 1] * 4
    assert arrays["document"].tolist() == [7] * 8
    assert arrays["domain"].tolist() == np.repeat(range(4), 2).tolist()
    with pytest.raises(KeyError):
        texts.vader(archive({name: text for name, text in files.items() if "tweets" not in name}))
