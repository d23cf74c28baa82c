"""Tier D: torchvision's own code against a server on this machine with tiny archives in the real
formats, whole or spoilt.
"""

import bz2
import dataclasses
import errno
import gzip
import hashlib
import io
import os
import pickle
import socket
import struct
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from mtl_course import data
from mtl_course.data import cache, manifest
from mtl_course.data.tiers import vision

RANDOM = np.random.RandomState(0)
N = {"train": 6, "test": 4}
NAMES = ("mnist", "fashion_mnist", "usps", "svhn", "cifar10", "cifar100", "omniglot")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def images(part: str, *shape: int) -> np.ndarray:
    return RANDOM.randint(0, 256, (N[part], *shape), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    """MNIST's format: two zero bytes, the code of uint8, the number of dimensions, the sizes, the
    values.
    """
    return gzip.compress(
        struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes(),
        mtime=0,
    )


def tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def server():
    """Serves `files` (path -> bytes) and counts the requests; a path in `broken` promises all its
    bytes and sends half.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            home.asked.append(name)
            if name not in home.files or home.refuse > 0:
                home.refuse -= 1
                self.send_error(404)
                return
            content = home.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if name in home.broken else content)

        def log_message(self, *_):
            pass

    home = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    home.files, home.asked, home.broken, home.refuse = {}, [], set(), 0
    home.url = f"http://127.0.0.1:{home.server_port}"
    threading.Thread(target=home.serve_forever, args=(0.01,), daemon=True).start()
    yield home
    home.shutdown()
    home.server_close()


@pytest.fixture
def sets(server, tmp_path, monkeypatch):
    """Point torchvision's classes at the server; a function from a set's name to (its entry, the
    arrays it must give).
    """
    monkeypatch.setenv("MTL_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vision, "PAUSE", 0.0)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def mnist(sets=datasets.MNIST):
        arrays, resources = {}, []
        for part, word in (("train", "train"), ("test", "t10k")):
            arrays |= {f"x_{part}": images(part, 28, 28), f"y_{part}": np.arange(N[part])}
            for kind, array in (
                ("images-idx3", arrays[f"x_{part}"]),
                ("labels-idx1", arrays[f"y_{part}"].astype(np.uint8)),
            ):
                server.files[f"{word}-{kind}-ubyte.gz"] = idx(array)
                resources.append((f"{word}-{kind}-ubyte.gz", md5(idx(array))))
        monkeypatch.setattr(sets, "mirrors", [server.url + "/"])
        monkeypatch.setattr(sets, "resources", resources)
        return arrays

    def fashion_mnist():
        return mnist(datasets.FashionMNIST) | {"names": np.array(datasets.FashionMNIST.classes)}

    def usps():
        arrays, splits = {}, {}
        for part, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
            values = RANDOM.randint(-1000, 1001, (N[part], 256)) / 1000
            lines = [
                f"{row + 1} " + " ".join(f"{i + 1}:{v:.3f}" for i, v in enumerate(line))
                for row, line in enumerate(values)
            ]
            server.files[name] = bz2.compress("\n".join(lines).encode())
            splits[part] = [f"{server.url}/{name}", name, md5(server.files[name])]
            grey = ((values.astype(np.float32) + 1) / 2 * 255).astype(np.uint8)
            arrays |= {f"x_{part}": grey.reshape(-1, 16, 16), f"y_{part}": np.arange(N[part])}
        monkeypatch.setattr(datasets.USPS, "split_list", splits)
        return arrays

    def svhn():
        arrays, splits = {}, {}
        for part in ("train", "test"):
            x, labels = images(part, 32, 32, 3), np.array([10, 1, 2, 3, 4, 10][: N[part]])
            stream = io.BytesIO()
            scipy.io.savemat(
                stream, {"X": x.transpose(1, 2, 3, 0), "y": labels[:, None].astype(np.uint8)}
            )
            name = f"{part}_32x32.mat"
            server.files[name] = stream.getvalue()
            splits[part] = [f"{server.url}/{name}", name, md5(server.files[name])]
            arrays |= {f"x_{part}": x, f"y_{part}": labels % 10}
        monkeypatch.setattr(datasets.SVHN, "split_list", splits)
        return arrays

    def cifar(kind, folder, batches, label_key, meta_name, meta_key):
        arrays, files = {"names": np.array(["ant", "bee", "cat", "dog", "eel", "fox"])}, {}
        for part, name in batches.items():
            x, y = images(part, 32, 32, 3), list(range(N[part]))
            arrays |= {f"x_{part}": x, f"y_{part}": np.array(y)}
            batch = {"data": x.transpose(0, 3, 1, 2).reshape(len(x), -1), label_key: y}
            if label_key == "fine_labels":
                batch["coarse_labels"] = [label // 2 for label in y]
                arrays[f"coarse_{part}"] = np.array(y) // 2
            files[name] = pickle.dumps(batch)
        files[meta_name] = pickle.dumps({meta_key: arrays["names"].tolist()})
        content = tar({f"{folder}/{name}": held for name, held in files.items()})
        server.files[f"{folder}.tar.gz"] = content
        for name, value in {
            "url": f"{server.url}/{folder}.tar.gz",
            "filename": f"{folder}.tar.gz",
            "tgz_md5": md5(content),
            "base_folder": folder,
            "train_list": [[batches["train"], md5(files[batches["train"]])]],
            "test_list": [[batches["test"], md5(files[batches["test"]])]],
            "meta": {"filename": meta_name, "key": meta_key, "md5": md5(files[meta_name])},
        }.items():
            monkeypatch.setattr(kind, name, value)
        return arrays

    def cifar10():
        batches = {"train": "data_batch_1", "test": "test_batch"}
        return cifar(
            datasets.CIFAR10,
            "cifar-10-batches-py",
            batches,
            "labels",
            "batches.meta",
            "label_names",
        )

    def cifar100():
        batches = {"train": "train", "test": "test"}
        return cifar(
            datasets.CIFAR100,
            "cifar-100-python",
            batches,
            "fine_labels",
            "meta",
            "fine_label_names",
        )

    def omniglot():
        """Two archives of drawings in one grey each, in the order of no listing; 28 x 28 pixels of
        255 minus that grey come out.
        """
        layout = {
            "images_background": [("B", "02"), ("A", "01"), ("B", "01")],
            "images_evaluation": [("C", "01"), ("A", "01")],
        }
        shades, sums = {}, {}
        for number, (part, characters) in enumerate(layout.items()):
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w") as archive:
                for alphabet, character in characters:
                    for drawing in (2, 1):
                        shade = shades[number, alphabet, character, drawing] = RANDOM.randint(256)
                        file = io.BytesIO()
                        Image.new("L", (105, 105), 255 - int(shade)).save(file, "png")
                        archive.writestr(
                            f"{part}/{alphabet}/character{character}/000{character}_0{drawing}.png",
                            file.getvalue(),
                        )
            server.files[f"{part}.zip"], sums[part] = stream.getvalue(), md5(stream.getvalue())
        monkeypatch.setattr(datasets.Omniglot, "download_url_prefix", server.url)
        monkeypatch.setattr(datasets.Omniglot, "zips_md5", sums)
        return {
            "x": np.stack([np.full((28, 28), shades[key], np.uint8) for key in sorted(shades)]),
            "y": np.repeat(np.arange(5), 2),
            "alphabet": np.array([0, 1, 1, 2, 3]),
            "names": np.array(
                [
                    f"{letter}/character{n}"
                    for letter, n in (
                        ("A", "01"),
                        ("B", "01"),
                        ("B", "02"),
                        ("A", "01"),
                        ("C", "01"),
                    )
                ]
            ),
            "alphabet_names": np.array(["A", "B", "A", "C"]),
            "background": np.array([True, True, True, False, False]),
        }

    makers = {
        "mnist": mnist,
        "fashion_mnist": fashion_mnist,
        "usps": usps,
        "svhn": svhn,
        "cifar10": cifar10,
        "cifar100": cifar100,
        "omniglot": omniglot,
    }

    def prepare(name):
        arrays = makers[name]()
        assert set(arrays) == set(manifest.info(name).shape)
        return (
            dataclasses.replace(
                manifest.info(name), shape={key: array.shape for key, array in arrays.items()}
            ),
            arrays,
        )

    return prepare


def left() -> list[str]:
    return sorted(str(path.relative_to(cache.folder())) for path in cache.folder().rglob("*"))


@pytest.mark.parametrize("name", NAMES)
def test_fetched_once_and_offline_afterwards(name, sets, server, capfd):
    info, expected = sets(name)
    fetched, origin = vision.load(info)
    assert origin == "torchvision's download" and f"Fetching {name}" in capfd.readouterr().err
    assert left() == [f"{name}.npz"]
    server.files.clear()
    asked = len(server.asked)
    again, _ = vision.load(info)
    assert len(server.asked) == asked and not capfd.readouterr().err
    for found in (fetched, again):
        assert set(found) == set(expected)
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array)
            if not key.endswith("names"):
                assert found[key].dtype == {"x": np.uint8, "background": np.bool_}.get(
                    key.partition("_")[0], np.int64
                )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", ["half is sent", "altered"])
def test_truncated_or_altered_archive(name, fault, sets, server):
    info, _ = sets(name)
    victim = list(server.files)[-1]
    if fault == "altered":
        content = bytearray(server.files[victim])
        content[len(content) // 2] ^= 1
        server.files[victim] = bytes(content)
    else:
        server.broken.add(victim)
    with pytest.raises(
        data.DataError,
        match=(
            f"{name}: 3 downloads arrived truncated or altered, so nothing was kept. Try again"
            " later"
        ),
    ):
        vision.load(info)
    assert server.asked.count(victim) >= 3 and not left()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_file_in_the_cache_is_fetched_anew_or_left_as_it_is(
    name, damage, sets, server, capfd
):
    info, expected = sets(name)
    vision.load(info)
    path = cache.file_of(info)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {
        "truncated": bytes(content[: len(content) // 2]),
        "altered": bytes(content),
        "empty": b"",
    }[damage]
    path.write_bytes(damaged)
    files = dict(server.files)
    server.files.clear()
    with pytest.raises(data.DataError, match=f"{name}: 3 attempts to download it failed"):
        vision.load(info)
    assert (
        "is damaged" in capfd.readouterr().err
        and left() == [path.name]
        and path.read_bytes() == damaged
    )
    server.files.update(files)
    again, _ = vision.load(info)
    assert all(np.array_equal(again[key], array) for key, array in expected.items()) and left() == [
        path.name
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_network(name, sets, server):
    info, _ = sets(name)
    server.shutdown()
    server.server_close()
    with pytest.raises(
        data.DataError,
        match=(
            f"{name}: 3 attempts to download it failed. There is no network.*mtl_course.data --full"
        ),
    ):
        vision.load(info)
    assert not left()


@pytest.mark.parametrize("name", NAMES)
def test_the_server_has_moved(name, sets, server):
    info, _ = sets(name)
    server.files.clear()
    with pytest.raises(
        data.DataError,
        match=f"{name}: 3 attempts to download it failed.*its server cannot be reached.*404",
    ):
        vision.load(info)
    assert not left()


def test_a_server_that_recovers(sets, server):
    info, expected = sets("usps")
    server.refuse = 1
    arrays, _ = vision.load(info)
    np.testing.assert_array_equal(arrays["x_test"], expected["x_test"])


@pytest.mark.parametrize("name", NAMES)
def test_other_data_than_the_manifest_says(name, sets):
    """Archives that torchvision accepts, of other sizes than the real sets: the door refuses them
    and keeps nothing.
    """
    sets(name)
    with pytest.raises(
        data.DataError, match=f"{name}, as fetched, was altered.*Get it again from http"
    ):
        data.load(name)
    assert not left()


@pytest.mark.parametrize(
    "number, message",
    [(errno.ENOSPC, "is full; nothing unfinished was kept"), (errno.EACCES, "cannot be written")],
)
@pytest.mark.parametrize(
    "place", ["torchvision.datasets.utils._urlretrieve", "os.replace", "numpy.savez"]
)
def test_full_or_read_only_disk(place, number, message, sets, monkeypatch):
    info, _ = sets("usps")
    calls = []

    def fail(*_, **__):
        calls.append(1)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(data.DataError, match=f"{message}.*MTL_COURSE_CACHE"):
            vision.load(info)
    assert len(calls) == 1 and not left()  # no second attempt helps here


def test_a_silent_server_is_given_up(sets, monkeypatch):
    """A server that accepts and never answers: the attempt ends after the timeout, and the
    process's own timeout is as it was.
    """
    info, _ = sets("usps")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        split = {
            part: [f"http://127.0.0.1:{silent.getsockname()[1]}/x", *rest]
            for part, (_, *rest) in datasets.USPS.split_list.items()
        }
        monkeypatch.setattr(datasets.USPS, "split_list", split)
        monkeypatch.setattr(vision, "TIMEOUT", 0.2)
        with pytest.raises(data.DataError, match=r"3 attempts to download it failed.*timed out"):
            vision.load(info)
    assert socket.getdefaulttimeout() is None and not left()


def test_an_interrupted_download_leaves_nothing(sets, monkeypatch):
    info, _ = sets("mnist")

    def interrupt(url, filename, *_, **__):
        with open(filename, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", interrupt)
    with pytest.raises(KeyboardInterrupt):
        vision.load(info)
    assert not left()


def test_a_drawing_is_made_small_by_averaging(tmp_path):
    """A black bar of 15 pixels on white: 4 pixels of full ink, nothing lost at its edges, nothing
    far from it.
    """
    drawing = np.full((105, 105), 255, np.uint8)
    drawing[:, 45:60] = 0
    Image.fromarray(drawing).convert("1").save(tmp_path / "bar.png")
    small = vision._small(tmp_path / "bar.png")
    assert small.dtype == np.uint8 and (small == small[0]).all() and (small[0, 13:15] == 255).all()
    assert (
        not small[0, :10].any() and not small[0, 18:].any() and abs(small[0].sum() / 255 - 4) < 0.1
    )
