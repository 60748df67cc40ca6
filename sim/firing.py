"""From the electric field to the firing rate of the neurons that it reaches."""

import numpy as np
from scipy.special import expit

from ..errors import InputError


def firing_rate(e_norm, e50: float, slope: float) -> np.ndarray:
    """Normalised firing rate of a neural ensemble in an electric field of given magnitude.

    A logistic dose-response curve, shifted and scaled so that no field gives exactly 0 and a very strong one 1::

        f(E) = (L(E) - L(0)) / (1 - L(0)),   L(E) = 1 / (1 + exp(-(E - e50) / slope))

    The sigmoid follows the dose-response of single neurons in the monkey (Mueller et al. 2014, PMC4115015). Its
    parameters are published for no human cortex, so `e50` and `slope` are assumptions, and are tied to the resting
    motor threshold (by default 1.15 and 0.08 times the peak field at threshold).

    Parameters
    ----------
    e_norm : array_like
        |E| in V/m, of any shape. NaN stays NaN.
    e50 : float
        Field at half of the maximum (of L; f is lower there by L(0)/2 or less), V/m, positive.
    slope : float
        Width of the curve, V/m, positive.

    Returns
    -------
    ndarray
        In [0, 1], same shape; float32 where `e_norm` is float32, else float64.

    Raises
    ------
    InputError
        Where `e50` or `slope` is not a positive number.

    Examples
    --------
    >>> firing_rate([0.0, 69.0, 138.0], e50=69.0, slope=4.8).round(4)
    array([0. , 0.5, 1. ])
    """
    for name, value in (("e50", e50), ("slope", slope)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(
                f"firing rate: {name} is {value!r} V/m, but the dose-response curve needs a positive field there. "
                f"Set [firing] {name}_of_rmt to a positive multiple of the field at motor threshold."
            )
    e = np.asarray(e_norm)
    kind = e.dtype.type if e.dtype in (np.float32, np.float64) else np.float64
    e50, slope = kind(e50), kind(slope)
    rest = expit(-e50 / slope)
    rate = expit((e.astype(kind, copy=False) - e50) / slope)
    return np.asarray((rate - rest) / (kind(1) - rest))
