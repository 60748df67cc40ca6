"""What a study found, in sentences that follow from its numbers, and what they rest on."""

import json

import numpy as np

from ..zarr_store.schema import Status
from .evidence import INPUT_NAMES, Evidence

# Tables 1 and 2 of the M2M-Net paper, by (depth, connection).
PAPER_NRMSE = {
    "e_norm": {
        (3, "direct"): "0.658 ± 0.042", (3, "synergy"): "0.671 ± 0.049", (3, "both"): "0.661 ± 0.048",
        (6, "direct"): "0.644 ± 0.058", (6, "synergy"): "0.638 ± 0.053", (6, "both"): "0.630 ± 0.056",
    },
    "firing_rate": {
        (3, "direct"): "0.519 ± 0.048", (3, "synergy"): "0.505 ± 0.041", (3, "both"): "0.500 ± 0.043",
        (6, "direct"): "0.518 ± 0.045", (6, "synergy"): "0.516 ± 0.049", (6, "both"): "0.508 ± 0.049",
    },
}  # fmt: skip
PAPER_CRITERIA = {
    (3, "direct"): (1.221e6, -7.266e4), (3, "synergy"): (1.219e6, -7.320e4), (3, "both"): (2.501e6, -7.269e4),
    (6, "direct"): (2.552e6, -7.257e4), (6, "synergy"): (2.550e6, -7.239e4), (6, "both"): (5.164e6, -7.220e4),
}  # fmt: skip
_GENERATIVE = {
    "synergies": "{:g} planted synergies",
    "direct_share": "a share of {:g} of the drive by direct connections",
    "gain_sd": "log-normal gain from trial to trial, sd {:g} for all muscles together",
    "muscle_sd": "and sd {:g} for each muscle alone",
    "noise_v": "measurement noise sd {:.3g} µV",
}


def mean_sd(scores, digits=3) -> str:
    """Mean ± sample standard deviation over the repeats; with one repeat, no sd.

    Examples
    --------
    >>> mean_sd(np.array([0.5, 0.52])), mean_sd(np.array([0.5]))
    ('0.510 ± 0.014', '0.500')
    """
    scores = np.asarray(scores, float)
    text = f"{scores.mean():.{digits}f}"
    return f"{text} ± {scores.std(ddof=1):.{digits}f}" if len(scores) > 1 else text


def summary(evidence: Evidence) -> list[str]:
    """Sum the study up: the best model against the floors, then which input wins.

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    list of str
        Sentences; a word about what is not done yet comes last.

    Examples
    --------
    >>> summary(read_evidence("studies/quick"))[0]        # doctest: +SKIP
    'The best model is the 3-layer Both mapper on firing rate: NRMSE 0.500 ± 0.041 over 3 repeats, against ...'
    """
    models = evidence.models
    if not models:
        return ["No model of this study is finished yet.", *_unfinished(evidence)]
    best = models[0]
    repeats = f"over {len(best.scores)} repeats" if len(best.scores) > 1 else "in one repeat"
    text = f"The best model is the {best.name} on {INPUT_NAMES.get(best.input, best.input)}: "
    text += f"NRMSE {mean_sd(best.scores)} {repeats}"
    floors = _floors(evidence, best)
    text += f", against {_listed(floors)}." if floors else "."
    return [text, *_against_floors(evidence, best), *_inputs(evidence, best), *_unfinished(evidence)]


def _floors(evidence, best):
    words = {
        "mean": "the training mean",
        "ridge": "ridge on the same codes",
        "best_possible": "the best possible prediction",
    }
    found = {name: evidence.baseline(name, best.input) for name in words}
    return [f"{scores.mean():.3f} for {words[name]}" for name, scores in found.items() if len(scores)]


def _listed(parts):
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _against_floors(evidence, best):
    mean, ridge, floor = (evidence.baseline(name, best.input) for name in ("mean", "ridge", "best_possible"))
    if len(mean) and best.mean >= mean.mean():
        return ["It does not beat the training mean, so no model here has learned anything that holds on new trials."]
    words = []
    if len(mean) and len(floor) and mean.mean() > floor.mean():
        way = (mean.mean() - best.mean) / (mean.mean() - floor.mean())
        if way <= 1:
            words.append(f"That is {100 * way:.0f} % of the way from the training mean to the best possible score.")
        else:
            words.append(
                "It lies below the best possible prediction, which holds for trials on average: the difference is "
                f"chance, with {evidence.results.sizes['test']} test trials a repeat."
            )
    if len(ridge) and best.mean >= ridge.mean():
        words.append("It does not beat the linear ridge, so the network adds nothing here.")
    return words


def _inputs(evidence, best):
    """Compare firing rate and raw |E| for the best mapper, repeat by repeat, and then for every mapper."""
    results = evidence.results
    if not {"e_norm", "firing_rate"} <= {str(kind) for kind in results["input"].values}:
        return []
    raw, rate = _pairs(results, best.depth, best.connection)
    mappers = _mappers(results)
    if not len(raw):
        return ["For this mapper only one of the two inputs is done, so they cannot be compared yet.", *mappers]
    gain, wins = float(raw.mean() - rate.mean()), int((rate < raw).sum())
    values = f"{mean_sd(rate)} with firing rate, {mean_sd(raw)} with raw |E|"
    count = f"in {wins} of {len(rate)} repeats" if len(rate) > 1 else "in the one repeat"
    if gain > 0:
        share = f"{gain:.3f}, {100 * gain / raw.mean():.0f} %"
        text = f"Firing rate beats raw |E| for this mapper by {share} ({values}); it is lower {count}."
        return [text + _overlap(raw, rate, "can be chance"), *mappers, *_planted(evidence, "its advantage")]
    text = f"Firing rate does not beat raw |E| for this mapper: {values}; it is lower {count}."
    overlap = _overlap(raw, rate, "says nothing either way")
    if not overlap:
        text += f" The intervals do not overlap. {_why_raw_can_win(evidence, 'This')}"
    elif len(raw) == 1:  # nothing tells whether the gap is chance, so the reader gets both readings
        text += f"{overlap} {_why_raw_can_win(evidence, 'A difference beyond chance')}"
    else:
        return [text + overlap, *mappers, *_planted(evidence, "any advantage of it")]
    return [text, *mappers]


def _pairs(results, depth, connection):
    """Scores (raw |E|, firing rate) of a mapper in the repeats that both inputs have."""
    cell = results[["nrmse", "status"]].sel(depth=depth, connection=connection)
    nrmse = cell["nrmse"].where(cell["status"] == int(Status.DONE))
    raw, rate = (nrmse.sel(input=kind).values for kind in ("e_norm", "firing_rate"))
    both = np.isfinite(raw) & np.isfinite(rate)
    return raw[both], rate[both]


def _mappers(results):
    """Count the mappers where firing rate has the lower mean: the best one was picked by the scores it is told by."""
    pairs = [_pairs(results, depth, each) for depth in results["depth"].values for each in results["connection"].values]
    found = [(raw, rate) for raw, rate in pairs if len(raw)]
    if len(pairs) == 1 or not found:
        return []
    lower = sum(rate.mean() < raw.mean() for raw, rate in found)
    where = "" if len(found) == len(pairs) else f" where both inputs are done, of {len(pairs)} in all"
    return [
        "That mapper was picked by these same test scores. Mapper by mapper, the mean NRMSE with firing rate is lower "
        f"in {lower} of {len(found)} mappers{where}."
    ]


def _simulated(trials):
    return trials is not None and ("generative_model" in trials.attrs or "expected_response" in trials)


def _sigmoid(trials):
    attrs = trials.attrs if trials is not None else {}
    if "e50_v_per_m" not in attrs:
        return ""
    return f" (half at {attrs['e50_v_per_m']:.1f} V/m, slope {attrs.get('slope_v_per_m', float('nan')):.1f} V/m)"


def _planted(evidence, advantage):
    if not _simulated(evidence.trials):
        return []
    return [
        "The responses were generated from the same sigmoid, with the same E50 and slope"
        f"{_sigmoid(evidence.trials)}, as the firing-rate input, so {advantage} is planted, not found."
    ]


def _overlap(raw, rate, verdict):
    if len(raw) == 1:
        return f" With one repeat the spread between splits is unknown, so a small difference {verdict}."
    if abs(raw.mean() - rate.mean()) <= raw.std(ddof=1) + rate.std(ddof=1):
        return f" The intervals mean ± sd overlap, so by these {len(raw)} repeats alone the difference {verdict}."
    return ""


def _why_raw_can_win(evidence, what):
    sigmoid = _sigmoid(evidence.trials)
    if _simulated(evidence.trials):
        return (
            "The responses were generated from the same sigmoid, with the same E50 and slope"
            f"{sigmoid}, as the firing-rate input, so that input lacks nothing that they depend on. {what} must come "
            "from how the input is scaled and encoded, or from the training."
        )
    return (
        f"{what} can be so where the assumed sigmoid{sigmoid} flattens fields that still tell responses apart: "
        "what the input lost, no mapper can find again."
    )


def _unfinished(evidence):
    status = evidence.results["status"].values
    failed, pending = (int((status == int(state)).sum()) for state in (Status.FAILED, Status.PENDING))
    if not failed and not pending:
        return []
    words = [f"{number} {word}" for number, word in ((pending, "pending"), (failed, "failed")) if number]
    done = f"{status.size - failed - pending} of {status.size} trainings are done ({', '.join(words)})"
    return [f"{done}; the means are over those." if failed + pending < status.size else f"{done}."]


def criteria_words(evidence: Evidence) -> str:
    """Tell what BIC and AICc of this study can and cannot say."""
    results, n = evidence.results, responses_in_training(evidence)
    done = (results["status"] == int(Status.DONE)).values
    parameters = np.broadcast_to(results["n_parameters"].values[None, :, :, None], done.shape)[done]
    if not len(parameters):
        return "No model is finished yet."
    size = f"Nk = {n:,} responses" if n else "the number of responses Nk"
    words = ["Both criteria are of the training residuals and count every weight as a free parameter."]
    if not results["criteria_valid"].values[done].all():
        words.append(
            f"AICc (equation 11) needs p < Nk − 2. With {size} and p up to {parameters.max():,} it is outside its "
            "domain where “valid” says no: its penalty is negative there, and the number means nothing."
        )
    share = _penalty_share(results, done, parameters, n)
    if share is not None:
        words.append(f"BIC (equation 10) ranks by size: its penalty p ln(Nk) is {share} the fit term Nk ln(variance).")
    return " ".join(words)


def responses_in_training(evidence: Evidence) -> int:
    """Nk: training trials times muscles; 0 where it is not known."""
    if evidence.trials is None:
        return 0
    test = (evidence.results["test_trial"].values >= 0).sum(axis=1)
    test = test[test > 0]
    trials = evidence.trials.sizes["trial"] - int(test[0]) if len(test) else 0
    return trials * evidence.trials.sizes["muscle"]


def _penalty_share(results, done, parameters, n):
    variance = results["residual_variance"].values[done]
    if not n or not (np.isfinite(variance) & (variance > 0)).all():
        return None
    ratio = parameters * np.log(n) / np.maximum(np.abs(n * np.log(variance)), 1e-300)
    low, high = ratio.min(), ratio.max()
    return f"{low:.0f} to {high:.0f} times" if low >= 1 else None


def assumptions(evidence: Evidence) -> list[str]:
    """State what was assumed, not measured: threshold field, sigmoid, responses, head."""
    words = []
    notes = {} if evidence.volumes is None else evidence.volumes.attrs.get("notes", {})
    if notes.get("head_comment"):
        words.append(f"Head: {notes['head_comment']}.")
    if evidence.trials is None:
        return words
    attrs = evidence.trials.attrs
    if "rmt_e_v_per_m" in attrs:
        words.append(
            f"Resting motor threshold (RMT): the peak |E| in the brain within the mask at the hotspot pose is "
            f"{attrs['rmt_e_v_per_m']:.1f} V/m at 100 % RMT, which takes "
            f"{attrs.get('rmt_a_per_us', float('nan')):.1f} A/µs in the coil. This peak is the 99.9th percentile of "
            "these voxels; Fig. 1 shows the maximum."
        )
    if "e50_v_per_m" in attrs:
        words.append(
            f"Firing rate: a sigmoid of |E|, half at E50 = {attrs['e50_v_per_m']:.1f} V/m with a slope of "
            f"{attrs.get('slope_v_per_m', float('nan')):.1f} V/m. "
            "Its parameters are published for no human cortex; they are tied to the RMT."
        )
    return [*words, _responses(evidence.trials)]


def _responses(trials):
    if not _simulated(trials):
        return "Responses: as measured; the best possible prediction is not known."
    text = "Responses: simulated, not measured. A planted motor map turns firing rates, of the same sigmoid, E50 and "
    text += "slope as the firing-rate input, into muscle responses"
    try:
        model = json.loads(trials.attrs["generative_model"])
    except (KeyError, TypeError, ValueError):
        return f"{text}; their mean is the best possible prediction."
    parts = [
        form.format(model[key] * (1e6 if key == "noise_v" else 1)) for key, form in _GENERATIVE.items() if key in model
    ]
    return f"{text} ({', '.join(parts)}); their mean given pose and intensity is the best possible prediction."
