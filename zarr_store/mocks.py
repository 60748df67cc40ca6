"""Small valid Datasets with random values, so that what reads a store can be tested without making one."""

import numpy as np
import xarray as xr

from .result_variables import empty_results
from .schema import (
    BASELINES,
    BOUNDS,
    CELL_DIMS,
    GRID_DIMS,
    STATUS_ATTRS,
    VOLUME_DIMS,
    Status,
    global_attrs,
)

MUSCLES = ("FDI", "APB", "ADM")


def mock_results(
    *, inputs=("e_norm", "firing_rate"), depths=(3, 6), connections=("direct", "synergy", "both"), repeats=(0, 1),
    muscles=MUSCLES, n_test=5, n_synergies=2, folds=(), dropouts=(0.15,), l1s=(1e-4,), trials=(), seed=0,
) -> xr.Dataset:  # fmt: skip
    """Build a results Dataset as `open_results` returns it, every cell done, with random scores.

    Parameters
    ----------
    inputs, depths, connections, repeats, muscles, folds, dropouts, l1s, trials : sequence
        Labels; with `folds` the variables of the cross-validation are there too, with `trials` those of the curve.
    n_test, n_synergies : int
        Sizes of ``test`` and ``synergy``.
    seed : int

    Examples
    --------
    >>> mock_results(repeats=(0,)).nrmse.sizes["repeat"]
    1
    """
    coords = {"input": inputs, "depth": depths, "connection": connections, "repeat": repeats, "muscle": muscles}
    coords |= {"baseline": BASELINES, "test": np.arange(n_test), "synergy": np.arange(n_synergies)}
    coords |= {"rank": np.arange(1, len(muscles) + 1), "bound": BOUNDS}
    grid = {"dropout": dropouts, "l1": l1s, "activation": ("relu",), "scaling": ("minmax",)}
    coords |= {"fold": folds, **grid} if len(folds) else {}
    coords |= {"trials": trials} if len(trials) else {}
    results = empty_results(coords, cross_validation=bool(len(folds)))
    rng = np.random.default_rng(seed)
    for name, variable in results.data_vars.items():
        if variable.dtype == np.float64:
            variable.values[...] = rng.uniform(0.1, 0.9, variable.shape)
        elif name.endswith("status"):
            variable.values[...] = Status.DONE
        elif name.endswith("run_id"):
            ids = [f"{number:016x}" for number in rng.integers(0, 2**62, variable.size)]
            variable.values[...] = np.array(ids, dtype=object).reshape(variable.shape)
    results["n_parameters"].values[...] = rng.integers(1e5, 6e5, results.n_parameters.shape)
    results["dropout_selected"].values[...] = dropouts[0]
    results["l1_selected"].values[...] = l1s[0]
    results["activation_selected"].values[...] = "relu"
    results["scaling_selected"].values[...] = "minmax"
    results["test_trial"].values[...] = np.arange(n_test)
    assert results.nrmse.dims == CELL_DIMS
    return results


def mock_volumes(*, poses=4, n=8, seed=0) -> xr.Dataset:
    """Build a volumes Dataset as `open_volumes` returns it, in memory, every pose done.

    Examples
    --------
    >>> mock_volumes(poses=2, n=8).e_norm.shape
    (2, 8, 8, 8)
    """
    rng = np.random.default_rng(seed)
    axis = (np.arange(n) - (n - 1) / 2) * 1e-3
    e_norm = rng.uniform(0, 1, (poses, n, n, n)).astype(np.float32)
    return xr.Dataset(
        {
            "e_norm": (VOLUME_DIMS, e_norm, {"units": "V m-1", "long_name": "electric field magnitude at 1 A/us"}),
            "status": ("pose", np.full(poses, Status.DONE, np.int8), STATUS_ATTRS),
            "tissue": (GRID_DIMS, np.full((n, n, n), 2, np.uint8)),
            "motor_mask": (GRID_DIMS, np.ones((n, n, n), bool)),
        },
        {dim: (dim, axis, {"units": "m"}) for dim in GRID_DIMS} | {"pose": np.arange(poses)},
        {**global_attrs("mock volumes"), "didt_a_per_s": 1e6},
    )


def mock_trials(*, trials=20, poses=4, muscles=MUSCLES, seed=0) -> xr.Dataset:
    """Build a trials Dataset that `write_trials` accepts.

    Examples
    --------
    >>> mock_trials(trials=3).response.dims
    ('trial', 'muscle')
    """
    rng = np.random.default_rng(seed)
    percent = rng.choice([110.0, 120.0, 130.0, 140.0], trials)
    response = rng.gamma(2.0, 2e-4, (trials, len(muscles)))
    return xr.Dataset(
        {
            "pose_index": ("trial", rng.integers(0, poses, trials)),
            "intensity_percent_rmt": ("trial", percent),
            "didt": ("trial", percent * 6e5),
            "response": (("trial", "muscle"), response),
            "expected_response": (("trial", "muscle"), 0.9 * response),
        },
        {"trial": np.arange(trials), "muscle": np.array(muscles, dtype=object)},
        {"id": "0123456789abcdef", "e50_v_per_m": 69.0, "slope_v_per_m": 4.8},
    )
