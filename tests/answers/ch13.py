"""Chapter 13: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "parameter_efficient_mean": [
        """
def parameter_efficient_mean(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def parameter_efficient_mean(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}
