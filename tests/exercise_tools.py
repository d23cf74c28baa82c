"""What the tests of the exercises are made of.

Answers from source, draws that all answers to an exercise share, mutants of an answer, odd answers,
wrong answers that nobody listed.
"""

import ast
import copy
import dataclasses
import difflib
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from mtl_course import checks
from mtl_course.checks import diagnosis, rows, values
from mtl_course.checks.exercise import BEGIN, END, Exercise, source_of
from mtl_course.checks.rows import Case, draw_cases, examine
from mtl_course.checks.sandbox import Outcome


def answer_from(exercise: Exercise, source: str):
    """The function or class that `source` defines; it sees the names of the exercise's module."""
    scope = dict(vars(sys.modules[exercise.reference.__module__]))
    exec(compile(textwrap.dedent(source), "<ipython-input-answer>", "exec"), scope)
    return scope[exercise.name]


# ---------------------------------------------------------------- shared draws


@dataclasses.dataclass
class _SharedCase(Case):
    """A case that asks each known mistake once, however many answers are compared with it."""

    is_mistake: Callable = lambda answer: False
    outcomes: dict[int, Outcome] = dataclasses.field(default_factory=dict)

    def call(self, answer, limit, *prepare):
        if prepare or not self.is_mistake(answer):
            return super().call(answer, limit, *prepare)
        if id(answer) not in self.outcomes:
            self.outcomes[id(answer)] = super().call(answer, limit)
        return self.outcomes[id(answer)]


class SharedDraws:
    """The drawn inputs of one exercise, for all tests of it.

    What the reference and the known mistakes do on a draw is worked out once, not once for every
    answer. All else of a check is as it is for a learner: `check` runs, on these draws.
    """

    def __init__(self, exercise: Exercise):
        self.exercise = exercise
        self._never_copied: set = set()
        self._cases: dict[tuple, Case] = {}
        self._examinations: dict[tuple, rows.Examination] = {}

    def is_mistake(self, answer) -> bool:
        return any(answer is wrong for wrong, _ in self.exercise.mistakes)

    def draw_cases(self, exercise: Exercise, seed: int, rounds: int) -> list[Case]:
        assert exercise is self.exercise
        return [
            self._case(draw_inputs, seed + 1000 * r + i)
            for r in range(rounds)
            for i, draw_inputs in enumerate(exercise.inputs)
        ]

    def _case(self, draw_inputs, seed: int) -> Case:
        key = draw_inputs, seed
        if key not in self._cases:
            shared = self._never_copied, self.is_mistake
            self._cases[key] = _SharedCase(self.exercise, draw_inputs, seed, *shared)
        return self._cases[key]

    def examine(self, exercise: Exercise, answer, cases: list[Case]) -> rows.Examination:
        if not self.is_mistake(answer):
            return examine(exercise, answer, cases)
        key = id(answer), tuple(map(id, cases))
        if key not in self._examinations:
            self._examinations[key] = examine(exercise, answer, cases)
        return self._examinations[key]

    def use(self, monkeypatch) -> None:
        """Let the checks of this exercise take these draws."""
        for module in (checks, diagnosis):
            monkeypatch.setattr(module, "draw_cases", self.draw_cases)
            monkeypatch.setattr(module, "examine", self.examine)


# --------------------------------------------------------------------- mutants

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
NEGATED = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
SHIFTED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
CALLS = {
    "sum": ["mean", "max", "min"],
    "mean": ["sum", "max", "min"],
    "max": ["min", "mean"],
    "min": ["max", "mean"],
    "amax": ["amin"],
    "amin": ["amax"],
    "argmax": ["argmin"],
    "argmin": ["argmax"],
    "maximum": ["minimum"],
    "minimum": ["maximum"],
    "any": ["all"],
    "all": ["any"],
    "exp": ["log1p", "expm1"],
    "log": ["log1p"],
    "sqrt": ["square"],
    "square": ["sqrt", "abs"],
    "abs": ["square"],
    "softmax": ["sigmoid", "log_softmax"],
    "log_softmax": ["softmax"],
    "relu": ["abs"],
    "zeros_like": ["ones_like"],
    "ones_like": ["zeros_like"],
    "zeros": ["ones"],
    "ones": ["zeros"],
    "cumsum": ["cumprod"],
    "std": ["var"],
    "var": ["std"],
    "parameters": ["buffers"],
    "train": ["eval"],
    "eval": ["train"],
}
WORDS = {"sum": "mean", "mean": "sum"}  # values of `reduction`


def _changes(node: ast.AST, arguments: list[str]) -> Iterator[ast.AST]:
    """Every node that may stand in the place of `node`: one small mistake each."""
    swap = copy.deepcopy
    if isinstance(node, ast.BinOp):
        if type(node.op) in OPERATORS:
            yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        yield node.left
        yield node.right
        yield ast.BinOp(node.left, node.op, node.left)
        if isinstance(node.op, ast.Sub | ast.Div | ast.MatMult | ast.Pow | ast.FloorDiv | ast.Mod):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
        yield ast.Assign([node.target], node.value)
    elif isinstance(node, ast.Compare):
        for table in (NEGATED, SHIFTED):
            if type(node.ops[0]) in table:
                yield ast.Compare(
                    node.left, [table[type(node.ops[0])](), *node.ops[1:]], node.comparators
                )
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield from node.values
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield ast.Constant(node.value + 1)
            yield ast.Constant(-node.value if node.value else -1)
        elif node.value in WORDS:
            yield ast.Constant(WORDS[node.value])
    elif isinstance(node, ast.Call):
        name = (
            node.func.attr
            if isinstance(node.func, ast.Attribute)
            else node.func.id
            if isinstance(node.func, ast.Name)
            else ""
        )
        for other in CALLS.get(name, []):
            new = swap(node)
            if isinstance(node.func, ast.Attribute):
                new.func.attr = other
            else:
                new.func.id = other
            yield new
        if isinstance(node.func, ast.Attribute):
            yield node.func.value  # the method is not called: x.detach() -> x
        elif len(node.args) == 1 and not node.keywords:
            yield node.args[0]
        if len(node.args) >= 2 and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
            yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
        for k in range(len(node.keywords)):
            yield ast.Call(node.func, node.args, node.keywords[:k] + node.keywords[k + 1 :])
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        for forced in (True, False) if not isinstance(node, ast.While) else (False,):
            new = swap(node)
            new.test = ast.Constant(forced)
            yield new
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield ast.comprehension(node.target, node.iter, [], node.is_async)
    elif isinstance(node, ast.Return):
        yield from (ast.Return(ast.Name(a, ast.Load())) for a in arguments)
    if isinstance(node, ast.stmt) and not isinstance(
        node, ast.Return | ast.FunctionDef | ast.ClassDef | ast.Pass
    ):
        yield ast.Pass()


def mutants(exercise: Exercise) -> dict[str, str]:
    """Description -> source, for every small mistake in what the learner writes.

    The description is the changed line, as in ``return a + b  =>  return a - b``.
    """
    source = source_of(exercise.reference)
    tree = ast.parse(source)
    body = tree.body[0]
    lines, inside = set(), BEGIN not in source
    for number, line in enumerate(source.split("\n"), 1):
        inside = True if line.strip() == BEGIN else False if line.strip() == END else inside
        lines |= {number} if inside else set()
    docs = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.ClassDef)
        and isinstance(n.body[0], ast.Expr)
        and isinstance(n.body[0].value, ast.Constant)
    }
    original, found = ast.unparse(tree), {}
    for parent in ast.walk(body):
        arguments = _arguments(body, parent)
        for field, value in ast.iter_fields(parent):
            if field in (
                "args",
                "returns",
                "annotation",
                "decorator_list",
                "bases",
            ) and not isinstance(parent, ast.Call):
                continue  # the signature is given
            for k, node in enumerate(value if isinstance(value, list) else [value]):
                line = getattr(
                    node, "lineno", getattr(getattr(node, "target", None), "lineno", None)
                )
                if (
                    not isinstance(node, ast.AST)
                    or line not in lines
                    or id(node) in docs
                    or id(getattr(node, "value", None)) in docs
                ):
                    continue
                for new in _changes(node, arguments):
                    if isinstance(value, list):
                        value[k] = new
                    else:
                        setattr(parent, field, new)
                    mutated = ast.unparse(ast.fix_missing_locations(tree))
                    if isinstance(value, list):
                        value[k] = node
                    else:
                        setattr(parent, field, value)
                    if mutated != original:
                        found.setdefault(_difference(original, mutated), mutated)
    return found


def _arguments(body, node) -> list[str]:
    """Names of the arguments of the function that a return statement stands in."""
    owners = [
        f
        for f in ast.walk(body)
        if isinstance(f, ast.FunctionDef) and any(n is node for n in ast.walk(f))
    ]
    return [a.arg for a in owners[-1].args.args if a.arg != "self"] if owners else []


def _difference(before: str, after: str) -> str:
    changed = list(difflib.ndiff(before.split("\n"), after.split("\n")))
    old, new = (
        "; ".join(line[2:].strip() for line in changed if line.startswith(sign)) for sign in "-+"
    )
    return f"{old}  =>  {new}"


def survivors(exercise: Exercise, rounds: int = 2) -> tuple[list[str], int]:
    """(descriptions of the mutants that pass the check, number of mutants).

    Each mutant is judged up to its first fault: values, which are cheap, come before gradients,
    another device and laws. All are judged on the same draws.
    """
    quick = dataclasses.replace(exercise, limit=min(exercise.limit, 0.5))
    cases, made = draw_cases(quick, 0, rounds), mutants(exercise)
    alive = [
        difference
        for difference, source in made.items()
        if passes(quick, answer_from(exercise, source), cases)
    ]
    return alive, len(made)


def judge_mutants(exercise: Exercise, rounds: int = 2) -> dict[str, str]:
    """mutant -> where its card leads its author, as `guidance` says it."""
    quick = dataclasses.replace(exercise, limit=min(exercise.limit, 0.5))
    draws = SharedDraws(quick)
    cases = draws.draw_cases(quick, 0, rounds)
    return {
        difference: guidance(quick, answer_from(exercise, source), cases, draws)
        for difference, source in mutants(exercise).items()
    }


def passes(exercise: Exercise, answer, cases: list[Case]) -> bool:
    return examine(exercise, answer, cases, stop_at_a_fault=True).state == "solved"


# ----------------------------------------------------------------- odd answers


class OddError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class OddRepr:
    def __repr__(self):
        raise RuntimeError("no repr")

    def __eq__(self, other):
        raise RuntimeError("not comparable")


class OddTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError("nothing works")


RESULTS = {
    "none": None,
    "int": 3,
    "nan": float("nan"),
    "complex number": 1j,
    "text": "x",
    "bytes": b"x",
    "ellipsis": ...,
    "not implemented": NotImplemented,
    "empty list": [],
    "tuple of a tensor": (torch.ones(()),),
    "deep list": [[[[]]]],
    "dict": {"a": 1},
    "set": {1, 2},
    "size": torch.ones(2).shape,
    "dtype": torch.float32,
    "parameter": nn.Parameter(torch.ones(())),
    "sparse": torch.eye(3).to_sparse(),
    "sparse, empty": torch.zeros(2, 0).to_sparse(),
    "complex tensor": torch.tensor(1j),
    "meta": torch.ones((), device="meta"),
    "bool tensor": torch.tensor(True),
    "nan tensor": torch.tensor(float("nan")),
    "double": torch.tensor(1.0, dtype=torch.float64),
    "half": torch.tensor(1.0, dtype=torch.float16),
    "whole": torch.tensor(3),
    "empty tensor": torch.empty(0),
    "odd tensor": torch.ones(()).as_subclass(OddTensor),
    "numpy number": np.float32(3),
    "numpy array": np.ones(()),
    "objects": np.array([None, OddRepr()], dtype=object),
    "module": nn.Linear(1, 1),
    "class": int,
    "function": lambda: 0,
    "generator": (i for i in range(3)),
    "odd repr": OddRepr(),
    "nested odd repr": [OddRepr()],
}


def _generator(*args):
    yield 1


async def _coroutine(*args):
    return 1


def _odd_error(*args):
    raise OddError


def _not_implemented_elsewhere(*args):
    return _odd_helper()


def _odd_helper():
    raise NotImplementedError


def _exits(*args):
    sys.exit(1)


def _shrinks(*args):
    for tensor in values.tensors(args):
        tensor.resize_(0)
    return torch.ones(())


def _wants_gradient(*args):
    return torch.ones((), requires_grad=True)


def _changes_everything(*args):
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    np.random.seed(0)
    return torch.rand(())


def _script(*args):
    raise ValueError("<script>alert(1)</script>")


class _NotBuilt(nn.Module):
    def __init__(self, *args):
        pass

    def forward(self, x):
        return self.layer(x)


class _Meta(type):
    def __getattribute__(cls, name):
        if name in ("__code__", "__wrapped__", "__module__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


class _OddClass(metaclass=_Meta):
    pass


ODD = {f"returns {name}": lambda *args, value=value: value for name, value in RESULTS.items()} | {
    "no arguments": lambda: 1,
    "one argument": lambda a: a,
    "number, not a function": 3,
    "builtin": len,
    "type": int,
    "partial of itself": functools.partial(_generator),
    "generator function": _generator,
    "coroutine function": _coroutine,
    "error without text": _odd_error,
    "not implemented elsewhere": _not_implemented_elsewhere,
    "exits": _exits,
    "shrinks its inputs": _shrinks,
    "wants a gradient": _wants_gradient,
    "changes everything": _changes_everything,
    "script in an error": _script,
    "module class that is not built": _NotBuilt,
    "class that hides its parts": _OddClass,
    "module, not a function": nn.Linear(2, 2),
}


# ------------------------------------------------------------ unlisted mistakes


def unlisted(exercise: Exercise) -> list:
    """Three wrong answers that nobody lists.

    The numbers of the reference's answer scaled, shifted or replaced by odd amounts; what is no
    number (a module, a text) replaced by an odd text.
    """
    if inspect.isclass(exercise.reference):
        return []
    changes = (lambda x: x * 1.37, lambda x: x + 0.113, lambda x: x * 0 + 0.7321)
    return [
        lambda *args, change=change: _over_numbers(change, exercise.reference(*args))
        for change in changes
    ]


def _over_numbers(change, value):
    if isinstance(value, torch.Tensor):
        return change(value).to(value.dtype) if value.is_floating_point() else _other(value)
    if isinstance(value, np.ndarray | np.generic):
        return (
            np.asarray(change(value)).astype(value.dtype)[()]
            if value.dtype.kind == "f"
            else value + value.dtype.type(7)
        )
    if value is None or isinstance(value, bool | str):
        return "an answer that nobody would list"
    if isinstance(value, float):
        return change(value)
    if isinstance(value, int):
        return value + 1009
    if isinstance(value, dict):
        return {k: _over_numbers(change, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_over_numbers(change, v) for v in value]
    return "an answer that nobody would list"


def _other(tensor):
    return ~tensor if tensor.dtype == torch.bool else tensor + 7


# ------------------------------------------------------- what a wrong answer is told

# What the line of a card begins with where it says more than that values differ.
_GENERAL = ("for ", "expected ")


def guidance(exercise: Exercise, answer, cases: list[Case], draws: "SharedDraws") -> str:
    """Where a card leads the author of a wrong answer: the kind of its best line, or "nothing".

    ``part``, ``entries`` and ``pattern`` are lines of the row of values: the part of the result,
    the entries, what the differences have in common. ``type``, ``error``, ``argument`` and
    ``gradient`` are the rows of those names where they name something; ``law`` is a property that
    is broken, ``hint`` a known mistake. "solved" if there is nothing to tell.
    """
    seen = examine(exercise, answer, cases, stop_at_a_fault=True)
    if seen.state == "solved":
        return "solved"
    if (kind := _kind_of_row(seen)) in ("", "law"):
        seen = examine(exercise, answer, cases)
        kind = _kind_of_row(seen)
    if kind in ("", "law"):
        with pytest.MonkeyPatch.context() as patch:
            draws.use(patch)
            if diagnosis.diagnose(exercise, answer, seen, cases) is not None:
                return "hint"
    return kind or "nothing"


def _kind_of_row(seen: rows.Examination) -> str:
    for row in seen.rows:
        if row.ok is not False:
            continue
        if row.name == "right type and shape":
            return "type"
        if row.name == "runs on fresh random inputs" and seen.state == "error":
            return "error" if "line" in row.detail or "called with" in row.detail else ""
        if row.name in ("leaves its inputs unchanged", "changes its inputs as asked"):
            return "argument" if "`" in row.detail.split("\nfor ")[0] else ""
        if row.name == rows.GRADIENTS:
            return "gradient" if "No gradient" in row.detail or "`" in row.detail else ""
        if row.name == "right values":
            first = row.detail.split("\n")[0]
            if first.startswith(rows.NOT_AS_EXPECTED):
                return "part"
            if re.match(r"It differs|\d+ of \d+ entries differ|(Only entry|Entries) ", first):
                return "entries"
            if not first.startswith(_GENERAL):
                return "pattern"
    broken = [row for row in seen.rows if row.ok is False]
    names = {"right values", "runs on fresh random inputs"}
    return "law" if any(row.name not in names for row in broken) else ""
