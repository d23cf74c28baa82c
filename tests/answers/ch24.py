"""Chapter 24: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "build_and_ship_mean": [
        """
def build_and_ship_mean(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def build_and_ship_mean(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}
