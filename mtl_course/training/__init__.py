"""Training on one task, and what every training run needs: the loop, checkpoints, precision,
metrics, searches.
"""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "fit": "loop",
        "History": "history",
        "evaluate": "evaluation",
        "predict": "evaluation",
        "Task": "tasks",
        "accuracy": "tasks",
        "rmse": "tasks",
        "r2": "tasks",
        "regression": "tasks",
        "classification": "tasks",
        "delta_m": "tasks",
        "Precision": "precision",
        "default_precision": "precision",
        "short_type": "precision",
        "search": "tuning",
        "random_search": "tuning",
        "optuna_search": "tuning",
        "best": "tuning",
        "Trial": "tuning",
        "watch": "syncs",
        "GradientDescent": "numpy_optimizers",
        "Momentum": "numpy_optimizers",
        "Adam": "numpy_optimizers",
    },
)
