"""Transfer functions of vector autoregressions: directed transfer function, full-frequency and direct.

With A(f) = I - Σ_k A_k exp(-2πi f k / fs) and H(f) = A(f)⁻¹, noise into channel j comes out of channel i as H_ij(f).
The functions here take coefficients, known or fitted; `connectivity.dtf` and its sisters take recordings.
"""

import numpy as np

from ..errors import InputError
from .connectivity_arrays import Arrays, Bands, averaged

TRANSFER_MEASURES = ("dtf", "full_frequency_dtf", "ddtf")


def inverse_transfer(coefficients, frequencies, fs: float) -> np.ndarray:
    """A(f), complex (…, f, c, c), of coefficients (…, order, c, c) at frequencies (f,), Hz."""
    a, f = np.asarray(coefficients, np.float64), np.asarray(frequencies, np.float64)
    *lead, p, c, _ = a.shape
    turn = np.outer(f, np.arange(1, p + 1)) * (2 * np.pi / fs)
    flat = a.reshape(*lead, p, c * c)
    out = np.empty((*lead, len(f), c * c), np.complex128)
    out.real, out.imag = -(np.cos(turn) @ flat), np.sin(turn) @ flat
    out.real += np.eye(c).ravel()
    return out.reshape(*lead, len(f), c, c)


def transfer_function(coefficients, frequencies, fs: float, space: Arrays | None = None) -> np.ndarray:
    """H(f), complex (…, f, c, c), entry [i, j] from noise in j to channel i.

    Examples
    --------
    >>> transfer_function(np.array([[[0.5]]]), [0.0], 100.0).ravel()
    array([2.+0.j])
    """
    a, space = inverse_transfer(coefficients, frequencies, fs), space or Arrays(np)
    return space.get(space.xp.linalg.inv(space.put(a)))


def dtf_of_transfer(transfer: np.ndarray) -> np.ndarray:
    """Squared, normalised DTF (…, f, c, c): |H_ij|² / Σ_m |H_im|² (Kamiński and Blinowska 1991; the paper's eq. 4)."""
    power = transfer.real**2 + transfer.imag**2
    return power / power.sum(axis=-1, keepdims=True)


def full_frequency_of_transfer(transfer: np.ndarray, range_weights: np.ndarray) -> np.ndarray:
    """F² (…, f, c, c): |H_ij(f)|² / Σ_f Σ_m |H_im(f)|² (Korzeniewska et al. 2003; the paper's eq. 6).

    The sum over f runs over the frequencies whose `range_weights` (f,) is not zero.
    """
    power = transfer.real**2 + transfer.imag**2
    total = np.einsum("f,...fim->...i", (range_weights > 0).astype(np.float64), power, optimize=True)
    return power / total[..., None, :, None]


def partial_coherence(coefficients, noise_covariance, frequencies, fs: float) -> np.ndarray:
    """Squared partial coherence (…, f, c, c) of a VAR: |G_ij|² / (G_ii G_jj), with G(f) the inverse of the spectrum.

    What two channels share at f beyond what all others explain (Dahlhaus 2000; C² of the paper's eq. 6); the diagonal
    is 1. As G = Aᴴ Σ⁻¹ A, nothing is inverted that a zero of the spectrum could spoil.

    Examples
    --------
    >>> chain = np.zeros((1, 3, 3))
    >>> chain[0, 1, 0] = chain[0, 2, 1] = 1.0
    >>> partial_coherence(chain, np.eye(3), [10.0], 100.0)[0].round(3)  # 0 and 2 only through 1
    array([[1.  , 0.25, 0.  ],
           [0.25, 1.  , 0.5 ],
           [0.  , 0.5 , 1.  ]])
    """
    a = inverse_transfer(coefficients, frequencies, fs)
    root = np.linalg.cholesky(np.asarray(noise_covariance, np.float64))
    whitened = np.linalg.solve(np.broadcast_to(root[..., None, :, :], a.shape), a)
    inverse = np.swapaxes(whitened.conj(), -1, -2) @ whitened
    power = np.einsum("...ii->...i", inverse).real
    return (inverse.real**2 + inverse.imag**2) / (power[..., :, None] * power[..., None, :])


def grid_of(bands: tuple[Bands, ...], step_hz: float, doing: str) -> np.ndarray:
    """Multiples of a step, Hz, over everything that some bands span.

    Raises
    ------
    InputError
        A step that is not above zero, or so large that no multiple of it lies there.
    """
    if not (np.isfinite(step_hz) and step_hz > 0):
        raise InputError(f"{doing}: the step between frequencies is {step_hz!r}; give hertz above zero.")
    frequencies = Bands((), tuple(edges for each in bands for edges in each.edges)).grid(step_hz)
    if not len(frequencies):
        raise InputError(f"{doing}: no multiple of {step_hz:g} Hz lies in the bands; give a smaller step.")
    return frequencies


def transfer_measure(kind: str, transfer, partial, bands: Bands, whole: Bands, frequencies, doing: str) -> np.ndarray:
    """One of `TRANSFER_MEASURES` in bands, (…, band, c, c), of a transfer function (…, f, c, c).

    DTF is the mean over a band; the two others, which are shares of everything within `whole`, are sums over it.
    `partial` is the squared partial coherence (…, f, c, c), for dDTF.

    Raises
    ------
    InputError
        A band that is not within the whole range, of which it should be a share.
    """
    if kind == "dtf":
        return averaged(dtf_of_transfer(transfer), bands.weights(frequencies, doing), single=False)
    if bands.lowest < whole.lowest or bands.highest > whole.highest:
        raise InputError(
            f"{doing}: a band reaches outside {whole.lowest:g} to {whole.highest:g} Hz, of whose inflow it should be a "
            "share; widen fmin and fmax, or narrow the band."
        )
    share = full_frequency_of_transfer(transfer, whole.weights(frequencies, doing)[0])
    if kind == "ddtf":
        share = share * partial
    return averaged(share, bands.weights(frequencies, doing, total=True), single=False)
