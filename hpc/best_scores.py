"""The best network and the best predictor without one, so far, from the records of runs."""

from ..zarr_store.schema import BASELINES
from .emg_names import BY_SUBJECT, CONTROLS, MEAN, NETWORKS, TRUTH, model_name
from .predictor_names import ANY_INPUT, BASELINE_NAMES, CONNECTION_NAMES, INPUT_NAMES, LIMITS


def best_scores(records: dict, expected: dict) -> list[dict]:
    """Return the best network and the best predictor without one so far, by NRMSE; the smallest first.

    Scores are means over what is done of a model: repeats of the test, or the folds of the cross-validation while no
    test is done. Of models with fewer of them than others have none is taken: few folds are lucky more easily.

    Of an eeg study those are its networks and the predictors beside them, over the folds of one split: the one that
    leaves subjects out where there is one. Controls, the mean matrix and the planted truth do not count.

    Parameters
    ----------
    records : dict
        As in :class:`.study_tally.RunTally`.
    expected : dict
        Stage to run ids that count.

    Returns
    -------
    list of dict
        ``model``, ``input`` ("" where it sees none), ``nrmse``, ``of`` ("test" or "validation"), ``count``, and whether
        it is a ``network``.
    """
    wanted = expected.get("train", {})
    matrices = [each for run_id, each in records.items() if run_id in wanted and each["kind"] in _MATRIX_KINDS]
    if matrices:
        return _best_matrices(matrices)
    tested, validated, others = {}, {}, {}
    for run_id, record in records.items():
        labels = record["labels"]
        if run_id not in wanted or record["status"] != "done" or labels.get("trials") is not None:
            continue
        if record["kind"] == "baseline":
            for name in set(BASELINES) - set(LIMITS):
                _add(others, (labels.get("input"), name), record["scores"].get(name))
        elif record["kind"] == "mapper":
            key = tuple(labels.get(name) for name in ("input", "depth", "connection"))
            grid = tuple(labels.get(name) for name in ("dropout", "l1", "activation", "scaling"))
            table, key = (tested, key) if labels.get("fold") is None else (validated, (*key, *grid))
            _add(table, key, record["scores"].get("nrmse"))
    networks = _best_of(tested, "test") or _best_of(validated, "validation")
    return sorted(networks + _best_of(others, "test"), key=lambda each: each["nrmse"])


def _add(table, key, score):
    if score is not None:
        table.setdefault(key, []).append(score)


def _best_of(table, of):
    most = max(map(len, table.values()), default=0)
    means = {key: sum(scores) / most for key, scores in table.items() if len(scores) == most}
    if not means:
        return []
    key = min(means, key=means.get)
    network = len(key) > 2
    kind = INPUT_NAMES.get(key[0], str(key[0]))
    model = f"{key[1]}-layer {CONNECTION_NAMES.get(key[2], key[2])}" if network else BASELINE_NAMES[key[1]]
    seen = "" if not network and key[1] in ANY_INPUT else kind
    return [{"model": model, "input": seen, "nrmse": means[key], "of": of, "count": most, "network": network}]


_MATRIX_KINDS = ("network", "predictor")


def _best_matrices(records):
    """Best network and best predictor of an eeg study, from its records."""
    done = [each for each in records if each["status"] == "done"]
    splits = dict.fromkeys(each["labels"]["split"] for each in records)
    split = BY_SUBJECT if BY_SUBJECT in splits else next(iter(splits))
    tables = {True: {}, False: {}}
    for each in done:
        labels = each["labels"]
        if labels["split"] == split and labels["model"] not in (*CONTROLS, MEAN, TRUTH):
            key = labels["model"], labels["optimizer"]
            _add(tables[labels["model"] in NETWORKS], key, each["scores"].get("nrmse"))
    found = []
    for network, table in tables.items():
        most = max(map(len, table.values()), default=0)
        means = {key: sum(scores) / most for key, scores in table.items() if len(scores) == most}
        if means:
            key = min(means, key=means.get)
            best = {"model": model_name(*key), "input": "", "nrmse": means[key], "of": "test", "count": most}
            found.append(best | {"network": network})
    return sorted(found, key=lambda each: each["nrmse"])
