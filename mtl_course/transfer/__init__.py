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
        "logistic_near": "near",  # a logistic regression that stays near given weights
        # labels
        "label_map": "labels",  # from the source's classes to the target's
        # schedules
        "layers": "schedules",  # the layers of a network, from the input to the head
        "layer_groups": "schedules",  # groups of parameters, each with its rate
        "open_top": "schedules",  # train the highest layers, freeze the rest
        "lp_ft": "schedules",  # linear probing, then fine-tuning
        "gradual_unfreezing": "schedules",  # one more layer at a time
        # which source: scores
        "nce": "transferability",  # what the source's classes leave open of the target's
        "leep": "transferability",  # labels guessed through the source's head
        "h_score": "transferability",  # spread between the classes, shrunk
        "logme": "linear_evidence",  # evidence of linear models on the features
        "evidence": "linear_evidence",  # the same, column by column
        "Evidence": "linear_evidence",  # what it returns
        "probe_score": "transferability",  # a linear probe, each example left out in turn
        "ledoit_wolf": "transferability",  # a covariance drawn towards the identity
        # which source: what a score is worth
        "rank_per_target": "ranking",  # rank correlation with the gains
        "regret": "ranking",  # what following the score costs
        "task_bootstrap": "ranking",  # an interval over tasks
        "permuted": "ranking",  # p-value with sources or targets exchanged
        # a source without labels
        "nt_xent": "contrastive",  # find the other view of the same image
        "pair_loss": "contrastive",  # which text belongs to which picture (CLIP)
        # low-rank updates
        "LoRALayer": "lora",  # a frozen layer with low-rank updates
        "add_lora": "lora",  # onto layers by name pattern
        "use_lora": "lora",  # switch between adapters on one model
        "merge_lora": "lora",  # into the weights
        "unmerge_lora": "lora",  # and out again
        "remove_lora": "lora",  # the plain layers back
        "lora_layers": "lora",  # which layers carry any
        "lora_state": "lora",  # one adapter alone, to store
        "load_lora": "lora",  # and to put back
        "lora_delta": "lora",  # what it adds to the weights
        # adapters and biases
        "AdapterLayer": "adapters",  # a frozen layer with a bottleneck behind it
        "add_adapters": "adapters",  # onto layers by name pattern
        "bitfit": "adapters",  # train the biases only
        "trainable_state": "adapters",  # what a task has of its own
        # merging
        "average": "merging",  # the mean of models: a uniform soup
        "interpolate": "merging",  # a point between two models
        "task_vector": "merging",  # tuned minus base
        "add_vectors": "merging",  # task arithmetic
        "ties": "merging",  # trim, elect, merge
        "greedy_soup": "merging",  # average what helps
        # distillation: a student and its teachers
        "teacher_outputs": "distillation",  # what a teacher, or one per task, says: targets
        "soft_targets": "distillation",  # probabilities at a temperature
        "kd_loss": "distillation",  # T^2 KL, teacher to student
        "mixed_loss": "distillation",  # the same, and labels where there are some
        "kd_losses": "distillation",  # one for each head of a multi-task student
        "distilled_tasks": "distillation",  # tasks for fit_tasks whose targets are logits
        "pooled_logits": "distillation",  # several teachers as one
        "FeatureMatch": "distillation",  # the teacher's features through a regressor
        "agreement": "distillation",  # share of rows named alike, without labels
        # compression
        "quantized": "compression",  # a copy with 8-bit weights
        "Int8Layer": "compression",  # a layer of it
        "quantize": "compression",  # whole numbers and a scale per channel
        "dequantize": "compression",  # and back
        "stored_bytes": "compression",  # of a checkpoint
        "sparse_bytes": "compression",  # of one without its zeros
        "working_bytes": "compression",  # of a forward pass
        "call_seconds": "compression",  # median times, taking turns
        # domain adaptation, without a label of the target
        "adapt_batchnorm": "adaptation",  # the target's statistics into BatchNorm (AdaBN)
        "gradient_reversal": "adaptation",  # forward the identity, backward its opposite
        "GradientReversal": "adaptation",  # the same as a layer
        "reversal_schedule": "adaptation",  # how strong it is, step by step
        "domain_loss": "adaptation",  # the adversary's loss behind a reversal (DANN)
        "coral": "alignment",  # squared distance of two covariance matrices
        "mmd": "alignment",  # squared maximum mean discrepancy
        "target_shares": "shift",  # shares of the classes in an unlabelled target
        "proxy_a_distance": "shift",  # how well a classifier tells two domains apart
    },
)
