"""Training on one task, and what every training run needs.

The loop, checkpoints, precision, several processes, metrics and searches.
"""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # the loop and what it leaves behind
        "fit": "loop",  # train on one task until validation stops improving
        "History": "history",  # losses per epoch, and the best epoch
        "evaluate": "evaluation",  # a loss or metric over a whole data set
        "predict": "evaluation",  # outputs over a whole data set, in chunks
        # tasks and metrics
        "Task": "tasks",  # name, loss, metric and its direction
        "regression": "tasks",  # squared error, reported as R2
        "classification": "tasks",  # cross-entropy, reported as accuracy
        "accuracy": "tasks",  # share of right classes
        "rmse": "tasks",  # root mean squared error
        "r2": "tasks",  # coefficient of determination
        "delta_m": "tasks",  # mean relative gain over single-task models
        # a yes or no: order, size of chances, cuts
        "auc": "ranking",  # how often a yes has a higher score than a no
        "precision_recall_f1": "ranking",  # what a cut finds and misses
        "calibration_curve": "ranking",  # bin by bin, what is said and what comes true
        "calibration_error": "ranking",  # by how much chances miss what comes true
        # outcomes that are missing or censored, and what chances are worth
        "died_by": "outcomes",  # labels out of follow-up times, NaN where censored
        "known_losses": "outcomes",  # mean loss per task over known labels
        "net_benefit": "decisions",  # of treating above a cut
        "move_base_rate": "decisions",  # chances for another share of yeses
        # forecasts
        "means_ahead": "forecasts",  # the mean of the next h values, NaN where not yet known
        "diebold_mariano": "forecasts",  # does one forecast lose less, beyond chance?
        # numbers of 16 bits, and waits for the GPU
        "Precision": "precision",  # forward passes in bfloat16 or float16
        "default_precision": "precision",  # what a full-size run computes in
        "short_type": "precision",  # the 16-bit type for a device
        "SyncCounter": "syncs",  # counts the calls that wait for the GPU
        # several processes
        "launch": "launching",  # call a function in new processes that form a group
        "world": "distributed",  # join the processes of a run: which one is this?
        "World": "distributed",  # rank, number of processes, device
        "mean_gradients": "distributed",  # for a loop by hand: every .grad averaged
        "process_mean": "distributed",  # the mean of tensors over the processes
        # searching for settings
        "search": "tuning",  # with Optuna where it is installed, else at random
        "random_search": "tuning",  # log-uniform draws with a median rule
        "optuna_search": "tuning",  # Optuna's estimator with its median rule
        "best": "tuning",  # the best trial that ran to its end
        "Trial": "tuning",  # settings, scores, whether it was ended
        # optimizers by hand
        "GradientDescent": "numpy_optimizers",  # theta <- theta - rate * g
        "Momentum": "numpy_optimizers",  # heavy ball
        "Adam": "numpy_optimizers",  # running means of g and its square
    },
)
