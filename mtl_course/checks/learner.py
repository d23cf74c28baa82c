"""What the learner wrote: where it is, whether it was begun, which of its lines raised an error."""

import ast
import dis
import functools
import inspect
import itertools
import linecache
import sys
import traceback
from types import CodeType

from .exercise import Exercise, source_of
from .values import brief

PACKAGE = __name__.split(".")[0]


def find(name: str):
    """The object called `name` in the notebook, else where the check was called from; or None."""
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()) is not None:
        return shell.user_ns.get(name)
    frame = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).split(".")[0] == PACKAGE:
        frame = frame.f_back
    if frame is None:
        return None
    return frame.f_locals.get(name, frame.f_globals.get(name))


def is_reference(exercise: Exercise, answer) -> bool:
    """Whether the answer is the course's own (imported, or from `use`), as it is or wrapped."""
    while isinstance(answer, functools.partial):
        answer = answer.func
    if isinstance(answer, Exercise):
        return True
    reference, answer = _bare(exercise.reference), _bare(answer)
    same_code = _code(reference) is not None and _code(answer) is _code(reference)
    return answer is reference or same_code


def is_course_code(answer) -> bool:
    """Whether the object is the package's, such as a name that a notebook imported from it."""
    return str(_attribute(answer, "__module__")).split(".")[0] == PACKAGE


def untouched(exercise: Exercise, answer) -> bool:
    """Whether nothing was done yet: an empty body, or the code of the starter.

    Comments and the docstring do not count.
    """
    if exercise.starter is not None:
        if _parts(answer) and _parts(answer) == _parts(exercise.starter):
            return True
        # Byte code also depends on the imports around it, so where there is source, the source
        # decides as well.
        if (tree := _tree(answer)) is not None and tree == _tree(exercise.starter):
            return True
    code = _code(_bare(answer))
    if code is None:
        return False
    steps = (s for s in dis.get_instructions(code) if s.opname not in ("RESUME", "NOP", "CACHE"))
    start = list(itertools.islice(steps, 3))
    if len(start) > 2:
        return False
    return start[-1].opname.startswith("RETURN") and start[0].argval in (None, ...)


def _attribute(thing, name):
    """getattr for objects that may refuse to answer."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def _bare(answer):
    """The function inside decorators that used functools.wraps."""
    seen = set()
    while (inner := _attribute(answer, "__wrapped__")) is not None and id(answer) not in seen:
        seen.add(id(answer))
        answer = inner
    return answer


def _code(function) -> CodeType | None:
    code = _attribute(function, "__code__")
    return code if isinstance(code, CodeType) else None


def _functions(answer) -> dict:
    """Name -> function: the answer itself, or the methods of a class."""
    members = {"": answer}
    if isinstance(answer, type):
        # vars(answer), past a metaclass that refuses
        attributes = type.__dict__["__dict__"].__get__(answer)
        members = {
            name: _attribute(value, "__func__") or _attribute(value, "fget") or value
            for name, value in attributes.items()
        }
    functions = {name: _bare(value) for name, value in members.items()}
    return {name: f for name, f in functions.items() if _code(f) is not None}


def _parts(answer) -> dict:
    """What the functions of an answer do, without names of files, line numbers and docstrings."""
    return {
        name: (_essence(f.__code__, f.__doc__), brief(f.__defaults__), brief(f.__kwdefaults__))
        for name, f in _functions(answer).items()
    }


def _essence(code: CodeType, doc=None):
    constants = list(code.co_consts)
    if constants and doc is not None and constants[0] == doc:
        constants[0] = None
    inner = [
        _essence(c) if isinstance(c, CodeType) else (type(c).__name__, repr(c)) for c in constants
    ]
    return code.co_code, inner, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount


def _tree(answer) -> str | None:
    """The syntax of an answer, or None where there is no source.

    Comments, docstrings and the answer's own name are left out.
    """
    try:
        tree = ast.parse(source_of(_bare(answer)))
    except Exception:
        return None
    for node in ast.walk(tree):
        defines = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if defines and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    tree.body[0].name = "_"
    return ast.dump(tree)


def _codes(answer) -> set:
    """The code objects of an answer, inner functions included."""
    codes, waiting = set(), [f.__code__ for f in _functions(answer).values()]
    while waiting:
        code = waiting.pop()
        codes.add(code)
        waiting += [c for c in code.co_consts if isinstance(c, CodeType)]
    return codes


def raised_by(error: BaseException) -> tuple[CodeType | None, bool]:
    """The code object that an error comes from, and whether a `raise` is written there."""
    trace = error.__traceback__
    if trace is None:
        return None, False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code, at = trace.tb_frame.f_code, trace.tb_lasti
    inside = 0 <= at < len(code.co_code)
    return code, inside and dis.opname[code.co_code[at]] == "RAISE_VARARGS"


def is_blank(answer, error: BaseException) -> bool:
    """Whether a line of the answer itself raised the stub's NotImplementedError."""
    code, raised = raised_by(error)
    return isinstance(error, NotImplementedError) and raised and code in _codes(answer)


def own_lines(answer, error: BaseException) -> str:
    """The learner's own lines of the traceback, outermost first; none of ours or a library's."""
    files = {code.co_filename for code in _codes(answer)}
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in files
        or "ipykernel" in frame.filename
        or "ipython-input" in frame.filename
    ]
    if len(frames) > 5:
        frames = [*frames[:2], None, *frames[-3:]]
    lines = []
    for frame in frames:
        if frame is None:
            lines.append("...")
        else:
            text = (frame.line or linecache.getline(frame.filename, frame.lineno)).strip()
            lines.append(f"line {frame.lineno} in {frame.name}" + (f":  {text}" if text else ""))
    return "\n".join(lines)
