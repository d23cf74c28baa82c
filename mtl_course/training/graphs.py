"""What a graph of autograd contains: operations with no fast batched form, uses of a parameter."""

from collections import Counter
from collections.abc import Iterable, Iterator

from torch import Tensor

# Their backward has no fast batched form: one pass a task is faster than a batch of passes.
_LOOPED = ("Convolution", "Rnn", "Lstm", "Gru")


def has_looped(node, kinds: tuple[str, ...] = _LOOPED) -> bool:
    """Whether the graph that ends in this autograd node holds an operation of these kinds."""
    return any(kind in seen.name() for seen in _nodes([node]) for kind in kinds)


def uses(ends: Iterable) -> Counter[Tensor]:
    """Parameter -> how many operations of the graph that ends in these autograd nodes take it."""
    parents = (parent for node in _nodes(ends) for parent, _ in node.next_functions)
    return Counter(p.variable for p in parents if hasattr(p, "variable"))


def _nodes(ends: Iterable) -> Iterator:
    """Every node of the graph once."""
    seen, stack = set(), list(ends)
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [parent for parent, _ in node.next_functions]
            yield node
