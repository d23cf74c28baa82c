"""Chapter 22: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "scale_out_mean": [
        """
def scale_out_mean(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def scale_out_mean(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}
