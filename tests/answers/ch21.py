"""Chapter 21: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "medicine_mean": [
        """
def medicine_mean(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def medicine_mean(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}
