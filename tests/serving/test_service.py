"""Requests good and bad, load, roll-back, and nothing left running."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import threading
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from mtl_course.serving import (
    DriftAlarm,
    Limits,
    NGrams,
    Release,
    ReleaseError,
    Service,
    ask,
    load_test,
    running,
)
from mtl_course.serving.client import _post

READER = NGrams(["soft", "very", "very soft"], length=4)
LIMITS = Limits(texts=3, characters=40, body=400, waiting=2)


def release(version="1", model=None, golden=1.0):
    def count(ids):
        return {"words": (ids > 0).sum(1).float()}

    outputs = {"texts": ["soft"], "outputs": {"words": [golden]}, "tolerance": 0.01}
    return Release({"version": version, "tasks": {"words": None}}, READER, model or count, outputs)


def slow(seconds):
    def model(ids):
        if len(ids) > 1:  # not the golden text
            time.sleep(seconds)
        return {"words": (ids > 0).sum(1).float()}

    return model


def left_over():
    """Threads, and open sockets of this process."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    kinds = ("socket:", "anon_inode:[eventpoll]", "pipe:")
    return set(threading.enumerate()), sorted(k for k in links if k.startswith(kinds))


BAD = {
    "malformed": (b'{"texts": ["soft"', 400, "The body is not JSON: see line 1, column 18."),
    "nothing": (b"", 400, "The body is not JSON: see line 1, column 1."),
    "not UTF-8": (b'{"texts": ["\xff"]}', 400, "The body is not UTF-8."),
    "deep": (b"[" * 390, 400, None),
    "a list": (b'["soft"]', 400, 'The body is not an object such as {"texts": ["..."]}.'),
    "null": (b"null", 400, 'The body is not an object such as {"texts": ["..."]}.'),
    "no field": (b"{}", 400, "The field texts is missing."),
    "unknown field": (b'{"texts": ["soft"], "user": 1}', 400, "There is a field other than texts."),
    "twice": (b'{"texts": ["soft"], "texts": ["stiff"]}', 400, "A field comes twice."),
    "a string": (b'{"texts": "soft"}', 400, "texts is a list of strings."),
    "empty batch": (b'{"texts": []}', 400, "texts is empty: send at least one text."),
    "large batch": (
        b'{"texts": ["a", "b", "c", "d"]}',
        413,
        "texts holds more than 3 texts: send fewer at a time.",
    ),
    "a number": (b'{"texts": ["soft", 7]}', 400, "texts[1] is not a string."),
    "NaN": (b'{"texts": [NaN]}', 400, "texts[0] is not a string."),
    "empty text": (b'{"texts": ["soft", ""]}', 400, "texts[1] is empty."),
    "long text": (
        json.dumps({"texts": ["secret " * 6]}).encode(),
        413,
        "texts[0] is longer than 40 characters.",
    ),
    "large body": (b" " * 401, 413, "The body is larger than 400 bytes."),
    "a long number": (b'{"texts": ' + b"9" * 380 + b"}", 400, None),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_a_4xx_with_one_plain_sentence(name):
    body, status, sentence = BAD[name]
    service = Service(release(), LIMITS)
    got, answer = service.answer(body)
    assert got == status and set(answer) == {"error"}
    said = answer["error"]
    assert sentence in (None, said) and said.endswith(".") and "\n" not in said
    for never in ("Traceback", "secret", "Error(", "jsonschema"):
        assert never not in said
    assert (service.answered, service.refused, service.failed) == (0, 1, 0)


def test_good_and_bad_requests_over_http_and_nothing_stays():
    before = left_over()
    service = Service(release(), LIMITS)
    with running(service) as address:
        assert address.startswith("http://127.0.0.1:")
        assert ask(address, {"texts": ["very soft", "Stiff"]}) == (
            200,
            {"version": "1", "answers": [{"words": 3.0}, {"words": 0.0}]},
        )
        for body, status, sentence in BAD.values():
            got, answer = ask(address, body=body)
            assert got == status and sentence in (None, answer["error"])
        assert ask(address, body=b"{}", kind="text/plain")[0] == 415
        parts = urlsplit(address)
        for method, path, status in (
            ("GET", "/predict", 405),
            ("POST", "/health", 405),
            ("GET", "/", 404),
            ("POST", "/../etc", 404),
        ):
            connection = HTTPConnection(parts.hostname, parts.port, timeout=5)
            connection.request(method, path, b"{}" if method == "POST" else None)
            response = connection.getresponse()
            answer = json.loads(response.read())
            connection.close()
            assert response.status == status and answer["error"].endswith(".")
        status, health = ask(address)
        assert status == 200 and health["version"] == "1" and health["answered"] == 2
        assert health["refused"] >= len(BAD) and health["failed"] == 0
    with pytest.raises(OSError):
        ask(address, {"texts": ["soft"]})
    assert left_over() == before


def test_a_body_without_a_length_is_cut_off_at_the_limit():
    with running(Service(release(), LIMITS)) as address:
        parts = urlsplit(address)
        connection = HTTPConnection(parts.hostname, parts.port, timeout=5)
        chunks = (b" " * 300 for _ in range(3))
        headers = {"Content-Type": "application/json"}
        with contextlib.suppress(ConnectionError):  # if the service hangs up before all is sent
            connection.request("POST", "/predict", chunks, headers, encode_chunked=True)
        response = connection.getresponse()
        assert response.status == 413 and b"larger than 400 bytes" in response.read()
        connection.close()
        assert ask(address, {"texts": ["soft"]})[0] == 200


def test_the_answer_is_read_though_the_service_hung_up_before_the_body_was_sent():
    class HangsUp(HTTPConnection):
        def send(self, data):
            if data.startswith(b" "):
                raise BrokenPipeError
            super().send(data)

    with running(Service(release(), LIMITS)) as address:
        parts = urlsplit(address)
        connection = HangsUp(parts.hostname, parts.port, timeout=5)
        status, answer = _post(connection, b" " * 500, "application/json")
        connection.close()
    assert status == 413 and "larger than 400 bytes" in answer["error"]


def test_a_model_that_fails_gives_a_500_without_a_traceback():
    def broken(ids):
        if len(ids) > 1:
            raise RuntimeError("secret place of the weights")
        return {"words": (ids > 0).sum(1).float()}

    service = Service(release(model=broken), LIMITS)
    with running(service) as address:
        status, answer = ask(address, {"texts": ["soft", "soft"]})
        assert status == 500 and set(answer) == {"error"} and "secret" not in answer["error"]
        assert ask(address, {"texts": ["soft"]})[0] == 200
    assert service.failed == 1


def test_an_output_that_is_not_finite_is_no_answer():
    def broken(ids):
        words = (ids > 0).sum(1).float()
        return {"words": words if len(ids) == 1 else words * torch.nan}

    service = Service(release(model=broken), LIMITS)
    assert service.answer(b'{"texts": ["a", "b"]}')[0] == 500


def test_load_is_answered_and_what_is_too_much_is_told():
    many = [{"texts": ["soft"]}] * 40
    with running(Service(release())) as address:
        results = load_test(address, many, clients=4)
    assert [status for status, _ in results] == [200] * 40
    assert all(0 < seconds < 10 for _, seconds in results)
    with running(Service(release(model=slow(0.1)), LIMITS)) as address:
        results = load_test(address, [{"texts": ["soft", "a"]}] * 8, clients=4)
    statuses = {status for status, _ in results}
    assert statuses == {200, 503}


def test_what_is_under_way_is_answered_before_the_end():
    before, got = left_over(), []
    with running(Service(release(model=slow(0.3)))) as address:
        thread = threading.Thread(target=lambda: got.append(ask(address, {"texts": ["soft", "a"]})))
        thread.start()
        time.sleep(0.1)
    thread.join()
    assert got[0][0] == 200
    assert left_over() == before


def test_an_error_inside_the_block_stops_the_service_too():
    before = left_over()
    with pytest.raises(ZeroDivisionError), running(Service(release())) as address:
        ask(address)
        raise ZeroDivisionError
    assert left_over() == before


def test_a_client_that_breaks_off_harms_nobody(capfd):
    with running(Service(release(), LIMITS)) as address:
        parts = urlsplit(address)
        for said in (b"POST /predict HTTP/1.1\r\nContent-Length: 50\r\n\r\n{", b"nonsense\r\n\r\n"):
            with socket.create_connection((parts.hostname, parts.port), timeout=5) as one:
                one.sendall(said)
        assert ask(address, {"texts": ["soft"]})[0] == 200
    assert capfd.readouterr() == ("", "")


def test_it_starts_where_a_loop_runs_already_and_says_if_a_port_is_taken():
    async def notebook():
        with running(Service(release())) as address:
            return await asyncio.to_thread(ask, address)

    assert asyncio.run(notebook())[0] == 200
    before = left_over()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError), running(Service(release()), taken.getsockname()[1]):
            pass
    assert left_over() == before


def test_a_bad_release_is_not_used_and_a_good_one_is_taken_back():
    service = Service(release("1"))
    with pytest.raises(ReleaseError, match="no release"):
        service.roll_back()
    with pytest.raises(ReleaseError, match="Release 2 is not used: words of golden text 0"):
        service.use(release("2", golden=5.0))
    assert service.release.version == "1"
    service.use(release("3"))
    assert service.answer(b'{"texts": ["soft"]}')[1]["version"] == "3"
    assert service.roll_back() == "1"
    assert service.answer(b'{"texts": ["soft"]}')[1]["version"] == "1"
    with pytest.raises(ReleaseError):
        Service(release(golden=0.0))


def test_the_alarm_sees_the_last_answers():
    def signals(outputs, known):
        return {"words": np.asarray(outputs["words"]), "known": np.asarray(known)}

    rng = np.random.default_rng(0)
    calm = {"words": rng.integers(0, 3, 600), "known": rng.random(600)}
    part = {name: column[:300] for name, column in calm.items()}
    rest = {name: column[300:] for name, column in calm.items()}
    alarm = DriftAlarm(part, rest, window=20)
    service = Service(release(), LIMITS, alarm, signals)
    assert service.health()["drift"] is None
    for _ in range(20):
        service.answer(b'{"texts": ["soft", "soft"]}')
    told = service.health()["drift"]
    assert told["alarm"] is True and told["score"] > told["line"]
    with pytest.raises(ValueError, match="signals"):
        Service(release(), alarm=alarm)


def test_missing_packages_are_named_with_the_way_to_install_them(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tornado", None)
    with pytest.raises(ImportError, match=r"mtl-course\[serve\]"), running(Service(release())):
        pass
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ImportError, match=r"mtl-course\[serve\]"):
        Service(release())


def test_a_limit_or_a_load_below_one_is_refused():
    with pytest.raises(ValueError, match="body is at least 1"):
        Limits(body=0)
    with pytest.raises(ValueError, match="at least one client"):
        load_test("http://127.0.0.1:9", [], clients=0)


def test_the_servers_log_is_as_it_was_afterwards():
    log = logging.getLogger("tornado.general")
    before = log.level
    with running(Service(release())):
        assert log.level == logging.ERROR
    assert log.level == before
