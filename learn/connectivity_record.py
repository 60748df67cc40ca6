"""All connectivity matrices of one record, with its Fourier segments and its products of lagged channels shared."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import InputError
from .connectivity_arrays import Arrays, Bands, arrays_on, averaged, bands_of, checked, standardised
from .connectivity_config import PHASE_LAGS, WHOLE, ConnectivityConfig
from .connectivity_transfer import TRANSFER_MEASURES, grid_of, partial_coherence, transfer_function, transfer_measure
from .granger import band_granger, conditional_granger, pairwise_granger, refuse_conditional, refuse_unstable
from .spectra import band_correlation, coherence_spectrum, phase_lag_spectrum, segment_samples, segment_spectra
from .var_models import chosen_order, order_criteria, standardised_fit
from .var_models_gram import covariance_rank, factor, lag_gram

_DOING = "connectivity"
# Instants per coefficient of an equation below which a note says so.
_FEW_SAMPLES = 10
# Share of a residual variance above which the noise floor is no longer a formality.
_MUCH_FLOOR = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Connectivity:
    """Connectivity matrices of one record.

    Attributes
    ----------
    matrices : ndarray (measure, band, c, c)
        [i, j] from j to i where directed. Band 0 is the whole one: for correlation and Granger causality the
        definitions in time, over all frequencies; for the others `fmin_hz` to `fmax_hz`.
    measures, bands : tuple of str
        Labels of the first two axes.
    order, order_ms : int, float
        Of the autoregressions; 0 and NaN where there was none.
    rank : int
        Of the covariance of the channels.
    notes : tuple of str
        What a reader must know.
    """

    matrices: np.ndarray
    measures: tuple[str, ...]
    bands: tuple[str, ...]
    order: int
    order_ms: float
    rank: int
    notes: tuple[str, ...]


def connect(x, fs, config: ConnectivityConfig | None = None, *, names=None, device="cpu") -> Connectivity:
    """All connectivity matrices of one record.

    Each is what the function of its name gives for the same options, with products of lagged channels and Fourier
    segments computed once.

    Parameters
    ----------
    x : array_like (channels, samples)
        One record, in any unit.
    fs : float
        Sampling rate, Hz.
    config : ConnectivityConfig, optional
        What to compute.
    names : sequence of str, optional
        Of the channels, for messages.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``.

    Returns
    -------
    Connectivity

    Raises
    ------
    InputError
        What the measures refuse: one channel, NaN, flat channels, too few samples, a fit that is not stable.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(4, 5000))
    >>> found = connect(x, 250.0, ConnectivityConfig(bands_hz=(("alpha", 8, 13),)))
    >>> found.matrices.shape, found.bands, found.order_ms
    ((5, 2, 4, 4), ('whole', 'alpha'), 4.0)
    """
    values = checked(x, fs, _DOING, names=names)
    if values.ndim != 2:
        raise InputError(f"connectivity: the array is {values.shape}; give one record (channels, samples).")
    z, _ = standardised(values)
    record = _Record(z[None], float(fs), config or ConnectivityConfig(), arrays_on(device))
    matrices = np.concatenate([record.measure(name) for name in record.config.measures])
    order = record.order if record.autoregressive else 0
    return Connectivity(
        matrices=matrices,
        measures=tuple(record.config.measures),
        bands=record.bands.names,
        order=order,
        order_ms=1e3 * order / fs if order else float("nan"),
        rank=record.rank,
        notes=tuple(record.notes()),
    )


@dataclass(frozen=True, eq=False)
class _Record:
    """One standardised record (1, c, samples), and what several measures need of it, each made once."""

    z: np.ndarray
    fs: float
    config: ConnectivityConfig
    space: Arrays

    @cached_property
    def bands(self) -> Bands:
        if set(self.config.measures) <= {"correlation", "granger"} and not self.config.bands_hz:
            return Bands((WHOLE,), ((0.0, self.fs / 2),))  # in time: no matter what the band would be
        whole = (WHOLE, self.config.fmin_hz, self.config.fmax_hz)
        return bands_of([whole, *self.config.bands_hz], self.fs, _DOING)

    @cached_property
    def further(self) -> Bands | None:
        return Bands(self.bands.names[1:], self.bands.edges[1:]) if len(self.bands.names) > 1 else None

    @cached_property
    def spectra(self):
        length, hop = segment_samples(self.z.shape[-1], self.fs, self.config.segment_s, self.config.overlap, _DOING)
        return segment_spectra(self.z, self.fs, length, hop, (self.bands.lowest, self.bands.highest), self.space)

    @cached_property
    def zero_lag(self) -> np.ndarray:
        return self.z @ self.z.swapaxes(-1, -2) / self.z.shape[-1]

    @property
    def autoregressive(self) -> bool:
        return bool({"granger", *TRANSFER_MEASURES} & set(self.config.measures))

    @cached_property
    def rank(self) -> int:
        return int(self.gram.rank[0] if self.autoregressive else covariance_rank(self.zero_lag)[0])

    @cached_property
    def gram(self):
        return lag_gram(self.z, self.config.longest(self.fs), self.space, _DOING, floor=self.config.regularise)

    @cached_property
    def fitted(self):
        return factor(self.gram, _DOING)

    @cached_property
    def order(self) -> int:
        if self.config.order:
            return self.config.order
        full = self.gram.rank[0] == self.gram.channels
        values = order_criteria(self.gram, self.config.criterion, _DOING, self.fitted if full else None)
        return int(chosen_order(values)[0])

    @cached_property
    def var(self) -> tuple[np.ndarray, np.ndarray]:
        coefficients, noise = standardised_fit(self.fitted, self.order)
        refuse_unstable(coefficients, _DOING)
        return coefficients, noise

    @cached_property
    def frequencies(self) -> np.ndarray:
        return grid_of((self.bands,), self.config.step_hz, _DOING)

    @cached_property
    def transfer(self) -> np.ndarray:
        return transfer_function(self.var[0], self.frequencies, self.fs, self.space)

    def measure(self, name: str) -> np.ndarray:
        """One measure, (1, band, c, c)."""
        if name == "correlation":
            return self._with_bands(self.zero_lag, self._correlation)
        if name == "coherence":
            return averaged(coherence_spectrum(self.spectra), self._welch_weights(), single=False)
        if name in PHASE_LAGS:
            weighted = name == "weighted_phase_lag_index"
            return averaged(phase_lag_spectrum(self.spectra, weighted=weighted), self._welch_weights(), single=False)
        if name == "granger":
            return self._with_bands(
                self._granger(), lambda further: band_granger(self.gram, self.order, further, self.fs)
            )
        partial = partial_coherence(*self.var, self.frequencies, self.fs) if name == "ddtf" else None
        whole = Bands(self.bands.names[:1], self.bands.edges[:1])
        return transfer_measure(name, self.transfer, partial, self.bands, whole, self.frequencies, _DOING)

    def _welch_weights(self) -> np.ndarray:
        return self.bands.weights(self.spectra.frequencies, _DOING)

    def _with_bands(self, whole: np.ndarray, of_bands) -> np.ndarray:
        if self.further is None:
            return whole[:, None]
        return np.concatenate([whole[:, None], of_bands(self.further)], axis=1)

    def _correlation(self, further: Bands) -> np.ndarray:
        return band_correlation(self.spectra, further.weights(self.spectra.frequencies, _DOING, total=True))

    def _granger(self) -> np.ndarray:
        if self.config.granger == "pairwise":
            return pairwise_granger(self.gram, self.order)
        refuse_conditional(self.gram)
        refuse_unstable(self.var[0], _DOING)
        return conditional_granger(self.fitted, self.order)

    def notes(self):
        """Sentences on what the numbers rest on."""
        c = self.z.shape[1]
        if self.rank < c:
            yield _rank_note(self.rank, c, self.config.regularise, self.autoregressive)
        if not self.autoregressive:
            return
        if not self.config.order and self.order == self.gram.order and self.order > 1:
            yield (
                f"The criterion chose the largest order offered, {self.order} samples "
                f"({1e3 * self.order / self.fs:g} ms): a longer one might be better."
            )
        if self.gram.samples < _FEW_SAMPLES * c * self.order:
            yield (
                f"Only {self.gram.samples / (c * self.order):.1f} instants per coefficient of an autoregression "
                f"({c} channels, order {self.order}): its measures are mostly chance."
            )
        share = self._share_of_floor()
        if share > _MUCH_FLOOR:
            yield (
                f"Up to {100 * share:.0f} % of what the past leaves unexplained is the noise floor of "
                f"{self.config.regularise:g}, which so decides what the autoregressions find: the signals hold little "
                "up to half of the sampling rate. Resample to about three times the highest frequency that is left."
            )

    def _share_of_floor(self) -> float:
        """Of a channel's residual variance, the largest: the floor is in the channel and, weighted, in its past."""
        if not self.config.regularise:
            return 0.0
        residual = np.einsum("bii->bi", self.space.get(self.fitted.residual_covariances()[:, self.order]))
        squares = (self.space.get(self.fitted.transposed_coefficients(self.order)) ** 2).sum(axis=1)
        return float((self.config.regularise * (1 + squares) / residual).max())


def _rank_note(rank: int, channels: int, floor: float, autoregressive: bool) -> str:
    what = f"The {channels} channels have rank {rank}: some follow exactly from the others."
    if not autoregressive:
        return what
    return (
        f"{what} The order is that of their {rank} principal components; transfer functions are of the autoregression "
        f"with a noise floor of {floor:g} of each variance, nearly the one of smallest norm, and depend on that choice."
    )
