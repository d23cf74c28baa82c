"""Chapter 15: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "domain_adaptation_mean": [
        """
def domain_adaptation_mean(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def domain_adaptation_mean(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}
