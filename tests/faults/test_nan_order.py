"""Comparisons with NaN, which is neither less nor more than anything.

Whatever ranks, sorts or takes the best of its inputs answers NaN or an error where one of them is
NaN; it never makes an order up. The table has a row for every public function that compares, and
the test fails for a function that stands in neither list.
"""

import math

import numpy as np
import pytest
import torch

from mtl_course import (
    data,
    meta,
    multitask,
    networks,
    serving,
    streams,
    training,
    transfer,
    trust,
)
from mtl_course.dev.docstrings import ROOMS, public
from mtl_course.multitask import balancing
from mtl_course.training import Trial
from mtl_course.trust.fairness import Rates

NAN = float("nan")
FUNCTIONS = {name.name for room in ROOMS for name in public(room) if name.kind == "function"}


def matrix(T=5, at=None):
    """Symmetric similarities [T, T], all different, with a NaN at the pair `at`."""
    S = np.random.RandomState(0).rand(T, T) + 0.1
    S = S + S.T
    if at is not None:
        S[at] = S[at[::-1]] = NAN
    return S


def tensor(at=(0, 1)):
    return torch.tensor(matrix(at=at))


def objective(suggest):
    rate = suggest("rate", 1e-4, 1.0)
    yield 0.5 - rate
    yield NAN if rate > 1e-3 else 0.5 - rate


def best_of(search):
    """The score of a search's best trial, over trials of which most end in NaN."""
    trials = search(objective, trials=12)
    assert all(trial.ended for trial in trials if trial.settings["rate"] > 1e-3)
    assert not any(math.isnan(score) for trial in trials for score in trial.scores)
    whole = [trial for trial in trials if not trial.ended]
    return training.best(trials).scores[-1] if whole else training.best(trials)


def accuracy_matrix():
    A = torch.full((3, 3), 0.5)
    A[1, 0] = A[2, 0] = NAN
    return A


def diverged():
    layer = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(layer.weight, NAN)
    return layer


def cell(gates):
    """Weights and biases of a recurrent cell of two inputs and two states."""
    return *torch.ones(2, 2 * gates, 2), *torch.zeros(2, 2 * gates)


LOGITS = torch.tensor([[1.0, NAN], [NAN, NAN], [2.0, 1.0]])
CLASSES = torch.tensor([1, 0, 0])
FEATURES = torch.tensor([[NAN, 1.0], [0.0, 2.0], [1.0, 0.0], [2.0, 1.0]])
LABELS = torch.tensor([0, 1, 0, 1])
SOUND = torch.arange(8.0).view(4, 2)
SAID = torch.tensor([0.2, NAN, 0.9, 0.4])  # chances
SCORES, GAINS = [[NAN], [2.0], [3.0]], [[0.1], [0.2], [0.3]]
CLASSES_OF_TWO, BLANK = torch.tensor([0, 0, 1, 1]), Rates(4, 0.5, NAN, 0.5)
MODELS = [{"w": torch.tensor([value])} for value in (1.0, NAN, 3.0)]
MULTI, SINGLE, HIGHER = {"a": NAN, "b": 1.0}, {"a": 1.0, "b": 1.0}, {"a": True, "b": False}

# function -> a call with a NaN among what it compares
ROWS = {
    **{name: lambda method=method: method(tensor()) for name, method in balancing.METHODS.items()},
    "nearest": lambda: multitask.nearest(tensor(), 2),
    "laplacian": lambda: multitask.laplacian(tensor()),
    "spectral_groups": lambda: multitask.spectral_groups(tensor(), 2),
    "rank_correlation": lambda: multitask.rank_correlation(matrix(at=(0, 1)), matrix()),
    "mantel": lambda: multitask.mantel(matrix(), matrix(at=(3, 1)), 20),
    "task_bootstrap": lambda: multitask.task_bootstrap(matrix(at=(0, 4)), matrix(), 20),
    "reliability": lambda: multitask.reliability([matrix(), matrix(at=(0, 1)), matrix()], 5),
    "expected_gain": lambda: multitask.expected_gain(matrix(at=(0, 1)), [[0, 1], [2, 3, 4]]),
    "best_groups": lambda: multitask.best_groups(matrix(at=(0, 1))),
    "best": lambda: training.best([Trial({"rate": 1.0}, [0.3, NAN])]),
    "random_search": lambda: best_of(training.random_search),
    "accuracy": lambda: training.accuracy(LOGITS, CLASSES),
    "delta_m": lambda: training.delta_m(MULTI, SINGLE, HIGHER),
    "auc": lambda: training.auc(SAID, LABELS),
    "precision_recall_f1": lambda: training.precision_recall_f1(SAID > 0.5, SAID),
    "calibration_curve": lambda: training.calibration_curve(SAID, LABELS),
    "calibration_error": lambda: training.calibration_error(SAID, LABELS),
    "died_by": lambda: training.died_by(SAID, LABELS, 1),
    "net_benefit": lambda: training.net_benefit(SAID, LABELS, 0.5),
    "move_base_rate": lambda: training.move_base_rate(SAID, 0.2, 0.4),
    "logistic_near": lambda: transfer.logistic_near(FEATURES, LABELS, 1.0),
    "balance_loss": lambda: multitask.balance_loss(FEATURES.softmax(1)),
    "diebold_mariano": lambda: training.diebold_mariano([0.1, NAN, 0.4], [0.2, 0.3, 0.1]),
    "query_accuracy": lambda: meta.query_accuracy(LOGITS[None], CLASSES[None]),
    "forgetting": lambda: streams.forgetting(accuracy_matrix()),
    "average_accuracy": lambda: streams.average_accuracy(accuracy_matrix()),
    "backward_transfer": lambda: streams.backward_transfer(accuracy_matrix()),
    "forward_transfer": lambda: streams.forward_transfer(accuracy_matrix().T, torch.zeros(3)),
    # Scores of transferability, and what they are worth.
    "nce": lambda: transfer.nce(LABELS, FEATURES[:, 0]),
    "leep": lambda: transfer.leep(FEATURES, LABELS),
    "ledoit_wolf": lambda: transfer.ledoit_wolf(FEATURES),
    "h_score": lambda: transfer.h_score(FEATURES, LABELS),
    "probe_score": lambda: transfer.probe_score(FEATURES, LABELS),
    "evidence": lambda: transfer.evidence(FEATURES, SOUND),
    "logme": lambda: transfer.logme(FEATURES, LABELS),
    "rank_per_target": lambda: transfer.rank_per_target(SCORES, GAINS),  # two sources are left
    "regret": lambda: transfer.regret(SCORES[:1], GAINS[:1]),
    "permuted": lambda: transfer.permuted(SCORES, GAINS, "sources", 20),
    # Models that are weighed against each other, weight by weight or by a score.
    "ties": lambda: transfer.ties(MODELS, keep=1.0),
    "greedy_soup": lambda: transfer.greedy_soup(MODELS, lambda s: float(s["w"])),
    "quantize": lambda: transfer.quantize(FEATURES),
    "quantized": lambda: transfer.quantized(diverged()),
    # Students and teachers, which agree on the largest logit.
    "agreement": lambda: transfer.agreement(FEATURES, SOUND),
    "kd_loss": lambda: transfer.kd_loss(SOUND, FEATURES),
    "kd_losses": lambda: transfer.kd_losses({"a": SOUND}, {"a": FEATURES}),
    "mixed_loss": lambda: transfer.mixed_loss(SOUND, FEATURES, LABELS),
    "teacher_outputs": lambda: transfer.teacher_outputs(diverged(), SOUND),
    "nt_xent": lambda: transfer.nt_xent(FEATURES, SOUND),
    "pair_loss": lambda: transfer.pair_loss(FEATURES, SOUND),
    # Two domains, told apart by distances and by a classifier.
    "coral": lambda: transfer.coral(SOUND, FEATURES),
    "mmd": lambda: transfer.mmd(SOUND, FEATURES),
    "proxy_a_distance": lambda: transfer.proxy_a_distance(SOUND, FEATURES),
    "domain_loss": lambda: transfer.domain_loss(SOUND, FEATURES, torch.nn.Linear(2, 1)),
    "adapt_batchnorm": lambda: transfer.adapt_batchnorm(torch.nn.BatchNorm1d(2), FEATURES),
    "gradient_reversal": lambda: transfer.gradient_reversal(SOUND, NAN),
    "reversal_schedule": lambda: transfer.reversal_schedule(NAN),
    # A table that is read in context.
    "scaled_columns": lambda: meta.scaled_columns(FEATURES, SOUND, 2),
    "answer": lambda: meta.answer(meta.InContext(2, 2, 8, 1, 2), SOUND, LABELS, FEATURES),
    # Who was in a set, which groups get a yes, and what an answer rests on.
    "confidence": lambda: trust.confidence(torch.full((2,), NAN), LABELS[:2]),
    "calibrated": lambda: trust.calibrated(torch.full((3, 2), NAN), torch.zeros(3, 2) > 0),
    "caught": lambda: trust.caught(SAID, LABELS > 0),
    "group_rates": lambda: trust.group_rates(SAID, LABELS, CLASSES_OF_TWO, "ab"),
    "odds_gap": lambda: trust.odds_gap({"a": BLANK, "b": BLANK._replace(true_positive=1.0)}),
    "group_cuts": lambda: trust.group_cuts(SAID, LABELS, CLASSES_OF_TWO, "ab", 0.5),
    "deletion_curve": lambda: trust.deletion_curve(
        lambda x: x.sum(1), SOUND, torch.zeros(2), FEATURES
    ),
    "noise_for": lambda: trust.noise_for(NAN, 10, 1e-5),
    "spent": lambda: trust.spent(NAN, 10, 1e-5),
    "renyi": lambda: trust.renyi(NAN),
    "gaussian_delta": lambda: trust.gaussian_delta(NAN, 1.0),
    "private_mean": lambda: trust.private_mean({"w": FEATURES}, 1.0, 1.0, 2.0),
    # Rows in the order of their time.
    "split_in_time": lambda: data.split_in_time([0.0, NAN, 2.0], [1.0]),
    "rolling_origins": lambda: list(data.rolling_origins([0.0, 1.0, 2.0], [1.0, NAN])),
    "windows": lambda: data.windows(range(4), 1, [1], [0.0, 1.0, NAN, 3.0]),
    "pad": lambda: data.pad([[1.0], [1.0, NAN]]),  # the longest sets the length
    "present": lambda: networks.present(torch.tensor([[[1.0], [NAN], [2.0]]])),  # a gap
    "psi": lambda: serving.psi([0.0, 1.0, 2.0], [0.0, NAN]),
    "widest": lambda: networks.widest(lambda width: torch.nn.Linear(width, 1), NAN),
}
# They rank nothing themselves: they make, move or train, and the losses that they compare are held
# against infinity and NaN by the training loops (tests/training/test_loop_faults.py).
RANK_NOTHING = {
    *("load", "load_or_partial", "names", "info", "per_class", "split_per_task", "flip", "crop"),
    *("cutout", "compose", "corrupt", "sinusoids", "split_classes", "require_disjoint"),
    *("mlp", "cnn", "conv4", "resnet", "parameters", "flops"),
    "means_ahead",
    *("score", "practice"),  # of the labs: a NaN among predictions is refused
    "known_losses",  # a label that is NaN is not known
    "modality_dropout",  # a share that is NaN is refused
    *("fit", "evaluate", "predict", "regression", "classification", "rmse", "r2"),
    *("default_precision", "short_type"),
    *("launch", "world", "mean_gradients", "process_mean", "balanced_backward_in_parts"),
    *("search", "optuna_search"),  # one of them is `random_search`; the other is tried below
    *("fit_tasks", "step", "evaluate_tasks", "mix", "parameter_groups", "gram"),
    *("balanced_backward", "normal_equations", "ridge", "mean_regularised", "related_ridge"),
    *("complete", "relation", "learn_relation", "closeness", "cosines", "lookahead"),
    *("relative_gain", "both_ways", "partitions", "esmm_loss", "log_product"),
    *("load_source", "freeze", "unfreeze", "replace_head", "l2_sp", "label_map", "layers"),
    *("layer_groups", "open_top", "lp_ft", "gradual_unfreezing"),
    *("adapt", "objective", "meta_losses", "meta_backward", "mixed_losses", "learned_rates"),
    *("reptile_backward", "require_finite", "fit_episodes", "prototypes", "distance_logits"),
    *("embed", "prototype_logits", "with_statistics", "query_losses", "fine_tuned_logits"),
    *("adapted_logits", "episode_accuracy", "interval"),
    *("class_stream", "single_task", "learn", "learn_jointly", "accuracies"),
    *("fisher_diagonal", "ewc_penalty"),
    *("distillation_loss", "prequential"),
    # counts, labels and ids, which are whole numbers
    *("target_shares", "attention_mask", "text_ids", "vocabulary", "encode", "minilm"),
    *("stored_bytes", "sparse_bytes", "working_bytes", "call_seconds"),
    # what they are given goes through sums, products and softmaxes: a NaN stays one
    *("gru_cell", "lstm_cell", "attention", "soft_targets", "pooled_logits", "dequantize"),
    *("average", "interpolate", "task_vector", "add_vectors"),
    # layers are put in, taken out, chosen by name, copied
    *("add_lora", "use_lora", "merge_lora", "unmerge_lora", "remove_lora", "lora_layers"),
    *("lora_state", "load_lora", "lora_delta", "add_adapters", "bitfit", "trainable_state"),
    "distilled_tasks",
    # shares of the steps: a size that is NaN is refused
    *("mixture", "passes"),
    # gradients, row by row and along a way
    *("per_example_gradients", "integrated_gradients"),
    # tasks are drawn, and read in a forward pass
    *("episode_mask", "episode_losses", "linear_tasks", "table_tasks"),
    # a release is written, read and asked; its golden answers against NaN: tests/serving
    *("export_model", "save_release", "load_release", "regressions"),
    *("running", "ask", "load_test"),
}


def test_every_public_function_has_its_place():
    assert ROWS.keys() | RANK_NOTHING == FUNCTIONS and not ROWS.keys() & RANK_NOTHING


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ROWS)
def test_nan_is_never_given_an_order(name):
    try:
        result = ROWS[name]()
    except (ValueError, FloatingPointError):
        return
    if name == "random_search":  # the trials that diverged are out, and the best is a number
        assert math.isfinite(result)
    else:
        assert np.isnan(np.asarray(result, dtype=float)).all(), result


def test_optuna_takes_nan_for_a_trial_that_diverged():
    pytest.importorskip("optuna")
    assert math.isfinite(best_of(training.optuna_search))


# A matrix whose pairs are all the same has no order either, nor has a single pair.
WITHOUT_ORDER = {
    "constant": (np.full((6, 6), 0.1), matrix(6)),
    "constant but for its diagonal": (np.full((6, 6), 0.3) + np.diag(np.arange(6.0)), matrix(6)),
    "both constant": (np.ones((6, 6)), np.zeros((6, 6))),
    "two tasks": (matrix(2), matrix(2)),
    "one task": (matrix(1), matrix(1)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", WITHOUT_ORDER)
def test_pairs_without_an_order_have_no_correlation(case):
    S, G = WITHOUT_ORDER[case]
    for first, second in ((S, G), (G, S)):
        assert math.isnan(multitask.rank_correlation(first, second))
        assert math.isnan(multitask.mantel(first, second, 20))
        assert np.isnan(multitask.task_bootstrap(first, second, 20)).all()
    assert math.isnan(multitask.reliability([S, S, S], 5)) or case == "two tasks"


def test_the_diagonal_counts_for_nothing():
    diagonal = np.diag([NAN] * 5)
    S, G = matrix(), matrix() ** 2
    assert multitask.rank_correlation(S + diagonal, G) == multitask.rank_correlation(S, G) == 1
    assert multitask.best_groups(S + diagonal) == multitask.best_groups(S)
    with_it = multitask.expected_gain(S + diagonal, [[0, 1, 2, 3, 4]])
    assert with_it == multitask.expected_gain(S, [[0, 1, 2, 3, 4]])


def test_what_does_not_rank_lets_nan_through():
    T = tensor()
    for result in (
        multitask.both_ways(T.numpy())[0, 1],
        multitask.closeness(T)[0, 1],
        multitask.cosines(T)[0, 1],
        multitask.relative_gain([1.0, 2.0], [NAN, 1.0])[0],
        meta.interval(torch.tensor([0.5, NAN, 0.4]))[0],
        training.rmse(torch.tensor([NAN, 1.0]), torch.zeros(2)),
        training.r2(torch.tensor([NAN, 1.0]), torch.tensor([0.0, 1.0])),
        transfer.soft_targets(FEATURES)[0, 1],
        transfer.pooled_logits([SOUND, FEATURES])[0, 1],
        transfer.dequantize(torch.ones(1, 2, dtype=torch.int8), torch.tensor([NAN]))[0, 0],
        transfer.average(MODELS)["w"],
        transfer.interpolate(*MODELS[:2], 0.5)["w"],
        transfer.task_vector(*MODELS[:2])["w"],
        transfer.add_vectors(MODELS[0], MODELS[1:])["w"],
        networks.attention(FEATURES[None], SOUND[None], SOUND[None])[0][0, 0, 0],
        networks.gru_cell(FEATURES, SOUND, *cell(3))[0, 0],
        networks.lstm_cell(FEATURES, SOUND, SOUND, *cell(4))[0][0, 0],
    ):
        assert math.isnan(result)


def test_scores_without_an_order_are_no_evidence():
    """No correlation at all is NaN, and an exchange that has none is no less than the observed."""
    gains = np.arange(8.0).reshape(4, 2)
    with_holes = np.array([[NAN, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, NAN]])  # three a target
    for what in ("sources", "targets"):
        assert math.isnan(transfer.permuted(np.ones((4, 2)), gains, what, 20))
    assert transfer.permuted(with_holes, with_holes, "targets", 20) == 1


def test_a_soup_without_a_score_is_no_worse_soup():
    models = [{"w": torch.tensor([value])} for value in (1.0, 3.0)]
    with pytest.raises(FloatingPointError, match="the soup with model 0 is NaN"):
        transfer.greedy_soup(models, lambda s: NAN if s["w"] == 2 else float(s["w"]))


def test_one_group_at_least():
    with pytest.raises(ValueError, match="at least one group"):
        multitask.best_groups(matrix(), at_most=0)


def test_reliability_needs_two_repeats():
    with pytest.raises(ValueError, match="two halves need at least two"):
        multitask.reliability([matrix()])
