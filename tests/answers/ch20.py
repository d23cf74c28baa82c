"""Chapter 20: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "in_context_mean": [
        """
def in_context_mean(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def in_context_mean(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}
