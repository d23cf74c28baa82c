"""What the learner wrote: where it is, whether it was begun, and which of its lines an error comes from."""

import dis
import functools
import inspect
import linecache
import sys
import traceback
from types import CodeType

from .exercise import Exercise

PACKAGE = __name__.split(".")[0]


def find(name: str):
    """The object called `name` in the notebook, or where the check was called from; None if there is none."""
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
    reference = inspect.unwrap(exercise.reference)
    own = getattr(reference, "__code__", None)
    with_wrapping_undone = inspect.unwrap(answer) if callable(answer) and not isinstance(answer, Exercise) else answer
    return (
        isinstance(answer, Exercise)
        or with_wrapping_undone is reference
        or (own is not None and getattr(with_wrapping_undone, "__code__", None) is own)
    )


def is_course_code(answer) -> bool:
    """Whether the object was made by the course's package, such as a name that a notebook imported from it."""
    return str(getattr(answer, "__module__", "")).split(".")[0] == PACKAGE


def untouched(exercise: Exercise, answer) -> bool:
    """Whether nothing was done yet: an empty body, or the code of the starter (comments and docstring aside)."""
    if exercise.starter is not None and _parts(answer) and _parts(answer) == _parts(exercise.starter):
        return True
    code = getattr(inspect.unwrap(answer) if callable(answer) else answer, "__code__", None)
    if not isinstance(code, CodeType):
        return False
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP", "CACHE")]
    return len(steps) <= 2 and steps[-1].opname.startswith("RETURN") and steps[0].argval in (None, ...) and not code.co_freevars


def _functions(answer) -> dict:
    """Name -> function: the answer itself, or the methods of a class."""
    if inspect.isclass(answer):
        inner = {k: getattr(v, "__func__", getattr(v, "fget", v)) for k, v in vars(answer).items()}
    else:
        inner = {"": answer}
    unwrapped = {k: inspect.unwrap(v) if callable(v) else v for k, v in inner.items()}
    return {k: v for k, v in unwrapped.items() if isinstance(getattr(v, "__code__", None), CodeType)}


def _parts(answer) -> dict:
    """What the functions of an answer do, without names of files, line numbers and docstrings."""
    return {k: (_essence(f.__code__, f.__doc__), repr(f.__defaults__), repr(f.__kwdefaults__)) for k, f in _functions(answer).items()}


def _essence(code: CodeType, doc=None):
    constants = list(code.co_consts)
    if constants and doc is not None and constants[0] == doc:
        constants[0] = None
    inner = [_essence(c) if isinstance(c, CodeType) else (type(c).__name__, repr(c)) for c in constants]
    return code.co_code, inner, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount


def _codes(answer) -> set:
    """The code objects of an answer, inner functions included."""
    found, waiting = set(), [f.__code__ for f in _functions(answer).values()]
    while waiting:
        code = waiting.pop()
        found.add(code)
        waiting += [c for c in code.co_consts if isinstance(c, CodeType)]
    return found


def raised_by(error: BaseException) -> tuple[CodeType | None, bool]:
    """The code object that an error comes from, and whether it is a `raise` statement that is written there."""
    trace = error.__traceback__
    if trace is None:
        return None, False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return code, 0 <= trace.tb_lasti < len(code.co_code) and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def is_blank(answer, error: BaseException) -> bool:
    """Whether the error is the `raise NotImplementedError` of the stub: raised by a line of the answer itself."""
    code, raised = raised_by(error)
    return isinstance(error, NotImplementedError) and raised and code in _codes(answer)


def own_lines(answer, error: BaseException) -> str:
    """The learner's own lines of the traceback, outermost first; none of ours and none of a library's."""
    files = {code.co_filename for code in _codes(answer)}
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in files or "ipykernel" in frame.filename or "ipython-input" in frame.filename
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
