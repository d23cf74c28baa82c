"""What the learner wrote: where it is, whether it was begun, and which of its lines an error comes
from.
"""

import ast
import dis
import functools
import inspect
import linecache
import sys
import traceback
from types import CodeType

from .exercise import Exercise, source_of
from .values import brief

PACKAGE = __name__.split(".")[0]


def find(name: str):
    """The object called `name` in the notebook, or where the check was called from; None if there
    is none.
    """
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
    own, bare = _bare(exercise.reference), _bare(answer)
    return bare is own or (_code(own) is not None and _code(bare) is _code(own))


def is_course_code(answer) -> bool:
    """Whether the object was made by the course's package, such as a name that a notebook imported
    from it.
    """
    return str(_attribute(answer, "__module__")).split(".")[0] == PACKAGE


def untouched(exercise: Exercise, answer) -> bool:
    """Whether nothing was done yet: an empty body, or the code of the starter (comments and
    docstring aside).
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
    steps = [
        step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP", "CACHE")
    ]
    return (
        len(steps) <= 2 and steps[-1].opname.startswith("RETURN") and steps[0].argval in (None, ...)
    )


def _attribute(thing, name):
    """getattr for objects that may refuse to answer."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def _bare(answer):
    """The function inside decorators that used functools.wraps."""
    inner, seen = answer, set()
    while (wrapped := _attribute(inner, "__wrapped__")) is not None and id(inner) not in seen:
        seen.add(id(inner))
        inner = wrapped
    return inner


def _code(function) -> CodeType | None:
    code = _attribute(function, "__code__")
    return code if isinstance(code, CodeType) else None


def _functions(answer) -> dict:
    """Name -> function: the answer itself, or the methods of a class."""
    inner = {"": answer}
    if isinstance(answer, type):
        own = type.__dict__["__dict__"].__get__(
            answer
        )  # vars(answer), past a metaclass that refuses
        inner = {k: _attribute(v, "__func__") or _attribute(v, "fget") or v for k, v in own.items()}
    return {k: _bare(v) for k, v in inner.items() if _code(_bare(v)) is not None}


def _parts(answer) -> dict:
    """What the functions of an answer do, without names of files, line numbers and docstrings."""
    functions = _functions(answer).items()
    return {
        k: (_essence(f.__code__, f.__doc__), brief(f.__defaults__), brief(f.__kwdefaults__))
        for k, f in functions
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
    """The syntax of an answer, without comments, docstrings and its own name; None where there is
    no source.
    """
    try:
        tree = ast.parse(source_of(_bare(answer)))
    except Exception:
        return None
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.FunctionDef, ast.ClassDef))
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    tree.body[0].name = "_"
    return ast.dump(tree)


def _codes(answer) -> set:
    """The code objects of an answer, inner functions included."""
    found, waiting = set(), [f.__code__ for f in _functions(answer).values()]
    while waiting:
        code = waiting.pop()
        found.add(code)
        waiting += [c for c in code.co_consts if isinstance(c, CodeType)]
    return found


def raised_by(error: BaseException) -> tuple[CodeType | None, bool]:
    """The code object that an error comes from, and whether it is a `raise` statement that is
    written there.
    """
    trace = error.__traceback__
    if trace is None:
        return None, False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return (
        code,
        0 <= trace.tb_lasti < len(code.co_code)
        and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS",
    )


def is_blank(answer, error: BaseException) -> bool:
    """Whether the error is the `raise NotImplementedError` of the stub: raised by a line of the
    answer itself.
    """
    code, raised = raised_by(error)
    return isinstance(error, NotImplementedError) and raised and code in _codes(answer)


def own_lines(answer, error: BaseException) -> str:
    """The learner's own lines of the traceback, outermost first; none of ours and none of a
    library's.
    """
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
