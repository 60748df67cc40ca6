"""Predictors without a network, for the same table: what any mapper has to beat, and what none can.

Each is a known method from scikit-learn. All that is fitted (scalings, penalties, numbers of components, length scales)
sees the training trials alone. An input that does not vary over them, or a muscle that does not, leaves nothing to
fit: the prediction is then the training mean.
"""

from dataclasses import dataclass, field

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from ..errors import InputError
from . import scores
from .cells import CellResult, check_trials, nrmse_by_muscle, response_context
from .gaussian_process import fit_process
from .partial_least_squares import predict_pls
from .scaling import fit_scaling

RIDGE_ALPHAS = tuple(10.0**e for e in range(-4, 7))  # of features in [0, 1]
VOXEL_ALPHAS = tuple(10.0**e for e in range(-8, 5))  # of rows with a mean square of 1
_PLS_FOLDS = 5
_FEWEST_TRIALS = 3  # below it, leaving one out leaves nothing to fit
_COLUMNS = 2048  # voxels in float64 at once: 11 MB for 700 trials


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a predictor says of the evaluation trials, and the numbers that it found in the training trials.

    Parameters
    ----------
    prediction : array, shape (e, k)
        Scaled responses.
    sd : array, shape (e, k), optional
        Predictive standard deviation of one measured response, noise included.
    fitted : dict of arrays
        Penalty, components or length scales, by name.
    """

    prediction: np.ndarray
    sd: np.ndarray | None = None
    fitted: dict[str, np.ndarray] = field(default_factory=dict)


def fit_references(
    codes: np.ndarray | None,
    voxels: np.ndarray | None,
    positions: np.ndarray | None,
    intensity: np.ndarray | None,
    responses: np.ndarray,
    train: np.ndarray,
    evaluate: np.ndarray,
    expected: np.ndarray | None = None,
    seed: int = 0,
) -> CellResult:
    """Fit every predictor whose input is given, and score it on the evaluation trials.

    - ``mean``: each muscle's training mean.
    - ``ridge``: ridge regression on the scaled codes, one penalty for all muscles, chosen leaving one trial out.
    - ``pls``: partial least squares on the codes; 1 to 15 components, chosen by five folds of the training trials.
    - ``ridge_voxels``: ridge regression on the voxels themselves, in its dual form; penalty as above.
    - ``gp_position``: Gaussian process on coil position and intensity (squared exponential, a length scale for each of
      the two, white noise), with a predictive standard deviation. Its parameters are shared: they maximise the sum of
      the muscles' log-likelihoods (Rasmussen & Williams 2006, section 5.4.3), each muscle standardised. Matérn kernels
      and a length scale for each coordinate did not predict the real maps better.
    - ``best_possible``: the expected response, where a simulation knows it; its error is the noise alone.

    Parameters
    ----------
    codes : array, shape (t, n, n, n), or None
        Codes of all trials; None leaves out ``ridge`` and ``pls``, and so on for the other inputs.
    voxels : array, shape (t, v), or None
        Input volumes inside the mask, before scaling; float32 is not copied to float64.
    positions : array, shape (t, d), or None
        Coil position in m (or any coordinates of it).
    intensity : array, shape (t,), or None
        Stimulus intensity, in any unit; for ``gp_position`` only.
    responses : array, shape (t, k)
        Peak-to-peak responses in V.
    train, evaluate : int arrays
        Disjoint trials to fit on, and to score.
    expected : array, shape (t, k), optional
        Mean response in V given pose and intensity.
    seed : int
        Settles the folds of ``pls``.

    Returns
    -------
    CellResult
        Scores: NRMSE by name of the predictor. Arrays ``prediction_<name> (e, k)``, ``nrmse_muscle_<name> (k,)``,
        ``sd_gp_position (e, k)``; ``ridge_alpha, ridge_voxels_alpha, pls_components ()``; ``gp_position_length ()`` in
        the unit of positions and ``gp_position_intensity_length ()``, infinite where the input is constant, and
        ``gp_position_noise ()``, the share of variance that the process calls noise; and those that all cells have.
        No loss.

    Raises
    ------
    InputError
        Values that are not finite, inputs of other trials, or trials in both sets.

    Examples
    --------
    >>> responses = np.array([[0.0], [1.0], [1.0]])
    >>> fit_references(None, None, None, None, responses, [0, 1], [2]).scores
    {'mean': 0.5}
    """
    train, evaluate = check_trials(codes, responses, train, evaluate)
    sources = {
        "codes": None if codes is None else _scaled_codes(codes, train),
        "voxels": _checked("voxels", voxels, len(responses), train, evaluate),
        "place": _place(positions, intensity, len(responses), train, evaluate),
    }
    response_scaling = fit_scaling(responses, per="column", rows=train)
    measured = response_scaling.apply(np.asarray(responses, np.float64))
    found = {"mean": _mean(measured[train], len(evaluate))}
    for name, (source, fit) in REFERENCES.items():
        if sources[source] is not None:
            found[name] = _fit_what_varies(fit, sources[source], measured, train, evaluate, seed)
    if expected is not None:
        found["best_possible"] = Reference(prediction=response_scaling.apply(np.asarray(expected, float)[evaluate]))
    truth = measured[evaluate]
    return CellResult(
        scores={name: scores.nrmse(truth, each.prediction) for name, each in found.items()},
        arrays={
            **{f"prediction_{name}": each.prediction for name, each in found.items()},
            **{f"sd_{name}": each.sd for name, each in found.items() if each.sd is not None},
            **{f"nrmse_muscle_{name}": nrmse_by_muscle(truth, each.prediction) for name, each in found.items()},
            **{f"{name}_{key}": value for name, each in found.items() for key, value in each.fitted.items()},
            **response_context(measured, evaluate, response_scaling),
        },
        loss=[],
    )


def _mean(y: np.ndarray, count: int) -> Reference:
    return Reference(prediction=np.tile(y.mean(0), (count, 1)))


def _fit_what_varies(fit, x, measured, train, evaluate, seed) -> Reference:
    """The predictor's word on muscles that vary over the training trials; the mean, with its spread, on the others."""
    y = measured[train]
    prediction, sd = (np.tile(each(0), (len(evaluate), 1)) for each in (y.mean, y.std))
    active = np.ptp(y, axis=0) > 0
    fitted = {}
    gives_sd = fit is _gp_position
    if len(train) >= _FEWEST_TRIALS and active.any() and _varies(x, train):
        found = fit(x, train, evaluate, y[:, active], seed)
        prediction[:, active], fitted = found.prediction, found.fitted
        if gives_sd:
            sd[:, active] = found.sd
    return Reference(prediction=prediction, sd=sd if gives_sd else None, fitted=fitted)


def _varies(x, train) -> bool:
    """Whether some training row differs from the first by more than rounding."""
    first = x[train[0]]
    floor = 1e-12 * np.abs(first).max()
    return any(np.abs(x[i] - first).max() > floor for i in train[1:])


def _ridge(x, train, evaluate, y, seed) -> Reference:
    return _ridge_cv(x[train], x[evaluate], y, RIDGE_ALPHAS)


def _ridge_voxels(x, train, evaluate, y, seed) -> Reference:
    return _ridge_cv(*_eigen_features(x, train, evaluate), y, VOXEL_ALPHAS)


def _ridge_cv(x_train, x_evaluate, y, alphas) -> Reference:
    ridge = RidgeCV(alphas=alphas).fit(x_train, y)
    prediction = ridge.predict(x_evaluate).reshape(len(x_evaluate), -1)
    return Reference(prediction=prediction, fitted={"alpha": np.array(ridge.alpha_)})


def _eigen_features(x, train, evaluate) -> tuple[np.ndarray, np.ndarray]:
    """Centred rows of x (t, v) in the basis of the training rows' principal axes, their mean square made 1.

    The axes hold all that a linear predictor can see, so that ridge and partial least squares are the same in them,
    with at most as many columns as there are trials. They follow from the Gram matrix, summed in float64.
    """
    gram = np.zeros((len(train), len(train)))
    across = np.zeros((len(evaluate), len(train)))
    for start in range(0, x.shape[1], _COLUMNS):
        block = x[:, start : start + _COLUMNS]
        rows = block[train].astype(np.float64)
        centre = rows.mean(0)
        rows -= centre
        gram += rows @ rows.T
        across += (block[evaluate] - centre) @ rows.T
    size = np.trace(gram) / len(train)
    values, vectors = np.linalg.eigh(gram / size)
    kept = values > 1e-12 * values[-1]  # below it lies rounding, which the division would blow up
    root = np.sqrt(values[kept])
    return vectors[:, kept] * root, across @ vectors[:, kept] / (size * root)


def _pls(x, train, evaluate, y, seed) -> Reference:
    x_train, x_evaluate = _eigen_features(x, train, evaluate)
    folds = list(KFold(min(_PLS_FOLDS, len(y)), shuffle=True, random_state=seed).split(y))
    prediction, components = predict_pls(x_train, y, x_evaluate, folds)
    return Reference(prediction=prediction, fitted={"components": np.array(components)})


def _gp_position(x, train, evaluate, y, seed) -> Reference:
    spaces = {"length": x[:, :-1], "intensity_length": x[:, -1:]}
    scales = {}
    for name, space in spaces.items():
        known = space[train]
        spread = float(np.sqrt(known.var(axis=0).mean()))
        spaces[name] = (space - known.mean(axis=0)) / (spread or 1.0)
        if spread > 1e-12 * np.abs(known).max():
            scales[name] = spread
    used = [spaces[name] for name in scales] or [spaces["length"]]
    process = fit_process([space[train] for space in used], y)
    shape = (len(evaluate), y.shape[1])
    prediction, sd = process.predict(np.concatenate(used, axis=1)[evaluate], return_std=True)
    signal, *lengths, noise = np.exp(process.kernel_.theta)
    fitted = {"noise": np.array(noise / (noise + signal)), **dict.fromkeys(spaces, np.array(np.inf))}
    fitted |= {name: np.array(scale * length) for (name, scale), length in zip(scales.items(), lengths)}
    return Reference(prediction=prediction.reshape(shape), sd=sd.reshape(shape), fitted=fitted)


REFERENCES = {
    "ridge": ("codes", _ridge),
    "pls": ("codes", _pls),
    "ridge_voxels": ("voxels", _ridge_voxels),
    "gp_position": ("place", _gp_position),
}


def _scaled_codes(codes, train) -> np.ndarray:
    return fit_scaling(codes, rows=train).apply(np.asarray(codes, np.float64)).reshape(len(codes), -1)


def _place(positions, intensity, trials, train, evaluate) -> np.ndarray | None:
    """Coil position and, as the last column, intensity: 0 where it is not known."""
    positions = _checked("positions", positions, trials, train, evaluate)
    if positions is None:
        return None
    intensity = np.zeros(trials) if intensity is None else intensity
    intensity = _checked("intensity", np.reshape(intensity, (-1, 1)), trials, train, evaluate)
    return np.concatenate([positions, intensity], axis=1, dtype=np.float64)


def _checked(name, x, trials, train, evaluate) -> np.ndarray | None:
    if x is None:
        return None
    x = np.asarray(x)
    if x.ndim != 2 or len(x) != trials:
        raise InputError(
            f"references: {name} has shape {x.shape}, and there are responses of {trials} trials; a row for each trial "
            "is needed, in the same order. Give them as (trials, columns)."
        )
    bad = [i for i in (*train, *evaluate) if not np.isfinite(x[i]).all()]
    if bad:
        raise InputError(
            f"references: {name} of trial {bad[0]} holds values that are not finite, as do those of {len(bad) - 1} "
            "others; nothing could be predicted from them. Leave these trials out, or leave out this input."
        )
    return x
