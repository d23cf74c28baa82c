"""From a source task to a target task: what is loaded, frozen, penalised, and at which rate."""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # loading a source
        "load_source": "checkpoints",  # a checkpoint into a model with a new head
        "Loaded": "checkpoints",  # its report
        # freezing
        "freeze": "freezing",  # fix a module for good, statistics too
        "unfreeze": "freezing",  # undo it
        "replace_head": "freezing",  # a fresh head for new classes
        # penalties
        "l2_sp": "penalties",  # squared distance from the source
        # labels
        "label_map": "labels",  # from the source's classes to the target's
        # schedules
        "layers": "schedules",  # the layers of a network, from the input to the head
        "layer_groups": "schedules",  # groups of parameters, each with its rate
        "open_top": "schedules",  # train the highest layers, freeze the rest
        "lp_ft": "schedules",  # linear probing, then fine-tuning
        "gradual_unfreezing": "schedules",  # one more layer at a time
    },
)
