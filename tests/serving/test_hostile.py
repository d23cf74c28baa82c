"""Requests that mean harm: each is refused or cut off, and the others are answered meanwhile."""

import contextlib
import gc
import json
import logging
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft202012Validator

from mtl_course.serving import Limits, NGrams, Release, Service, ask, http, running

GOOD = b'{"texts": ["soft"]}'
POST = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
END = b"Connection: close\r\n\r\n"


def service(seconds=0.0, **limits):
    """One whose model takes some seconds for more than one text."""

    def model(ids):
        time.sleep(seconds if len(ids) > 1 else 0)
        return {"words": (ids > 0).sum(1).float()}

    golden = {"texts": ["soft"], "outputs": {"words": [1.0]}, "tolerance": 0.01}
    card = {"version": "1", "tasks": {"words": None}}
    return Service(Release(card, NGrams(["soft"], 4), model, golden), Limits(**limits))


def connect(address):
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=5)


def say(address, *data):
    """All that comes back for these bytes until the connection closes; a reset closes it, too."""
    said = b""
    with connect(address) as one, contextlib.suppress(ConnectionError):
        for part in data:
            one.sendall(part)
        while got := one.recv(65536):
            said += got
    return said


def with_length(body, kind=POST, last=END):
    return kind + b"Content-Length: %d\r\n" % len(body) + last + body


def nested(depth):
    return b"[" * depth + b"]" * depth


def lines(count):
    return b"".join(b"X-%d: a\r\n" % k for k in range(count))


REFUSED = {
    "a length of 5000 digits": (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}", 413),
    "a length below zero": (POST + b"Content-Length: -1\r\n\r\n{}", 400),
    "a length in words": (POST + b"Content-Length: two\r\n\r\n{}", 400),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "a length and chunks": (
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a chunk of no size": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "not UTF-8": (with_length(b'{"texts": ["\xff\xfe"]}'), 400),
    "NaN": (with_length(b'{"texts": NaN}'), 400),
    "infinity": (with_length(b'{"texts": ["a"], "b": -Infinity}'), 400),
    "a field twice, deep": (with_length(b'{"texts": [{"a": 1, "a": 2}]}'), 400),
    "deep": (with_length(b'{"texts": ' + nested(10_000) + b"}"), 400),
    "as deep as is read": (with_length(b'{"texts": ["a", ' + nested(900) + b"]}"), 400),
    "many fields": (with_length(b"{" + b",".join(b'"%x":1' % k for k in range(9000)) + b"}"), 400),
    "a million texts": (with_length(b'{"texts": [' + b'"a",' * 10**6 + b'"a"]}'), 413),
    "HEAD": (b"HEAD /predict HTTP/1.1\r\nHost: a\r\n" + END, 405),
    "PUT": (with_length(GOOD, POST.replace(b"POST", b"PUT")), 405),
    "OPTIONS": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n" + END, 404),
    "a method of its own": (with_length(GOOD, POST.replace(b"POST", b"STEAL")), 405),
    "a way up": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n" + END, 404),
    "a hidden way up": (b"GET /%2e%2e/%2e%2e/etc/passwd%00 HTTP/1.1\r\nHost: a\r\n" + END, 404),
    "a broken form": (
        with_length(b"%ff", b"POST /health HTTP/1.1\r\nContent-Type: multipart/form-data\r\n"),
        400,
    ),
    "no HTTP": (b"\x16\x03\x01\x02\r\n\r\n", 400),
}


@pytest.fixture(scope="module")
def one():
    """A service and its address."""
    here = service(body=100_000)
    with running(here) as address:
        yield here, address


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_is_no_fault_of_the_service(one, name):
    here, address = one
    data, status = REFUSED[name]
    failed = here.failed
    said = say(address, data)
    # a large body may meet a closed door, and then the answer is lost
    assert said.startswith(b"HTTP/1.1 %d " % status) or (len(data) > 10**6 and not said)
    assert b"Traceback" not in said and b"passwd" not in said
    assert here.failed == failed
    assert ask(address, body=GOOD)[0] == 200


@pytest.mark.parametrize("path, takes", [(b"/predict", b"POST"), (b"/health", b"GET")])
@pytest.mark.parametrize("method", [b"PUT", b"HEAD", b"OPTIONS", b"STEAL"])
def test_a_wrong_method_is_told_the_right_one(one, path, takes, method):
    _, address = one
    said = say(address, method + b" " + path + b" HTTP/1.1\r\nHost: a\r\n" + END)
    assert said.startswith(b"HTTP/1.1 405 ") and b"\r\nAllow: " + takes + b"\r\n" in said
    sentence = b'{"error": "This address takes %s alone."}' % takes
    assert said.endswith(b"\r\n\r\n" if method == b"HEAD" else sentence)


@pytest.mark.parametrize("flood", [lines(20_000), b"X: " + b"a" * 200_000 + b"\r\n"])
def test_a_flood_of_headers_is_cut_off(one, flood):
    _, address = one
    assert say(address, b"GET /health HTTP/1.1\r\nHost: a\r\n" + flood + b"\r\n") == b""
    assert ask(address)[0] == 200


def test_pipelined_requests_are_answered_in_their_order(one):
    _, address = one
    bodies = (GOOD, b"{}", nested(2000), GOOD)
    first, *rest = [with_length(body, last=b"\r\n") for body in bodies[:-1]]
    said = say(address, first + b"".join(rest) + with_length(bodies[-1]))
    assert [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]] == [200, 400, 400, 200]


@pytest.mark.parametrize("item", [b"1", b'""', b'"a"', b"[]"])
def test_a_long_list_is_refused_before_its_items_are_looked_at(monkeypatch, item):
    looks, is_type = [], Draft202012Validator.is_type

    def counted(self, value, kind):
        looks.append(kind)
        return is_type(self, value, kind)

    monkeypatch.setattr(Draft202012Validator, "is_type", counted)
    body = b'{"texts": [' + (item + b",") * 40_000 + item + b"]}"
    assert service(body=10**6).answer(body) == (
        413,
        {"error": "texts holds more than 32 texts: send fewer at a time."},
    )
    assert 0 < len(looks) < 30


@pytest.mark.parametrize("path, status", [(b"/nothing", 404), (b"/health", 405)])
def test_a_body_that_nobody_asked_for_is_neither_waited_for_nor_kept(one, path, status):
    _, address = one
    with connect(address) as sender:
        sender.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n")
        sender.sendall(b"Content-Length: %d\r\n\r\n" % 2**39)
        assert sender.recv(100).startswith(b"HTTP/1.1 %d" % status)
    assert ask(address)[0] == 200


def test_slow_bodies_take_no_place_and_are_cut_off(monkeypatch):
    monkeypatch.setattr(http, "PATIENCE", 0.5)
    with running(service(waiting=2)) as address, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(address)) for _ in range(6)]
        for sender in slow:
            sender.sendall(POST + b"Content-Length: 50\r\n\r\n{")
        time.sleep(0.1)
        assert ask(address, body=GOOD)[0] == 200
        for sender in slow:
            assert sender.recv(100) == b""


def test_who_has_gone_keeps_the_place_until_the_model_is_done():
    with running(service(0.5, waiting=2)) as address:
        for _ in range(2):
            with connect(address) as sender:
                sender.sendall(with_length(b'{"texts": ["a", "b"]}'))
                time.sleep(0.05)
        assert ask(address, body=GOOD)[0] == 503
        time.sleep(1.2)
        assert ask(address, body=GOOD)[0] == 200


def test_what_was_broken_off_leaves_no_task_behind(caplog):
    with caplog.at_level(logging.ERROR), running(service()) as address:
        for _ in range(5):
            with connect(address) as sender:
                sender.sendall(POST + b"Content-Length: 50\r\n\r\n{")
        time.sleep(0.2)
        gc.collect()
        assert ask(address, body=GOOD)[0] == 200
        gc.collect()
    assert caplog.records == []


def test_counts_of_many_clients_are_whole():
    with running(service()) as address:

        def nonsense():
            for _ in range(10):
                say(address, with_length(b"{}"))
                say(address, with_length(b"{}", POST.replace(b"/json", b"/xml")))

        threads = [threading.Thread(target=nonsense) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ask(address)[1]["refused"] == 80
        assert json.loads(say(address, with_length(GOOD)).split(b"\r\n\r\n")[1])["answers"]
