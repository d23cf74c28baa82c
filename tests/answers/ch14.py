"""Chapter 14: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "distillation_mean": [
        """
def distillation_mean(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def distillation_mean(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}
