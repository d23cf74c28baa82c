"""Where the numbers of a notebook come from: literal seeds, and what each claim rests on.

Read from the code alone, without running it. The lint refuses literal seeds; the command `claims`
tells claims of the live run from those of the committed record.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

LIVE, RECORD = "live", "record"
SEED = re.compile(r"seeds?", re.I)
LOOPED = re.compile(r"s|(.*_)?seeds?", re.I)  # a loop's variable of that name is a seed
SEEDERS = {"manual_seed", "default_rng", "RandomState", "seed_everything"}
EXPERIMENT = re.compile(r"ch\d\d")
GROWING = {"append", "extend", "insert", "add", "update", "setdefault"}

Loop = ast.For | ast.comprehension
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)


# ------------------------------------------------------------------------------------ literal seeds
def literal_seeds(tree: ast.AST) -> Iterator[str]:
    """The literal lists and ranges from which code takes seeds, as they are written.

    One literal seed, such as ``seed=0`` of a picture or of an exact check, is none of them: the
    rule is about repetitions, on which claims rest.
    """
    for node in ast.walk(tree):
        for value in _seed_lists(node):
            if _is_literal(value):
                yield ast.unparse(value)


def _seed_lists(node: ast.AST) -> Iterator[ast.AST]:
    """What a node uses as a list of seeds."""
    if isinstance(node, ast.For):
        yield from _looped(node, node.body)
    elif isinstance(node, COMPREHENSIONS):
        for loop in node.generators:
            yield from _looped(loop, [node])
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            for name, value in _pairs(target, node.value):
                if isinstance(name, ast.Name) and SEED.fullmatch(name.id):
                    yield value
    elif isinstance(node, ast.FunctionDef):
        given = node.args.args + node.args.kwonlyargs
        for parameter, default in zip(
            reversed(given),
            [*reversed(node.args.kw_defaults), *reversed(node.args.defaults)],
            strict=False,
        ):
            if default is not None and SEED.fullmatch(parameter.arg):
                yield default
    elif isinstance(node, ast.Call):
        yield from (word.value for word in node.keywords if SEED.fullmatch(word.arg or ""))
        if isinstance(node.func, ast.Attribute) and EXPERIMENT.match(ast.unparse(node.func)):
            yield from node.args


def _looped(loop: Loop, body: list[ast.AST]) -> Iterator[ast.AST]:
    """The lists that a loop runs over, where its variable is a seed by name or by use."""
    names = _names(loop.target)
    if not (any(LOOPED.fullmatch(name) for name in names) or names & _used_as_seeds(body)):
        return
    over = loop.iter
    if isinstance(over, ast.Call) and ast.unparse(over.func) in ("enumerate", "zip"):
        yield from over.args
    else:
        yield over


def _used_as_seeds(nodes: list[ast.AST]) -> set[str]:
    """Names that stand where a seed is asked for: ``seed=k``, ``manual_seed(k)``."""
    names = set()
    for call in (n for node in nodes for n in ast.walk(node) if isinstance(n, ast.Call)):
        for word in call.keywords:
            if SEED.fullmatch(word.arg or ""):
                names |= _names(word.value)
        if ast.unparse(call.func).split(".")[-1] in SEEDERS:
            names |= {name for argument in call.args for name in _names(argument)}
    return names


def _is_literal(node: ast.AST) -> bool:
    """True for ``[0, 1, 2]``, ``range(5)``, ``list(range(5))`` and the like."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return bool(node.elts) and all(_is_whole(element) for element in node.elts)
    if not isinstance(node, ast.Call) or node.keywords:
        return False
    name = ast.unparse(node.func).split(".")[-1]
    if name in ("range", "arange"):
        return all(_is_whole(argument) for argument in node.args)
    return name in ("list", "tuple", "set") and len(node.args) == 1 and _is_literal(node.args[0])


def _is_whole(node: ast.AST) -> bool:
    """Whether code is a whole number."""
    return isinstance(node, ast.Constant) and type(node.value) is int


def _names(node: ast.AST) -> set[str]:
    """All names that occur in code."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


# ---------------------------------------------------------------------------- what a claim rests on
def largest(trees: Iterable[ast.AST]) -> int:
    """The most seeds that code asks `session.seeds` for; 0 where it asks for none."""
    calls = [n for tree in trees for n in ast.walk(tree) if _is_call(n, "session.seeds") and n.args]
    return max((c.args[0].value for c in calls if _is_whole(c.args[0])), default=0)


@dataclass
class Flow:
    """Follows values through the cells of a notebook, from where they come to the claims.

    A value is `LIVE` where `session.seeds` went into it, `RECORD` where `records.load` did. What a
    loop over such a value computes is one, too. Functions stand for all that they use.

    Args:
        origins: name -> where its value comes from, so far.
        functions: name -> the function of that name, so far.
        parts: variable of a loop -> the names that it runs over: a list that grows there is a part
            of them.
    """

    origins: dict[str, set[str]] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    parts: dict[str, set[str]] = field(default_factory=dict)

    def cell(self, tree: ast.Module) -> list[tuple[str, set[str]]]:
        """Take in a cell. Its claims: a pattern of the text, and where the evidence comes from."""
        claims = []
        self._run(tree.body, set(), claims)
        return claims

    def _run(self, body: list[ast.stmt], around: set[str], claims: list) -> None:
        """Statement by statement; `around` is the origin of the loops that they stand in."""
        for node in body:
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node
            elif isinstance(node, ast.For):
                inside = around | self._of(node.iter)
                self._bind(node.target, inside)
                self.parts |= dict.fromkeys(_names(node.target), _names(node.iter))
                self._run(node.body + node.orelse, inside, claims)
            elif isinstance(node, ast.If | ast.While | ast.With | ast.Try):
                for item in getattr(node, "items", []):
                    if item.optional_vars:
                        self._bind(item.optional_vars, around | self._of(item.context_expr))
                for block in ("body", "orelse", "finalbody"):
                    self._run(getattr(node, block, []), around, claims)
                for handler in getattr(node, "handlers", []):
                    self._run(handler.body, around, claims)
            else:
                self._simple(node, around, claims)

    def _simple(self, node: ast.stmt, around: set[str], claims: list) -> None:
        """An assignment or an expression: what it binds, what it grows, what it claims."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self._bind(inner.target, around | self._of(inner.value))
            elif isinstance(inner, ast.Call):
                if isinstance(inner.func, ast.Attribute) and inner.func.attr in GROWING:
                    grown = [*inner.args, *(word.value for word in inner.keywords)]
                    self._grow(inner.func.value, around.union(*map(self._of, grown)))
                if ast.unparse(inner.func) == "claim" and inner.args:
                    evidence = [*inner.args[1:], *(word.value for word in inner.keywords)]
                    origin = around.union(*map(self._of, evidence))
                    claims.append((_pattern(inner.args[0]), origin))
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            kept = bool(around) or isinstance(node, ast.AugAssign)
            for target in targets:
                for name, value in _pairs(target, node.value):
                    self._bind(name, around | self._of(value), kept)

    def _grow(self, grown: ast.AST, origin: set[str]) -> None:
        """A list or mapping takes in values of an origin, and so does what it is a part of."""
        while not isinstance(grown, ast.Name):
            if isinstance(grown, ast.Call):
                grown = grown.func
            elif hasattr(grown, "value"):
                grown = grown.value
            else:
                return
        for name in {grown.id} | self.parts.get(grown.id, set()):
            self.origins[name] = self.origins.get(name, set()) | origin

    def _bind(self, target: ast.AST, origin: set[str], around: bool = False) -> None:
        """Give the target's names an origin; what is changed in part keeps the one it has, too."""
        if isinstance(target, ast.Tuple | ast.List):
            for element in target.elts:
                self._bind(element, origin, around)
            return
        while not isinstance(target, ast.Name):
            if not hasattr(target, "value"):
                return
            target, around = target.value, True
        kept = self.origins.get(target.id, set()) if around else set()
        self.origins[target.id] = kept | origin
        if not around:
            self.functions.pop(target.id, None)

    def _of(self, node: ast.AST, seen: frozenset[str] = frozenset()) -> set[str]:
        """Where the value of an expression, or of all that a function uses, comes from."""
        loops = [n for n in ast.walk(node) if isinstance(n, ast.comprehension)]
        local = {name for loop in loops for name in _names(loop.target)}
        if isinstance(node, ast.FunctionDef):
            names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
            local |= {a.arg for a in (*node.args.args, *node.args.kwonlyargs)}
            local |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
        origin = set()
        for inner in ast.walk(node):
            if _is_call(inner, "session.seeds"):
                origin.add(LIVE)
            elif _is_call(inner, "records.load"):
                origin.add(RECORD)
            elif isinstance(inner, ast.Name) and inner.id not in local | seen:
                origin |= self.origins.get(inner.id, set())
                if inner.id in self.functions:
                    origin |= self._of(self.functions[inner.id], seen | {inner.id})
        return origin


def _is_call(node: ast.AST, name: str) -> bool:
    """Whether code is a call of this name."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


def _pairs(target: ast.AST, value: ast.AST) -> list[tuple[ast.AST, ast.AST]]:
    """What an assignment gives to what: ``a, b = 1, 2`` one by one."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        starred = any(isinstance(n, ast.Starred) for n in (*target.elts, *value.elts))
        if not starred and len(target.elts) == len(value.elts):
            return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _pattern(text: ast.AST) -> str:
    """A regular expression for the text of a claim; what an f-string fills in may be anything."""
    pattern = ""
    for node in text.values if isinstance(text, ast.JoinedStr) else [text]:
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        pattern += re.escape(node.value) if is_text else ".*"
    return pattern
