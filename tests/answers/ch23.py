"""Chapter 23: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "trust_mean": [
        """
def trust_mean(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def trust_mean(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}
