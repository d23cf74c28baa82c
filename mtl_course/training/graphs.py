"""What a graph of autograd contains: whether its backward pass has a fast batched form."""

# Their backward has no fast batched form: one pass a task is faster than a batch of passes.
_LOOPED = ("Convolution", "Rnn", "Lstm", "Gru")


def has_looped(node, kinds: tuple[str, ...] = _LOOPED) -> bool:
    """Whether the graph that ends in this autograd node holds an operation of one of these kinds."""
    seen, stack = set(), [node]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        if any(kind in node.name() for kind in kinds):
            return True
        seen.add(node)
        stack += [parent for parent, _ in node.next_functions]
    return False
