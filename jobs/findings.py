"""What a study found, in sentences that follow from its numbers."""

import numpy as np

from ..hpc.predictor_names import CEILING, FLOOR, LIMITS
from ..zarr_store.schema import CELL_DIMS, Status
from .conclusions import EMPTY, FAILS, HOLDS, OPEN
from .evidence import Evidence
from .ranking import mean_sd, range_text

_NAMED = 3  # predictors within chance of the best that are named; more are counted
_RIVALRY = {
    HOLDS: "{claim}, beyond chance.",
    OPEN: "{claim}: that cannot be told from chance.",
    FAILS: "{claim}: no, not one does.",
}


def summary(evidence: Evidence) -> list[str]:
    """Sum the study up: the best predictor, what is within chance of it, what networks add, and the paper's claims.

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
    'The lowest NRMSE on test trials is that of the 3-layer Both mapper on firing rate: 0.301 in one repeat, ...'
    """
    ranked = [each for each in evidence.ranking if each.known.size and each.key[1] not in LIMITS]
    networks = [each for each in ranked if each.is_network]
    none = [] if networks else ["No network of this study is finished yet."]
    if not ranked:
        return [*none, *_unfinished(evidence)]
    best = ranked[0]
    lead = f"The lowest NRMSE on test trials is that of {best.name}: {_score(best)}"
    limits = [f"{each.mean:.3f} for {each.name}" for each in _limits(evidence)]
    lead += f", against {_listed(limits)}." if limits else "."
    network = []
    if networks and not best.is_network:
        network = [f"The best network is {networks[0].name}: {_score(networks[0])}."]
    rivalry = [
        f"{_RIVALRY[each.verdict].format(claim=each.claim)} {each.figures}"
        for each in evidence.conclusions
        if not each.of_paper
    ]
    words = [*_within_chance(ranked), *_on_the_way(evidence, best), *network, *rivalry, *_verdicts(evidence)]
    return [*none, lead, *words, *_unfinished(evidence)]


def _score(predictor):
    repeats = f"over {predictor.known.size} repeats" if predictor.known.size > 1 else "in one repeat"
    interval = range_text(predictor.interval)
    return f"{mean_sd(predictor.known)} {repeats}" + (f" (95 % interval {interval})" if interval != "–" else "")


def _limits(evidence):
    """Training mean and best possible, where they are known."""
    found = {each.key[1]: each for each in evidence.ranking if not each.is_network}
    return [found[name] for name in (CEILING, FLOOR) if name in found]


def _listed(parts):
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _within_chance(ranked):
    close = [each.name for each in ranked if each.standing == "within chance"]
    if len(close) > _NAMED:
        how_many = "All" if len(close) == len(ranked) - 1 else f"{len(close)} of the {len(ranked) - 1}"
        return [f"{how_many} others are within chance of it."]
    return [f"Within chance of it: {_listed(close)}."] if close else []


def _on_the_way(evidence, best):
    limits = {each.key[1]: each.scores for each in _limits(evidence)}
    none = np.full(best.scores.size, np.nan)
    scores = np.array([limits.get(CEILING, none), best.scores, limits.get(FLOOR, none)])
    together = np.isfinite(scores[:2]).all(axis=0)  # a repeat that one lacks would compare other trials
    if not together.any():
        return []
    mean, reached, floor = scores[:, together].mean(axis=1)
    if reached >= mean:
        return ["It does not beat the training mean, so no model here has learned anything that holds on new trials."]
    if not mean > floor:
        return []
    way = (mean - reached) / (mean - floor)
    if way <= 1:
        return [f"It is {100 * way:.0f} % of the way from the training mean to the best possible score."]
    return [
        "It lies below the best possible prediction, which holds for trials on average: the difference is chance, with "
        f"{evidence.results.sizes['test']} test trials a repeat."
    ]


def _verdicts(evidence):
    verdicts = [each.verdict for each in evidence.conclusions if each.of_paper and each.verdict != EMPTY]
    if not verdicts:
        return []
    forms = {HOLDS: ("holds", "hold"), FAILS: ("does not hold", "do not hold"), OPEN: (OPEN, OPEN)}
    counts = {verdict: verdicts.count(verdict) for verdict in forms}
    words = _listed([f"{count} {forms[verdict][count > 1]}" for verdict, count in counts.items() if count])
    return [f"Of {len(verdicts)} conclusions of the paper that this study can test, {words}."]


def _unfinished(evidence):
    status = evidence.results["status"].values
    failed, pending = (int((status == int(state)).sum()) for state in (Status.FAILED, Status.PENDING))
    if not failed and not pending:
        return []
    words = [f"{number} {word}" for number, word in ((pending, "pending"), (failed, "failed")) if number]
    done = f"{status.size - failed - pending} of {status.size} trainings are done ({', '.join(words)})"
    return [f"{done}; the means are over those." if failed + pending < status.size else f"{done}."]


# ---- the two inputs -------------------------------------------------------------------------------------------------


def input_words(evidence: Evidence) -> list[str]:
    """Tell what an advantage of one input means here: it may be planted, or lost in a sigmoid."""
    found = next((each for each in evidence.conclusions if each.claim.startswith("Firing rate beats")), None)
    if found is None:
        return []
    sigmoid, lost = _sigmoid(evidence.trials), found.verdict == FAILS
    if simulated(evidence.trials):
        same = f"The responses were generated from the same sigmoid, with the same E50 and slope{sigmoid}, as the "
        same += "firing-rate input, so "
        if not lost:
            return [same + f"{'its' if found.verdict == HOLDS else 'any'} advantage is planted, not found."]
        return [
            same + "that input lacks nothing that they depend on. That raw |E| wins must come from how the input is "
            "scaled and encoded, or from the training."
        ]
    if lost:
        return [
            f"Raw |E| can win where the assumed sigmoid{sigmoid} flattens fields that still tell responses apart: what "
            "the input lost, no mapper can find again."
        ]
    return []


def simulated(trials) -> bool:
    """Whether the responses of a study are simulated."""
    return trials is not None and ("generative_model" in trials.attrs or "expected_response" in trials)


def _sigmoid(trials):
    attrs = trials.attrs if trials is not None else {}
    if "e50_v_per_m" not in attrs:
        return ""
    return f" (half at {attrs['e50_v_per_m']:.1f} V/m, slope {attrs.get('slope_v_per_m', float('nan')):.1f} V/m)"


# ---- parameters and criteria ----------------------------------------------------------------------------------------


def size_words(evidence: Evidence) -> str:
    """Say how many networks have more parameters than data; empty where none has, or where nobody can tell."""
    parameters, n = _parameters(evidence.results), responses_in_training(evidence)
    large = parameters[parameters >= n] if n else parameters[:0]
    if not large.size:
        return ""
    bounds = f"{large.min():,}" if large.min() == large.max() else f"{large.min():,} to {large.max():,}"
    who = "All networks have" if large.size == parameters.size else f"{large.size} of {parameters.size} networks have"
    return f"{who} more parameters than data: p = {bounds} for Nk = {n:,} responses."


def _parameters(results):
    """Most parameters of each network that is done in some repeat: (networks,)."""
    done = results["status"] == int(Status.DONE)
    sizes = results["n_parameters"].broadcast_like(results["status"]).where(done, 0).max("repeat").values.ravel()
    return sizes[sizes > 0].astype(int)


def criteria_words(evidence: Evidence) -> str:
    """Tell what BIC and AICc of this study can and cannot say."""
    results, n = evidence.results, responses_in_training(evidence)
    done = (results["status"] == int(Status.DONE)).transpose(*CELL_DIMS).values
    if not done.any():
        return "No model is finished yet."
    words = ["Both criteria are of the training residuals and count every weight as a free parameter."]
    words += [size] if (size := size_words(evidence)) else []
    if not results["criteria_valid"].transpose(*CELL_DIMS).values[done].all():
        words.append(
            "AICc (equation 11) needs p < Nk − 2. Where “valid” says no it is outside its domain: its penalty is "
            "negative there, and the number means nothing."
        )
    share = _penalty_share(results, done, n)
    if share:
        words.append(f"BIC (equation 10) ranks by size: its penalty p ln(Nk) is {share} the fit term Nk ln(variance).")
    return " ".join(words)


def responses_in_training(evidence: Evidence) -> int:
    """Nk: training trials times muscles; 0 where it is not known."""
    if evidence.trials is None:
        return 0
    return training_trials(evidence) * evidence.trials.sizes["muscle"]


def training_trials(evidence: Evidence) -> int:
    """Trials of the calibration set; 0 where they are not known."""
    test = (evidence.results["test_trial"].values >= 0).sum(axis=1)
    test = test[test > 0]
    return evidence.trials.sizes["trial"] - int(test[0]) if evidence.trials is not None and len(test) else 0


def _penalty_share(results, done, n):
    variance = results["residual_variance"].transpose(*CELL_DIMS).values[done]
    sizes = results["n_parameters"].broadcast_like(results["status"]).transpose(*CELL_DIMS).values[done]
    if not n or not (np.isfinite(variance) & (variance > 0)).all():
        return ""
    ratio = sizes * np.log(n) / np.maximum(np.abs(n * np.log(variance)), 1e-300)
    low, high = ratio.min(), ratio.max()
    return f"{low:.0f} to {high:.0f} times" if low >= 1 else ""
