"""Chapter 10: right answers in other clothes, and mutants that compute the same."""

RIGHT = {
    "rnn_finance_mean": [
        """
def rnn_finance_mean(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def rnn_finance_mean(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}
