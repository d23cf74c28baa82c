"""Asking a service on this machine, once or under load. No package is needed."""

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit


def _connection(address: str, patience: float) -> HTTPConnection:
    parts = urlsplit(address)
    return HTTPConnection(parts.hostname, parts.port, timeout=patience)


def _post(connection: HTTPConnection, body: bytes, kind: str) -> tuple[int, dict]:
    # a service that refuses a body closes before all of it is sent, and has answered
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", "/predict", body, {"Content-Type": kind})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def ask(
    address: str,
    request: object = None,
    *,
    body: bytes | None = None,
    kind: str = "application/json",
    patience: float = 10.0,
) -> tuple[int, dict]:
    """One request to a service: its HTTP status and its answer.

    Args:
        address: from `running`.
        request: for POST /predict, turned into JSON; None asks GET /health, unless there is a body.
        body: sent to POST /predict as it is, in place of a request.
        kind: its content type.
        patience: seconds to wait.

    Returns:
        Status and answer.

    Raises:
        OSError: if nobody answers.

    Example:
        >>> ask("http://127.0.0.1:9", patience=0.1)  # nobody is there
        Traceback (most recent call last):
        ConnectionRefusedError: ...
    """
    connection = _connection(address, patience)
    try:
        if request is None and body is None:
            connection.request("GET", "/health")
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        return _post(connection, json.dumps(request).encode() if body is None else body, kind)
    finally:
        connection.close()


def load_test(
    address: str, requests: Sequence[object], clients: int = 4, patience: float = 10.0
) -> list[tuple[int, float]]:
    """Requests by a few clients at once, each of which waits for its answer before the next.

    The load is bounded: there are never more than `clients` requests under way.

    Args:
        address: from `running`.
        requests: one after the other, each turned into JSON.
        clients: threads; all have ended when this returns.
        patience: seconds to wait for each.

    Returns:
        HTTP status and seconds of each request, in their order; status 0 for no answer.

    Raises:
        ValueError: for less than one client.

    Example:
        >>> load_test("http://127.0.0.1:9", [{"texts": ["soft"]}], clients=1)[0][0]
        0
    """
    if clients < 1:
        raise ValueError(f"A load needs at least one client, not {clients}.")
    results: list = [None] * len(requests)
    bodies = [json.dumps(request).encode() for request in requests]
    rows = iter(range(len(bodies)))
    lock = threading.Lock()

    def client():
        connection = _connection(address, patience)
        try:
            while True:
                with lock:
                    row = next(rows, None)
                if row is None:
                    return
                start = time.perf_counter()
                try:
                    status, _ = _post(connection, bodies[row], "application/json")
                except (OSError, HTTPException, ValueError):
                    status = 0
                    connection.close()  # the next request opens a new one
                results[row] = status, time.perf_counter() - start
        finally:
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
