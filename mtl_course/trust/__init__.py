"""What a model gives away, whom it treats how, and what an answer rests on."""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # private training
        "per_example_gradients": "privacy",  # one gradient per row
        "private_mean": "privacy",  # clip each row, add up, add noise
        "renyi": "privacy",  # Renyi divergences of one noisy step
        "spent": "privacy",  # the epsilon of a whole training
        "noise_for": "privacy",  # the noise that keeps to an epsilon
        "gaussian_delta": "privacy",  # exact, for one noisy sum
        # who was in the training set
        "confidence": "membership",  # log odds of the right answer
        "calibrated": "membership",  # minus what other models say
        "caught": "membership",  # members found at a rate of false alarms
        # groups of people
        "group_rates": "fairness",  # true and false positives of each group
        "odds_gap": "fairness",  # equalised odds: the largest difference
        "group_cuts": "fairness",  # a cut per group, for one true positive rate
        # what an answer rests on
        "integrated_gradients": "attribution",  # shares of one output, column by column
        "deletion_curve": "attribution",  # the output while columns are taken away
    },
)
