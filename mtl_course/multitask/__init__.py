"""Several tasks in one network: what they share, how their losses are added, and how their
gradients are balanced.
"""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # the loop and what it leaves behind
        "fit_tasks": "fit",  # train on several tasks until validation stops improving
        "step": "fit",  # one step on one batch
        "evaluate_tasks": "fit",  # loss and metric of every task
        "TaskHistory": "fit",  # losses and metrics per epoch, and the best epoch
        # what tasks share: patterns and heads
        "HardSharing": "sharing",  # one trunk for all tasks and one head per task
        "Network": "sharing",  # a pattern that makes features, and heads that read them
        "Shared": "sharing",  # pattern: one trunk for all tasks
        "OwnTrunks": "sharing",  # pattern: a trunk for each task, with their `spread`
        "CrossStitch": "sharing",  # pattern: columns of layers, mixed after every layer
        "MTAN": "sharing",  # pattern: one trunk, masked by each task
        "Parallel": "sharing",  # heads: each task reads its own features
        "Cascade": "sharing",  # heads: a task also reads earlier outputs
        "Cooperative": "sharing",  # heads: the tasks exchange drafts
        # patterns with experts
        "MMoE": "experts",  # pattern: shared experts, a gate for each task
        "CGC": "experts",  # one level of `PLE`
        "PLE": "experts",  # pattern: levels of private and shared experts
        "mix": "experts",  # what a gate does: a weighted mean of experts
        "TopOne": "experts",  # pattern: each row to the best expert of each task
        "balance_loss": "experts",  # how unevenly a gate uses its experts
        # one event that needs another
        "esmm_loss": "whole_space",  # seen, and seen and liked, over all rows
        "log_product": "whole_space",  # the log of a product of two chances
        # how often each task is drawn
        "mixture": "mixtures",  # shares of the steps, from the sizes of the sets
        "passes": "mixtures",  # how often each set is gone through
        "Mixture": "mixtures",  # batches of one task at a time, drawn by shares
        # weightings: T losses to one
        "Weighting": "weighting",  # the base of all
        "EqualWeights": "weighting",  # the plain sum
        "Fixed": "weighting",  # weights from a search
        "Penalised": "weighting",  # the sum and a penalty, for soft sharing
        "Uncertainty": "weighting",  # a learned noise level per task
        "GeometricMean": "weighting",  # no unit matters
        "RandomWeights": "weighting",  # drawn anew at each step
        "DWA": "weighting",  # more for what falls slowly
        "SmoothChebyshev": "weighting",  # nearly the worst task
        "GradNorm": "weighting",  # gradients of a common length
        "FAMO": "weighting",  # losses that fall at the same rate
        "parameter_groups": "weighting",  # for an optimizer, without decay of weights
        # gradient balancing: Gram matrix [T, T] to weights [T]
        "gram": "balancing",  # all dot products of task gradients
        "mgda": "balancing",  # the shortest mixture
        "pcgrad": "balancing",  # project off each gradient that conflicts
        "PCGrad": "balancing",  # the same with a generator of its own
        "cagrad": "balancing",  # near the mean, best for the worst task
        "imtl_g": "balancing",  # the same projection on every unit gradient
        "aligned_mtl": "balancing",  # the nearest right-angled system
        "nash_mtl": "balancing",  # the bargaining solution
        "fairgrad": "balancing",  # the same with a power that favours the worst-off task
        "upgrad": "balancing",  # project each gradient on what conflicts with none
        "dualproj": "balancing",  # project their mean there
        "METHODS": "balancing",  # all of them by name
        "balanced_backward": "backward",  # head gradients and a balanced trunk's, in one call
        "balanced_backward_in_parts": "backward",  # of a batch on several processes, or in turn
        "Balanced": "backward",  # what it saw: losses, Gram matrix, weights
        # linear tasks in closed form
        "normal_equations": "linear",  # what all solutions start from
        "ridge": "linear",  # single tasks, or all pooled
        "mean_regularised": "linear",  # tasks near their mean
        "related_ridge": "linear",  # tasks tied by any quadratic penalty
        # tasks as a graph
        "complete": "task_graph",  # everyone tied to everyone
        "nearest": "task_graph",  # only the edges to the most similar
        "laplacian": "task_graph",  # the penalty that a graph asks for
        "relation": "task_graph",  # the best relation matrix for given weights
        "learn_relation": "task_graph",  # weights and relation matrix together
        # who helps whom
        "closeness": "affinity",  # minus the distance of features
        "cosines": "affinity",  # of task gradients
        "lookahead": "affinity",  # a step for one, seen by the others
        "relative_gain": "affinity",  # by how many per cent an error fell
        "both_ways": "affinity",  # mean of the two directions
        "rank_correlation": "affinity",  # of two matrices over their pairs
        "mantel": "affinity",  # its p-value
        "task_bootstrap": "affinity",  # its interval
        "reliability": "affinity",  # how well gains agree with themselves
        # groups of tasks
        "spectral_groups": "grouping",  # along the spectrum of a graph
        "partitions": "grouping",  # every one there is
        "expected_gain": "grouping",  # what pairs promise for a partition
        "best_groups": "grouping",  # the partition with the most of it
    },
)
