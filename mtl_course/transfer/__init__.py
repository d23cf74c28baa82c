"""From a source task to a target task: what is frozen, what is penalised, what is loaded, at which
rate it moves.
"""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "freeze": "freezing",
        "unfreeze": "freezing",
        "replace_head": "freezing",
        "l2_sp": "penalties",
        "load_source": "checkpoints",
        "Loaded": "checkpoints",
        "label_map": "labels",
        "layers": "schedules",
        "layer_groups": "schedules",
        "open_top": "schedules",
        "lp_ft": "schedules",
        "gradual_unfreezing": "schedules",
    },
)
