"""Texts with labels, out of the archives of published packages or the data root."""

import ast
import gzip
import io
import tarfile

import numpy as np

DOMAINS = {
    "tweets": "tweets",
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
}


def reviews(content: bytes) -> dict:
    """Reviews of clothes by customers: those with a text and a department.

    text: [22628], a line each; rating: [22628] int64, 1 to 5 stars.
    recommend: [22628] int64, 1 where the customer would; age: [22628] int64, of the customer.
    department: [22628] int64; department_names: [6]; item: [22628] int64, the piece reviewed.
    """
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(pyarrow.BufferReader(content)).to_pydict()
    texts, departments = table["Review Text"], table["Department Name"]
    rows = [row for row, both in enumerate(zip(texts, departments, strict=True)) if all(both)]
    names, department = np.unique([departments[row] for row in rows], return_inverse=True)
    columns = {
        "rating": "Rating",
        "recommend": "Recommended IND",
        "age": "Age",
        "item": "Clothing ID",
    }
    arrays = {
        key: np.array([table[name][row] for row in rows], dtype=np.int64)
        for key, name in columns.items()
    }
    arrays["text"] = np.array([" ".join(texts[row].split()) for row in rows])
    return arrays | {"department": department.astype(np.int64), "department_names": names}


def vader(content: bytes) -> dict:
    """Sentences of four domains, each rated by about twenty people from -4 to 4.

    text: [23703], a line each; rating: [23703] float64, the mean; spread: [23703] float64, the
    standard deviation of the ratings.
    domain: [23703] int64; domain_names: [4].
    document: [23703] int64, within its domain: sentences of one review or article share it.
    """
    columns = {name: [] for name in ("text", "rating", "spread", "domain", "document")}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for domain, name in enumerate(DOMAINS.values()):
            texts, ratings = (
                archive.extractfile(f"hutto_ICWSM_2014/{name}_{kind}.txt").read()
                for kind in ("GroundTruth", "anonDataRatings")
            )
            given = {row[0]: ast.literal_eval(row[3]) for row in _rows(ratings)}
            for number, _, text in _rows(texts):
                columns["text"].append(" ".join(text.split()))
                columns["rating"].append(np.mean(given[number]))
                columns["spread"].append(np.std(given[number]))
                columns["domain"].append(domain)
                columns["document"].append(int(number.partition("_")[0]))
    return {name: np.array(values) for name, values in columns.items()} | {
        "domain_names": np.array(list(DOMAINS))
    }


def wnut17(*parts: bytes) -> dict:
    """Words of short texts from the web, each with a tag: is it in a name, and of what?

    word: [N], in the order of the texts; tag: [N] int64; tag_names: [13], "O" and then "B-" for the
    first word of a name and "I-" for its others, of each kind.
    text: [N] int64, the text of a word, counted through all parts.
    part: [N] int64, 0 for training, 1 for development, 2 for the test; part_names: [3].
    """
    words, tags, text, part = [], [], [], []
    number = 0
    for which, content in enumerate(parts):
        began = False
        for line in gzip.decompress(content).decode("utf-8").split("\n"):
            word, _, tag = line.strip("\r").partition("\t")
            if word.strip():
                words.append(word.strip())
                tags.append(tag.strip())
                text.append(number)
                part.append(which)
            elif began:
                number += 1
            began = bool(word.strip())
        number += began
    names, tag = np.unique(tags, return_inverse=True)
    order = sorted(range(len(names)), key=lambda k: (names[k] != "O", names[k][2:], names[k]))
    place = np.argsort(order)
    return {
        "word": np.array(words),
        "tag": place[tag].astype(np.int64),
        "tag_names": names[order],
        "text": np.array(text, dtype=np.int64),
        "part": np.array(part, dtype=np.int64),
        "part_names": np.array(["train", "development", "test"]),
    }


def _rows(content: bytes) -> list[list[str]]:
    """The fields of a text's lines, which tabs part."""
    lines = content.decode("utf-8-sig").split("\n")
    return [line.rstrip("\r").split("\t") for line in lines if line.strip()]
