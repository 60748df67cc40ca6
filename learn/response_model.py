"""The best predictor of muscle responses that we know to train: many small ones, weighted by left-out trials.

The family beside the paper's networks. Its members are kernel ridge regressions (means of Gaussian processes) on the
masked field, through several dose-response curves, and on position and intensity, of the response and of its root; a
bell-shaped recruitment field with a logarithmic link; and a hurdle model for responses that are often zero. Each is
scored on training trials that it left out, by the paper's NRMSE; members of a kind are averaged, the better the
heavier, and the kinds are stacked, or the best is taken where it is clearly better than the stack.
"""

from collections import defaultdict

import numpy as np

from ..errors import InputError
from .hurdle import FEWEST, fit_hurdle
from .kernel_bases import KernelBasis, kernel_bases, principal_axes, standardised
from .kernel_ridge import ridge, ridge_of_root
from .log_link import fit_log_link
from .response_prediction import ResponsePrediction, scatter
from .stacking import clearly_better, held_out_stack, score, stack_weights, tempered_weights

_HURDLE_BASES, _HURDLE_RANK = 4, 100
_BELL_PENALTIES = (0.3, 1.0, 3.0)


def fit_response_model(fields, positions, intensity, responses, train, evaluate, seed: int) -> ResponsePrediction:
    """Fit the family on the training trials, choose within it by trials left out, and predict the evaluation trials.

    Responses of evaluation trials are not looked at; those trials' fields and positions only where they are predicted.
    Members and weights are shared by the muscles, so that another muscle in the table may change the choice.

    Parameters
    ----------
    fields : array (t, v) or None
        Masked voxels of the model's input: |E| in V/m at the trial's dI/dt, or firing rate.
    positions : array (t, 3 or more) or None
        Place of the coil or of its field's maximum, m; more columns, such as the handle's direction, may follow.
    intensity : array (t,) or None
        % RMT; used with positions (fields hold it already).
    responses : array (t, k)
        Peak-to-peak amplitudes, V or in units of any range that begins at 0; not negative.
    train, evaluate : int arrays
        Disjoint trials; at least 2 for training.
    seed : int
        Of the folds by which the stack is scored; nothing else is drawn.

    Returns
    -------
    ResponsePrediction

    Raises
    ------
    InputError
        Neither fields nor positions, shapes that do not fit together, trials in both sets, values that are not
        finite, or negative responses.

    Examples
    --------
    >>> place = np.random.default_rng(0).normal(size=(60, 3)) * 0.015
    >>> response = np.exp(-((place / 0.01) ** 2).sum(1))[:, None]
    >>> fit_response_model(None, place, None, response, np.arange(50), np.arange(50, 60), seed=1).mean.shape
    (10, 1)
    """
    inputs = _check(fields, positions, intensity, responses, train, evaluate)
    fields, positions, intensity, measured, train, evaluate = inputs
    unit = measured.mean(0)
    responding = unit > 0
    unit = np.where(responding, unit, 1.0)
    used = measured[:, responding] / unit[responding]
    if used.shape[1] == 0:
        return _silent(measured, len(evaluate))
    members = _members(fields, positions, intensity, used, train, evaluate)
    family, candidates, weights, left_out, mean = _choose(members, used, seed)
    full_left_out, full_mean = np.zeros(measured.shape), np.zeros((len(evaluate), measured.shape[1]))
    full_left_out[:, responding], full_mean[:, responding] = left_out, mean
    full_left_out, full_mean = full_left_out * unit, full_mean * unit
    return ResponsePrediction(
        mean=full_mean,
        sd=scatter(full_left_out, measured, full_mean),
        family=family,
        candidates=candidates,
        weights=weights,
        left_out=full_left_out,
        measured=measured,
    )


# ---- members --------------------------------------------------------------------------------------------------------


def _members(fields, positions, intensity, responses, train, evaluate):
    """{kind: {name: (left out (n, k), predicted (e, k))}}, in units of each muscle's mean response."""
    average = _mean_of_others(responses), np.tile(responses.mean(0), (len(evaluate), 1))
    members = defaultdict(dict, {"mean": {"": average}})
    hurdle_bases = []
    for basis in kernel_bases(fields, positions, intensity, train, evaluate):
        of = "field" if basis.name.startswith("field") else "place"
        members[f"ridge on {of}"][basis.name] = ridge(basis, responses)[:2]
        members[f"ridge on {of}"][f"{basis.name}, of the root"] = ridge_of_root(basis, responses)
        if of == "place" and len(hurdle_bases) < _HURDLE_BASES:
            hurdle_bases.append(_truncated(basis))
    if positions is not None:
        members |= _recruitment_fields(positions, intensity, responses, train, evaluate, hurdle_bases)
    largest = responses.max(0)
    return {kind: {name: _within(parts, largest) for name, parts in found.items()} for kind, found in members.items()}


def _within(parts, largest):
    # A mean response lies within the responses; few trials let a bell or a root's exponent shoot far over them.
    return tuple(np.clip(part, 0, largest) for part in parts)


def _mean_of_others(responses):
    n = len(responses)
    return (responses.sum(0) - responses) / (n - 1)


def _truncated(basis: KernelBasis) -> KernelBasis:
    kept = slice(0, min(_HURDLE_RANK, int((basis.values > 1e-6 * basis.values[0]).sum())))
    parts = basis.vectors[:, kept], basis.values[kept], basis.evaluate[:, kept]
    return KernelBasis(name=basis.name, vectors=parts[0], values=parts[1], evaluate=parts[2])


def _recruitment_fields(positions, intensity, responses, train, evaluate, hurdle_bases):
    """Members whose logarithm of the mean is a parabola of the place: a bell over the cortex; and the hurdle model."""
    trend = _trend(positions, intensity, np.concatenate([train, evaluate]), len(train))
    trend = trend[: len(train)], trend[len(train) :]
    bells, hurdle = {}, {}
    for strength in _BELL_PENALTIES:
        penalty = np.r_[1e-3, np.full(trend[0].shape[1] - 1, strength)]
        fits = [fit_log_link(trend[0], y, penalty) for y in responses.T]
        predicted = np.column_stack([fit.predict(trend[1]) for fit in fits])
        bells[f"{strength:g}"] = np.column_stack([fit.left_out for fit in fits]), predicted
    zeros = (responses == 0).sum(0)
    often = (zeros >= FEWEST) & (len(responses) - zeros >= FEWEST)
    if often.any() and hurdle_bases:
        # A muscle that is hardly ever silent keeps its bell.
        left_out, predicted = (part.copy() for part in bells[f"{_BELL_PENALTIES[1]:g}"])
        for k in np.flatnonzero(often):
            left_out[:, k], predicted[:, k] = fit_hurdle(trend, hurdle_bases, responses[:, k])
        hurdle = {"hurdle": {"": (left_out, predicted)}}
    return {"bell": bells} | hurdle


def _trend(positions, intensity, used, n):
    """Ones, the place along two principal axes, its products, and other columns and the intensity as they are."""
    place = principal_axes(positions[used, :3], n)[:, :2]
    columns = [np.ones((len(used), 1)), place, place**2, place.prod(1, keepdims=True)]
    columns.append(standardised(positions[used, 3:], n))
    if intensity is not None:
        columns.append(standardised(intensity[used, None], n))
    return np.hstack(columns)


# ---- choice and uncertainty -----------------------------------------------------------------------------------------


def _choose(members, responses, seed):
    """Family, scores, weights, and left-out and evaluation predictions; all muscles in units of their range."""
    unit = responses.max(0)
    truth, candidates, weights, kinds = responses / unit, {}, {}, {}
    for kind, found in members.items():
        names = [f"{kind} {name}".strip() for name in found]
        parts = [np.stack([parts[i] for parts in found.values()]) / unit for i in (0, 1)]
        candidates |= {name: score(truth, part) for name, part in zip(names, parts[0])}
        inside = tempered_weights(parts[0], truth)
        kinds[kind] = [np.tensordot(inside, part, 1) for part in parts]
        weights[kind] = dict(zip(names, inside.tolist()))
    left_out, predicted = (np.stack([parts[i] for parts in kinds.values()]) for i in (0, 1))
    stacked = held_out_stack(left_out, truth, np.random.default_rng([seed, 1]))
    candidates |= {"stack": score(truth, stacked)}
    errors = ((left_out - truth) ** 2).sum((1, 2))
    best = list(kinds)[int(errors.argmin())]
    if clearly_better(kinds[best][0], stacked, truth):
        family, outer = best, (np.array(list(kinds)) == best).astype(float)
    else:
        family, outer = "stack", stack_weights(left_out, truth)
    flat = {name: w * share for w, kind in zip(outer.tolist(), kinds) for name, share in weights[kind].items()}
    return family, candidates, flat, *(np.tensordot(outer, part, 1) * unit for part in (left_out, predicted))


def _silent(measured, e):
    """No muscle ever responded: the expectation is that none will."""
    zeros = np.zeros((e, measured.shape[1]))
    return ResponsePrediction(
        mean=zeros,
        sd=zeros.copy(),
        family="mean",
        candidates={"mean": float("nan")},
        weights={"mean": 1.0},
        left_out=np.zeros(measured.shape),
        measured=measured,
    )


# ---- input ----------------------------------------------------------------------------------------------------------


def _check(fields, positions, intensity, responses, train, evaluate):
    train, evaluate = np.asarray(train, np.int64), np.asarray(evaluate, np.int64)
    responses = np.asarray(responses)
    if fields is None and positions is None:
        raise InputError("response model: there are neither fields nor positions to predict from; give one of them.")
    both = np.intersect1d(train, evaluate)
    if responses.ndim != 2 or len(train) < 2 or not len(evaluate) or len(both):
        raise InputError(
            f"response model: responses of shape {responses.shape}, {len(train)} training and {len(evaluate)} "
            f"evaluation trials, {len(both)} of them in both sets. It takes (trials, muscles), at least 2 trials to "
            "fit on, and others to predict."
        )
    used = np.concatenate([train, evaluate])
    inputs = {"fields": (fields, 2), "positions": (positions, 2), "intensity": (intensity, 1)}
    given = []
    for name, (value, dimensions) in inputs.items():
        if value is not None:
            value = np.asarray(value) if name == "fields" else np.asarray(value, np.float64)
            _check_input(name, value, dimensions, used, len(responses))
        given.append(value)
    measured = np.asarray(responses[train], np.float64)
    bad = np.argwhere(~(np.isfinite(measured) & (measured >= 0)))
    if len(bad):
        trial, muscle = train[bad[0][0]], bad[0][1]
        raise InputError(
            f"response model: the response of trial {trial}, muscle {muscle} (counted from 0) is "
            f"{measured[tuple(bad[0])]:g}, as {len(bad) - 1} others are not finite or below 0; a peak-to-peak "
            "amplitude is 0 or more. Leave these trials out, or give responses in V, not standardised."
        )
    return *given, measured, train, evaluate


def _check_input(name, value, dimensions, used, trials):
    columns = 3 if name == "positions" else 1
    if value.ndim != dimensions or len(value) != trials or (dimensions == 2 and value.shape[1] < columns):
        raise InputError(
            f"response model: {name} of shape {value.shape} do not belong to {trials} trials; the first axis must "
            f"count the trials{', the second at least x, y and z' if columns == 3 else ''}."
        )
    # Row by row: a copy of all fields, or a mask of their size, would not fit beside them.
    bad = [trial for trial in used if not np.isfinite(value[trial]).all()]
    if bad:
        raise InputError(
            f"response model: {name} of trial {bad[0]} hold values that are not finite, as do {len(bad) - 1} other "
            "trials; nothing can be predicted from them. Leave these trials out."
        )
