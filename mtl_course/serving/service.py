"""What stands between a request and the model: checks, answers, and a sentence for each refusal."""

import json
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .drift import DriftAlarm
from .release import Release, ReleaseError, answers_of, regressions


@dataclass(frozen=True)
class Limits:
    """What a request may hold, and how many may wait.

    Args:
        texts: of one request.
        characters: of one text.
        body: bytes of one request.
        waiting: requests that are answered or wait at one time.

    Raises:
        ValueError: for a limit below 1.

    Example:
        >>> Limits(texts=8).characters
        1000
        >>> Limits(texts=0)
        Traceback (most recent call last):
        ValueError: texts is at least 1, not 0.
    """

    texts: int = 32
    characters: int = 1000
    body: int = 200_000
    waiting: int = 16

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is at least 1, not {value}.")


class Refusal(Exception):  # noqa: N818 (it names what is done)
    """A request that is not answered: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def schema(limits: Limits) -> dict:
    """The JSON schema of a request."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "texts": {
                "type": "array",
                "minItems": 1,
                "maxItems": limits.texts,
                "items": {"type": "string", "minLength": 1, "maxLength": limits.characters},
            }
        },
        "required": ["texts"],
        "additionalProperties": False,
    }


# What a rule of the schema says to a client: never the text itself, which may be private.
SENTENCES = {
    ("texts", "type"): "texts is a list of strings.",
    ("texts", "minItems"): "texts is empty: send at least one text.",
    ("texts", "maxItems"): "texts holds more than {limits.texts} texts: send fewer at a time.",
    ("text", "type"): "{where} is not a string.",
    ("text", "minLength"): "{where} is empty.",
    ("text", "maxLength"): "{where} is longer than {limits.characters} characters.",
    ("body", "type"): 'The body is not an object such as {{"texts": ["..."]}}.',
    ("body", "required"): "The field texts is missing.",
    ("body", "additionalProperties"): "There is a field other than texts.",
}


def _no_twins(pairs: list) -> dict:
    if len({key for key, _ in pairs}) < len(pairs):
        raise Refusal(400, "A field comes twice.")
    return dict(pairs)


class Service:
    """Answers requests with the release in use; needs no network. Safe to call from threads.

    Args:
        release: to begin with.
        limits: of a request.
        alarm: watches the answers; None for no alarm.
        signals: from outputs and the share of known words to the alarm's signals; None if there is
            no alarm.

    Raises:
        ReleaseError: for a release whose golden answers do not come out again.
        ValueError: for an alarm without signals, or signals without an alarm.
        ImportError: where jsonschema is missing; it says how to install it.

    Example:
        >>> golden = {"texts": ["soft"], "outputs": {"words": [1.0]}, "tolerance": 0.1}
        >>> from mtl_course.serving import NGrams
        >>> release = Release({"version": "1", "tasks": {"words": None}}, NGrams(["soft"], 2),
        ...                   lambda ids: {"words": (ids > 0).sum(1)}, golden)
        >>> service = Service(release)
        >>> service.answer(b'{"texts": ["so soft"]}')
        (200, {'version': '1', 'answers': [{'words': 1.0}]})
        >>> service.answer(b'{"texts": []}')
        (400, {'error': 'texts is empty: send at least one text.'})
    """

    def __init__(
        self,
        release: Release,
        limits: Limits | None = None,
        alarm: DriftAlarm | None = None,
        signals: Callable[[Mapping, np.ndarray], Mapping] | None = None,
    ):
        try:
            from jsonschema import Draft202012Validator
        except ImportError:
            raise ImportError(
                "The service checks requests with jsonschema, which is not installed: "
                'pip install "mtl-course[serve]".'
            ) from None
        if (alarm is None) != (signals is None):
            raise ValueError("An alarm needs its signals, and the signals an alarm.")
        self.limits, self.alarm, self.signals = limits or Limits(), alarm, signals
        # first how many texts there are, then each: a long list of nonsense is cheap to refuse
        whole, outside = schema(self.limits), schema(self.limits)
        del outside["properties"]["texts"]["items"]
        self._validators = [Draft202012Validator(rules) for rules in (outside, whole)]
        self._lock = threading.Lock()
        self._seen: deque = deque(maxlen=alarm.window if alarm else 1)
        self._releases: list[Release] = []
        self.answered = self.refused = self.failed = 0
        self.use(release)

    @property
    def release(self) -> Release:
        """The one in use."""
        return self._releases[-1]

    def use(self, release: Release) -> None:
        """Answer with this release from the next request on; the last one is kept.

        Raises:
            ReleaseError: if its golden answers do not come out again; the old one stays in use.
        """
        wrong = regressions(release)
        if wrong:
            raise ReleaseError(f"Release {release.version} is not used: {wrong[0]}")
        with self._lock:
            self._releases = [*self._releases[-1:], release]

    def roll_back(self) -> str:
        """Answer with the release before this one again, and give its version.

        Raises:
            ReleaseError: if there is none.
        """
        with self._lock:
            if len(self._releases) < 2:
                raise ReleaseError("There is no release to go back to.")
            self._releases = self._releases[:1]
            return self.release.version

    def checked(self, body: bytes) -> list[str]:
        """The texts of a request, or a `Refusal`."""
        if len(body) > self.limits.body:
            raise Refusal(413, f"The body is larger than {self.limits.body} bytes.")
        try:
            request = json.loads(body.decode("utf-8"), object_pairs_hook=_no_twins)
        except UnicodeDecodeError:
            raise Refusal(400, "The body is not UTF-8.") from None
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise Refusal(400, f"The body is not JSON: see {place}.") from None
        except (RecursionError, ValueError):
            raise Refusal(400, "The body is not JSON that can be read.") from None
        for validator in self._validators:
            # the outermost first, then by place
            errors = sorted(validator.iter_errors(request), key=lambda e: list(e.absolute_path))
            for error in errors:
                path = list(error.absolute_path)
                level = ("body", "texts", "text")[len(path)]
                where = f"texts[{path[1]}]" if len(path) == 2 else ""
                status = 413 if error.validator.startswith("max") else 400
                sentence = SENTENCES[level, error.validator]
                raise Refusal(status, sentence.format(where=where, limits=self.limits))
        return request["texts"]

    def count(self, outcome: str) -> None:
        """Count one request more as "refused" or "failed", from any thread."""
        with self._lock:
            setattr(self, outcome, getattr(self, outcome) + 1)

    def answer(self, body: bytes) -> tuple[int, dict]:
        """HTTP status and answer, plain JSON: "version" and "answers", or "error"."""
        try:
            texts = self.checked(body)
        except Refusal as refusal:
            self.count("refused")
            return refusal.status, {"error": refusal.sentence}
        release = self.release  # one release for the whole request, whatever happens meanwhile
        try:
            outputs = release.outputs(texts)
            answers = answers_of(outputs, release.card["tasks"])
            signals = self.signals(outputs, release.reader.known(texts)) if self.alarm else {}
        except Exception:
            # what went wrong is for the log of whoever runs it, not for the client
            self.count("failed")
            return 500, {"error": "The model could not answer: this is not your request's fault."}
        with self._lock:
            self.answered += len(texts)
            self._seen.extend(
                {name: column[row] for name, column in signals.items()}
                for row in range(len(texts))
                if signals
            )
        return 200, {"version": release.version, "answers": answers}

    def health(self) -> dict:
        """The version in use, counts, and what the alarm says, plain JSON."""
        with self._lock:
            seen = list(self._seen)
            counts = {
                "answered": self.answered,
                "refused": self.refused,
                "failed": self.failed,
            }
        report = {"status": "ok", "version": self.release.version, **counts, "drift": None}
        if self.alarm and len(seen) == self.alarm.window:
            window = {name: np.array([row[name] for row in seen]) for name in seen[0]}
            score = self.alarm.score(window)
            report["drift"] = {
                "score": round(score, 4) if math.isfinite(score) else None,
                "line": round(self.alarm.line, 4),
                "alarm": bool(score > self.alarm.line),
            }
        return report
