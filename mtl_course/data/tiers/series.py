"""Series out of published archives: spoken vowels, and prices of stocks."""

import csv
import gzip
import io

import numpy as np


def japanese_vowels(train: bytes, test: bytes) -> dict:
    """Two vowels, spoken one after the other, as series of sounds.

    x: [640, 29, 12] float64: steps of 12 coefficients, zeros after the end.
    length: [640] int64, steps, 7 to 29; speaker: [640] int64, 0 to 8.
    train: [640] bool, the official training part, which comes first.
    """
    series, speakers, parts = [], [], []
    for part, content in ((True, train), (False, test)):
        lines = content.decode("utf-8").split("@data\n")[1].splitlines()
        for line in filter(None, lines):
            *channels, speaker = line.split(":")
            # in the file a row per coefficient, here one per step
            series.append(np.array([row.split(",") for row in channels], dtype=np.float64).T)
            speakers.append(int(speaker) - 1)
            parts.append(part)
    x = np.zeros((len(series), max(map(len, series)), series[0].shape[1]))
    for row, steps in enumerate(series):
        x[row, : len(steps)] = steps
    return {
        "x": x,
        "length": np.array([len(steps) for steps in series], dtype=np.int64),
        "speaker": np.array(speakers, dtype=np.int64),
        "train": np.array(parts),
    }


def stocks(prices: bytes, index: bytes) -> dict:
    """Closing prices by trading day, adjusted for dividends and splits.

    prices: [8313, 20] float64, dollars; names: [20] of the stocks.
    index: [8313] float64, the S&P 500; date: [8313], such as "1990-01-02".
    """
    header, *rows = _table(prices)
    dates = [row[0] for row in rows]
    _, *level = _table(index)
    if [row[0] for row in level] != dates:
        raise ValueError("The prices and the index are of different days.")
    return {
        "prices": np.array([row[1:] for row in rows], dtype=np.float64),
        "names": np.array(header[1:]),
        "index": np.array([row[1] for row in level], dtype=np.float64),
        "date": np.array(dates),
    }


def _table(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(gzip.decompress(content).decode("utf-8"))))
