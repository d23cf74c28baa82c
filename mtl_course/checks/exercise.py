"""How an exercise is written: once, in `mtl_course/exercises/`; all else is derived from it.

`mtl_course/exercises/README.md` has a complete one, explained part by part.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
BLANK = 'raise NotImplementedError("your answer goes here")'

REGISTRY: dict[str, "Exercise"] = {}


def source_of(obj) -> str:
    """The source of a function or class from its `def` or `class` line on, dedented."""
    text = textwrap.dedent(inspect.getsource(obj))
    return text[re.search(r"^(def|class) ", text, re.M).start() :].rstrip()


@dataclass
class Exercise:
    """One exercise: the reference answer, fresh inputs, laws, and the mistakes that learners make.

    name: stable short name, equal to the name of the function or class that the learner writes.
    reference: the right answer; the part between BEGIN and END markers is what the learner writes.
    inputs: generators ``torch.Generator -> tuple of arguments`` (torch tensors, NumPy arrays,
        numbers, lists of these); one round of a check draws from each of them.
    points: what a right answer earns.
    hints: what `hint(name)` tells, one after the other, each a little closer.
    starter: for "spot the bug": the wrong function that the learner is given to mend; the reference
        need not repeat its docstring. Without a starter the stub raises.
    parts: what a tuple or list of results consists of, in the words of the docstring.
    call: how the answer (a function, a class) becomes outputs to compare: ``call(answer, *args)``.
    grad: whether gradients with respect to float tensors are compared too.
    device: whether the answer is also run on another device.
    limit: seconds that one call may take.
    rtol, atol: tolerance of the comparison.
    mistakes: (wrong answer, its hint), added by `mistake` and `variants`.
    laws: (text, property), added by `law`.
    """

    name: str
    reference: Callable
    inputs: Sequence[Callable]
    points: float = 1
    hints: tuple[str, ...] = ()
    starter: Callable | None = None
    parts: tuple[str, ...] = ()
    call: Callable = lambda answer, *args: answer(*args)
    grad: bool = True
    device: bool = True
    limit: float = 3.0
    rtol: float = 1e-4
    atol: float = 1e-5
    mistakes: list[tuple[Callable, str]] = field(default_factory=list)
    laws: list[tuple[str, Callable]] = field(default_factory=list)

    def __call__(self, *args, **kwargs):
        return self.reference(*args, **kwargs)

    @property
    def chapter(self) -> str:
        """Number of the chapter: ``"01"`` for ``mtl_course.exercises.ch01``."""
        return self.reference.__module__.rsplit(".ch", 1)[-1]

    @property
    def solution(self) -> str:
        """Source of the reference, as the learner would have written it.

        Where it has no docstring of its own it has the starter's.
        """
        lines = source_of(self.reference).split("\n")
        text = "\n".join(line for line in lines if line.strip() not in (BEGIN, END))
        if self.starter is None or self.reference.__doc__ is not None:
            return text
        docstring = re.search(r'^[ \t]+""".*?"""\n', source_of(self.starter), re.M | re.S)[0]
        return re.sub(r":\n", lambda m: m[0] + docstring, text, count=1)

    @property
    def stub(self) -> str:
        """Source that the learner starts from.

        The starter, or the reference with a `raise` in place of the answer.
        """
        if self.starter is not None:
            name = rf"(def|class) {self.starter.__name__}\b"
            return re.sub(name, rf"\1 {self.name}", source_of(self.starter), count=1)
        return re.sub(
            rf"^([ \t]*){BEGIN}\n.*?{END}",
            lambda m: m[1] + BLANK,
            source_of(self.reference),
            flags=re.M | re.S,
        )

    def mistake(self, hint: str):
        """Decorator: a wrong answer that learners give.

        hint: what an answer that behaves like it hears, and no other.
        """

        def add(wrong):
            self.mistakes.append((wrong, hint))
            return wrong

        return add

    def variants(self, changed: Callable, mistakes: Mapping[str, Mapping]):
        """A mistake for each hint: `changed`, called with the keyword arguments beside that hint.

        changed: the answer with one thing changed; `mistakes` is hint -> keyword arguments.
        """
        for hint, change in mistakes.items():
            self.mistake(hint)(lambda *args, change=change: changed(*args, **change))

    def law(self, text: str):
        """Decorator: a property ``law(answer, *args)`` of every right answer.

        It holds where it does not return False (or a false tensor or number).
        """

        def add(holds):
            self.laws.append((text, holds))
            return holds

        return add


def exercise(inputs, **options):
    """Decorator that turns a reference into the exercise of the same name.

    Args:
        inputs: one generator of inputs, or a list of them.
        **options: the other fields of `Exercise`.

    Raises:
        ValueError: an exercise of another chapter has the name.
    """

    def register(reference) -> Exercise:
        name = reference.__name__
        earlier = REGISTRY.get(name)
        if earlier is not None and earlier.reference.__module__ != reference.__module__:
            raise ValueError(
                f"Two exercises are called {name!r}:"
                f" in {earlier.reference.__module__} and {reference.__module__}."
            )
        generators = [inputs] if callable(inputs) else list(inputs)
        REGISTRY[name] = Exercise(name, reference, generators, **options)
        return REGISTRY[name]

    return register
