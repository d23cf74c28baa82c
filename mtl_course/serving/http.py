"""The service on a port of this machine, with tornado, and its graceful end."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from .service import Service

PATIENCE = 5.0  # seconds that requests under way have when the service stops


def _application(service: Service, pool: ThreadPoolExecutor, busy: set):
    """Tornado's application: POST /predict and GET /health, and a sentence for all else."""
    from tornado import httputil, web

    asked: set = set()  # those whose body is here: the model has them, or they wait for it

    @web.stream_request_body
    class Handler(web.RequestHandler):
        """Answers with JSON; a body that nobody asked for is not kept."""

        takes = "GET"

        def set_default_headers(self):
            self.clear_header("Server")
            self.set_header("Content-Type", "application/json; charset=utf-8")

        def say(self, status: int, answer: dict) -> None:
            self.set_status(status)
            self.finish(json.dumps(answer))

        def write_error(self, status, **_):
            # also for what no one foresaw: a sentence, never a traceback
            said = {
                404: "There is no such address: ask POST /predict or GET /health.",
                405: f"This address takes {self.takes} alone.",
            }
            if status == 405:
                self.set_header("Allow", self.takes)
            known = httputil.responses.get(status, "Error")
            self.say(status, {"error": said.get(status, f"{known}.")})

        def log_exception(self, kind, value, trace):
            # a wrong method is tornado's exception, and the client's fault
            if not isinstance(value, web.HTTPError):
                service.count("failed")

        def data_received(self, chunk):
            pass

    class Nothing(Handler):
        def prepare(self):
            self.send_error(404)

    class Health(Handler):
        def prepare(self):
            if self.request.method != self.takes:
                self.send_error(405)  # whatever body may come

        def get(self):
            self.say(200, service.health())

    class Predict(Handler):
        takes = "POST"

        def prepare(self):
            self.body, self.size = [], 0
            if self.request.method != self.takes:
                return self.send_error(405)
            kind = self.request.headers.get("Content-Type", "").split(";")[0].strip().lower()
            if kind != "application/json":
                return self.refuse(415, "Send JSON, with Content-Type: application/json.")
            length = self.request.headers.get("Content-Length", "0")
            # a number of thousands of digits is one that Python does not read
            if length.isdecimal() and (len(length) > 15 or int(length) > service.limits.body):
                return self.too_large()
            if len(asked) >= service.limits.waiting:
                return self.too_many()
            busy.add(self)
            return None

        def refuse(self, status, sentence):
            service.count("refused")
            self.set_header("Connection", "close")  # the rest of the body is of no use
            self.say(status, {"error": sentence})

        def too_large(self):
            self.refuse(413, f"The body is larger than {service.limits.body} bytes.")

        def too_many(self):
            self.set_header("Retry-After", "1")
            self.refuse(503, "Too many requests wait: try again in a second.")

        def data_received(self, chunk):
            self.size += len(chunk)
            if self._finished:
                return
            if self.size > service.limits.body:  # without a length said beforehand
                self.too_large()
            else:
                self.body.append(chunk)

        async def post(self):
            # who sends slowly takes no place; who has gone keeps it until the model is done
            if len(asked) >= service.limits.waiting:
                return self.too_many()
            loop = asyncio.get_running_loop()
            body = b"".join(self.body)
            asked.add(self)
            try:
                said = await loop.run_in_executor(pool, service.answer, body)
            finally:
                asked.discard(self)
            return self.say(*said)

        def on_finish(self):
            busy.discard(self)

        def on_connection_close(self):
            busy.discard(self)
            super().on_connection_close()  # ends what waits for the rest of the body

    return web.Application(
        [("/predict", Predict), ("/health", Health)],
        default_handler_class=Nothing,
        log_function=lambda _: None,
    )


@contextmanager
def running(service: Service, port: int = 0) -> Iterator[str]:
    """The service on 127.0.0.1 while a ``with`` block lasts, in a thread of its own.

    At the end it takes no new connection, answers what is under way, and then closes everything: no
    thread and no socket stays. A model answers one request at a time, in a second thread.

    Args:
        service: what answers.
        port: to listen at; 0 for a free one.

    Returns:
        A context manager whose value is the address, such as "http://127.0.0.1:40123".

    Raises:
        OSError: if the port is taken.
        ImportError: where tornado is missing; it says how to install it.

    Example:
        >>> from mtl_course.serving import NGrams, Release, ask
        >>> golden = {"texts": ["soft"], "outputs": {"words": [1.0]}, "tolerance": 0.1}
        >>> release = Release({"version": "1", "tasks": {"words": None}}, NGrams(["soft"], 2),
        ...                   lambda ids: {"words": (ids > 0).sum(1)}, golden)
        >>> with running(Service(release)) as address:
        ...     ask(address, {"texts": ["soft"]})
        (200, {'version': '1', 'answers': [{'words': 1.0}]})
    """
    try:
        from tornado import httpserver, netutil
    except ImportError:
        raise ImportError(
            "The service listens with tornado, which is not installed: "
            'pip install "mtl-course[serve]".'
        ) from None
    sockets = netutil.bind_sockets(port, "127.0.0.1")
    address = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    ready, box, busy = threading.Event(), {}, set()

    async def serve():
        box["loop"], box["stop"] = asyncio.get_running_loop(), asyncio.Event()
        with ThreadPoolExecutor(1, "model") as pool:
            server = httpserver.HTTPServer(
                _application(service, pool, busy),
                max_body_size=2**40,  # ours refuses sooner, with a sentence
                body_timeout=PATIENCE,
                idle_connection_timeout=60,
            )
            server.add_sockets(sockets)
            ready.set()
            await box["stop"].wait()
            server.stop()
            end = box["loop"].time() + PATIENCE
            while busy and box["loop"].time() < end:
                await asyncio.sleep(0.005)
            await server.close_all_connections()

    def work():
        try:
            asyncio.run(serve())
        except BaseException as error:
            box["error"] = error
        finally:
            ready.set()

    # a body that is broken off or not HTTP is a client's fault: no lines in a notebook
    log = logging.getLogger("tornado.general")
    level = log.level
    log.setLevel(logging.ERROR)
    thread = threading.Thread(target=work, name="service", daemon=True)
    thread.start()
    ready.wait()
    try:
        if "error" in box:
            raise box["error"]
        yield address
    finally:
        if thread.is_alive():
            box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join()
        log.setLevel(level)
        for socket in sockets:
            socket.close()
