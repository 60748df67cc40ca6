"""What the models, optimizers and splits of an eeg study are called, in files and for people."""

OURS = "stacked"
TUNED = "network_tuned"
"""The same network, with inputs and outputs scaled, a smaller rate and more epochs than the paper's."""

MODELS = ("network", TUNED, "mean", "ridge", "pls", OURS, "network_shuffled", "ridge_shuffled", "planted_truth")
"""All models, in the order of the results."""

NETWORKS = ("network", TUNED, "network_shuffled")
PREDICTORS = ("mean", "ridge", "pls", OURS, "ridge_shuffled", "planted_truth")
CONTROLS = ("network_shuffled", "ridge_shuffled")
"""They learn from pairs that do not belong together: what they reach shows what chance gives."""

MEAN, TRUTH, NO_OPTIMIZER = "mean", "planted_truth", "none"
PARTS = ("training", "validation", "test", "all")
METRICS = ("r2", "mse", "mae", "r")

BY_SUBJECT = "leave-one-subject-out"
"""The split whose test records are of subjects that no training has seen."""

MODEL_NAMES = {
    "network": "Network",
    TUNED: "Network, tuned",
    "mean": "Mean matrix",
    "ridge": "Ridge",
    "pls": "PLS",
    OURS: "Stacked ridge (ours)",
    "network_shuffled": "Network, shuffled pairs",
    "ridge_shuffled": "Ridge, shuffled pairs",
    "planted_truth": "Planted truth",
}
OPTIMIZER_NAMES = {"adam": "Adam", "sgdm": "SGD with momentum", "rmsprop": "RMSprop", NO_OPTIMIZER: ""}
SPLIT_NAMES = {
    "80-20": "80/20 by record",
    "70-10-20": "70/10/20 by record",
    "k-fold": "k-fold by record",
    BY_SUBJECT: "leave one subject out",
}
METRIC_NAMES = {"r2": "R²", "mse": "MSE", "mae": "MAE", "r": "r"}


def model_name(model, optimizer=NO_OPTIMIZER):
    """What people call a model, with its optimizer where it has one.

    Examples
    --------
    >>> model_name("network", "adam"), model_name("ridge")
    ('Network, Adam', 'Ridge')
    """
    name, how = MODEL_NAMES.get(model, model), OPTIMIZER_NAMES.get(optimizer, optimizer)
    return f"{name}, {how}" if how else name
