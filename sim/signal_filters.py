"""Zero-phase filters for recordings: Butterworth bands and notches at the mains frequency and its harmonics.

Every filter runs forwards and backwards (scipy's ``sosfiltfilt``), so that it shifts nothing in time. Its gain is the
square of the single pass's: half the amplitude (-6 dB) at the edges of a band.
"""

import numpy as np
from scipy.signal import butter, firwin, freqz, freqz_sos, iirnotch, resample_poly, sosfiltfilt, tf2sos

from ..errors import InputError

ORDER = 4
"""Order of each edge of a band, single pass."""


def filter_sections(band_hz, rate_hz: float, *, notch_hz=0.0, notch_width_hz=2.0, doing="filtering") -> np.ndarray:
    """Second-order sections of a band and of the notches that lie in it.

    Parameters
    ----------
    band_hz : (low, high)
        0 leaves a side open.
    rate_hz : float
    notch_hz : float
        Mains frequency, 0 for no notches. Harmonics are notched up to one and a half times the band's upper edge, or to
        the Nyquist frequency.
    notch_width_hz : float
        Width of each notch at half its depth in power (single pass).
    doing : str
        For messages: what is being filtered.

    Returns
    -------
    ndarray (sections, 6)
        No rows where nothing is to be done.

    Raises
    ------
    InputError
        Where an edge or the notch lies at or above the Nyquist frequency, or the edges are not in order.
    """
    low, high = (float(edge) for edge in band_hz)
    nyquist = rate_hz / 2
    if not (0 <= low < np.inf and 0 <= high < np.inf) or (high and high <= low):
        raise InputError(
            f"{doing}: {low:g} to {high:g} Hz is not a band. Give a lower and a higher edge in Hz; 0 leaves a side "
            "open."
        )
    for edge, what in ((high, "upper edge"), (low, "lower edge"), (notch_hz, "notch")):
        if edge >= nyquist:
            raise InputError(
                f"{doing}: the {what} of {edge:g} Hz is not below the Nyquist frequency of {nyquist:g} Hz "
                f"({rate_hz:g} samples a second), so there is nothing to filter there. "
                + (f"Lower it, or 0 for no {what}." if what != "lower edge" else "Lower it, or record faster.")
            )
    if not (0 <= notch_hz < np.inf and 0 < notch_width_hz < np.inf):
        raise InputError(
            f"{doing}: a notch of {notch_width_hz:g} Hz width at {notch_hz:g} Hz means nothing. Give the mains "
            "frequency (50 or 60, 0 for no notch) and a positive width."
        )
    sections = [_band(low, high, rate_hz)]
    highest = min(1.5 * high, nyquist - notch_width_hz) if high else nyquist - notch_width_hz
    harmonics = np.arange(1, int(highest // notch_hz) + 1) * notch_hz if notch_hz else ()
    sections += [tf2sos(*iirnotch(hertz, hertz / notch_width_hz, fs=rate_hz)) for hertz in harmonics]
    return np.concatenate(sections)


def _band(low, high, rate_hz):
    if low and high:
        return butter(ORDER, (low, high), "bandpass", fs=rate_hz, output="sos")
    if low or high:
        return butter(ORDER, low or high, "highpass" if low else "lowpass", fs=rate_hz, output="sos")
    return np.empty((0, 6))


def zero_phase(signal, sections, rate_hz: float, *, doing="filtering") -> np.ndarray:
    """Filter forwards and backwards along the last axis.

    Before and after the signal its odd mirror image is filtered too, until the slowest section has rung down to 1 %.

    Parameters
    ----------
    signal : ndarray (..., samples)
    sections : ndarray (sections, 6)
        Of `filter_sections`.
    rate_hz : float
    doing : str
        For messages.

    Returns
    -------
    ndarray (..., samples)

    Raises
    ------
    InputError
        Where the signal is shorter than that mirror image.

    Examples
    --------
    >>> sections = filter_sections((1, 40), 250.0)
    >>> wave = np.sin(2 * np.pi * 10 * np.arange(2500) / 250)
    >>> bool(abs(zero_phase(wave, sections, 250.0) - wave)[500:2000].max() < 1e-3)
    True
    """
    if not len(sections):
        return np.array(signal, dtype=np.float64)
    edge = settling(sections)
    samples = np.shape(signal)[-1]
    if samples <= edge:
        raise InputError(
            f"{doing}: the signal has {samples} samples ({samples / rate_hz:.3g} s), the filter rings for {edge} "
            f"({edge / rate_hz:.3g} s), so all of it would be the filter's own start. Record longer, raise the "
            "band's lower edge or widen the notch."
        )
    return sosfiltfilt(sections, signal, axis=-1, padlen=edge)


def settling(sections) -> int:
    """Samples after which the slowest pole has decayed to 1 %."""
    radius = max(np.abs(np.roots(section[3:])).max() for section in sections)
    return int(np.ceil(np.log(0.01) / np.log(min(max(radius, 0.1), 1 - 1e-9))))


def power_gain(sections, rate_hz: float, frequencies_hz) -> np.ndarray:
    """What `zero_phase` does to power at frequencies in Hz: the fourth power of the single pass's gain."""
    frequencies_hz = np.asarray(frequencies_hz, dtype=np.float64)
    if not len(sections):
        return np.ones(frequencies_hz.shape)
    return np.abs(freqz_sos(sections, worN=frequencies_hz, fs=rate_hz)[1]) ** 4


def decimated(signal, step: int) -> np.ndarray:
    """Every `step`-th sample along the last axis, after a low-pass filter without delay at half of the new rate.

    Beyond its ends the signal goes on along the line from its first to its last sample, so that an offset or a drift,
    which an electrode's may be a thousand times the signal, leaves no step there.

    Parameters
    ----------
    signal : ndarray (..., samples)
    step : int
        1 leaves the signal as it is.

    Returns
    -------
    ndarray (..., samples / step, rounded up)

    Examples
    --------
    >>> offset = decimated(np.full(1000, 7.0), 4)
    >>> offset.shape, bool(np.abs(offset - 7).max() < 1e-9)
    ((250,), True)
    """
    if step == 1:
        return signal
    return resample_poly(signal, 1, step, axis=-1, window=_low_pass(step), padtype="line")


def decimation_gain(step: int, rate_hz: float, frequencies_hz) -> np.ndarray:
    """What the filter of `decimated` does to power at frequencies in Hz; `rate_hz` is that before."""
    frequencies_hz = np.asarray(frequencies_hz, dtype=np.float64)
    if step == 1:
        return np.ones(frequencies_hz.shape)
    return np.abs(freqz(_low_pass(step), worN=frequencies_hz, fs=rate_hz)[1]) ** 2


def _low_pass(step):
    """Taps of the filter that scipy's `resample_poly` uses by default."""
    return firwin(2 * 10 * step + 1, 1 / step, window=("kaiser", 5.0))
