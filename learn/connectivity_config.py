"""What connectivity matrices are made of a record: measures, bands, and the autoregressions under some of them."""

import math
from dataclasses import dataclass

from ..errors import InputError
from .var_models import check_criterion
from .var_models_gram import check_order

MEASURES = ("correlation", "coherence", "phase_lag_index", "granger", "dtf")
PHASE_LAGS = ("phase_lag_index", "weighted_phase_lag_index")
_MORE_MEASURES = ("weighted_phase_lag_index", "full_frequency_dtf", "ddtf")
WHOLE = "whole"
"""Name of the first band, from `fmin_hz` to `fmax_hz`."""
_DOING = "connectivity"


@dataclass(frozen=True, kw_only=True)
class ConnectivityConfig:
    """What `connect` computes.

    Attributes
    ----------
    measures : tuple of str
        In this order; the five of `MEASURES`, and ``"weighted_phase_lag_index"``, ``"full_frequency_dtf"``, ``"ddtf"``.
    fmin_hz, fmax_hz : float
        The whole band, of coherence, phase lag and transfer functions.
    bands_hz : tuple of (name, low, high)
        Further bands, after the whole one.
    order : int
        Of the autoregressions, samples; 0 lets the criterion choose for each record.
    max_order : int
        Largest order to choose from, samples.
    max_order_ms : float
        The same in milliseconds, instead, where it is not 0: for records of several rates.
    criterion : str
        ``"aic"``, ``"bic"`` or ``"hqic"``, over the same samples for every order.
    granger : str
        ``"pairwise"`` or ``"conditional"``.
    regularise : float
        White noise that every channel counts as carrying besides, as a share of its variance, in everything
        autoregressive. The default, 60 dB below the signal, is less than any amplifier adds, and keeps records
        well-posed from which components were removed or whose high frequencies were filtered out; it is the same for
        all records, so that they can be compared. With 0 such records are refused.
    segment_s, overlap : float
        Fourier segments: length in seconds, and the share that the next one repeats.
    step_hz : float
        Distance of the frequencies at which transfer functions are taken.
    """

    measures: tuple[str, ...] = MEASURES
    fmin_hz: float = 1.0
    fmax_hz: float = 45.0
    bands_hz: tuple[tuple[str, float, float], ...] = ()
    order: int = 0
    max_order: int = 20
    max_order_ms: float = 0.0
    criterion: str = "bic"
    granger: str = "pairwise"
    regularise: float = 1e-6
    segment_s: float = 1.0
    overlap: float = 0.5
    step_hz: float = 1.0

    def __post_init__(self):
        known = MEASURES + _MORE_MEASURES
        wrong = [name for name in self.measures if name not in known]
        if wrong or not self.measures:
            raise InputError(
                f"connectivity: the measure {wrong[0]!r} is not known; choose from {', '.join(known)}."
                if wrong
                else f"connectivity: no measure was asked for; choose from {', '.join(known)}."
            )
        _refuse_doubled("measure", self.measures)
        _refuse_doubled("band", (WHOLE, *(name for name, *_ in self.bands_hz)))
        if self.granger not in ("pairwise", "conditional"):
            raise InputError(
                f'connectivity: granger = {self.granger!r} is not known; choose "pairwise" or "conditional".'
            )
        if self.granger == "conditional" and self.bands_hz and "granger" in self.measures:
            raise InputError(
                "connectivity: Granger causality by frequency is offered pairwise; leave out the bands, or take "
                'granger = "pairwise".'
            )
        if not 0 <= self.max_order_ms < math.inf:
            raise InputError(f"connectivity: max_order_ms is {self.max_order_ms!r}; give milliseconds, or 0 for none.")
        check_criterion(self.criterion, _DOING)
        check_order(self.order or self.max_order, _DOING)

    def longest(self, fs: float) -> int:
        """Largest order, samples, at a sampling rate."""
        if self.order:
            return self.order
        return max(1, round(self.max_order_ms * 1e-3 * fs)) if self.max_order_ms else self.max_order


def _refuse_doubled(what, names) -> None:
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise InputError(
            f"connectivity: the {what} {doubled!r} is there twice, so that its matrices could not be told apart by name"
            f"{' (the whole range has that name)' if doubled == WHOLE else ''}. Take one out, or rename it."
        )
