"""Several tasks in one network: what they share, how their losses are added, and how their
gradients are balanced.
"""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "fit_tasks": "fit",
        "step": "fit",
        "evaluate_tasks": "fit",
        "TaskHistory": "fit",
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
        "Weighting": "weighting",
        "Fixed": "weighting",
        "Uncertainty": "weighting",
        "GeometricMean": "weighting",
        "RandomWeights": "weighting",
        "DWA": "weighting",
        "SmoothChebyshev": "weighting",
        "GradNorm": "weighting",
        "FAMO": "weighting",
        "Penalised": "weighting",
        "parameter_groups": "weighting",
        "gram": "balancing",
        "mgda": "balancing",
        "pcgrad": "balancing",
        "cagrad": "balancing",
        "imtl_g": "balancing",
        "aligned_mtl": "balancing",
        "nash_mtl": "balancing",
        "upgrad": "balancing",
        "dualproj": "balancing",
        "balanced_backward": "backward",
        "Balanced": "backward",
        "normal_equations": "linear",
        "ridge": "linear",
        "mean_regularised": "linear",
        "related_ridge": "linear",
        "complete": "task_graph",
        "nearest": "task_graph",
        "laplacian": "task_graph",
        "relation": "task_graph",
        "learn_relation": "task_graph",
        "closeness": "affinity",
        "cosines": "affinity",
        "lookahead": "affinity",
        "relative_gain": "affinity",
        "both_ways": "affinity",
        "rank_correlation": "affinity",
        "mantel": "affinity",
        "task_bootstrap": "affinity",
        "reliability": "affinity",
        "spectral_groups": "grouping",
        "partitions": "grouping",
        "expected_gain": "grouping",
        "best_groups": "grouping",
    },
)
