import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from motorsweep.errors import InputError
from motorsweep.learn.connectivity import coherence, correlation, phase_lag_index
from motorsweep.learn.connectivity_arrays import Arrays
from motorsweep.learn.spectra import coherence_spectrum, phase_lag_spectrum, segment_spectra
from numpy.testing import assert_allclose
from scipy import signal

FS = 200.0


def _mixed(c=4, samples=4000, seed=0, lead=()):
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(c, c)) + 2 * np.eye(c)
    x = mixing @ generator.normal(size=(*lead, c, samples + 3))
    return np.stack([x[..., i, i % 3 : i % 3 + samples] for i in range(c)], axis=-2)


def test_correlation_is_numpys():
    x = _mixed() * 1e-5 + 3e-3
    assert_allclose(correlation(x, FS), np.corrcoef(x), atol=1e-12)


def test_band_correlation_is_that_of_filtered_signals():
    """Of two channels that share 8 to 12 Hz with opposite signs, and the rest with equal ones."""
    generator = np.random.default_rng(0)
    inside = signal.sosfiltfilt(signal.butter(6, (8, 12), "band", fs=FS, output="sos"), generator.normal(size=60_000))
    shared = signal.sosfiltfilt(signal.butter(6, (20, 60), "band", fs=FS, output="sos"), generator.normal(size=60_000))
    x = np.stack([inside + shared, shared - inside])
    found = correlation(x, FS, bands={"alpha": (9, 11), "high": (25, 55)})
    assert_allclose(found[:, 0, 1], [-1, 1], atol=1e-3)
    assert correlation(x, FS)[0, 1] == pytest.approx(np.corrcoef(x)[0, 1], abs=1e-12)


@pytest.mark.parametrize(("seconds", "overlap"), [(1.0, 0.5), (0.5, 0.75), (1.28, 0.0)])
def test_coherence_is_scipys_averaged_over_the_band(seconds, overlap):
    x, length = _mixed() * 1e-6 + 1e-3, round(seconds * FS)
    found = coherence(x, FS, fmin=8, fmax=30, segment_s=seconds, overlap=overlap)
    for i, j in [(0, 1), (2, 0), (1, 3), (2, 2)]:
        f, values = signal.coherence(x[i], x[j], FS, nperseg=length, noverlap=int(length * overlap))
        assert found[i, j] == pytest.approx(values[(f >= 8) & (f <= 30)].mean(), abs=1e-10)


def test_coherence_of_each_frequency_is_scipys():
    x = _mixed()
    found = coherence_spectrum(segment_spectra(x[None], FS, 256, 128, (0.0, FS / 2), Arrays(np)))[0]
    _f, values = signal.coherence(x[0], x[1], FS, nperseg=256)
    assert_allclose(found[:, 0, 1], values, atol=1e-10)


def _of_mne(epochs, method, fmin, fmax):
    connectivity = pytest.importorskip("mne_connectivity")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = connectivity.spectral_connectivity_epochs(
            epochs, method=method, mode="fourier", sfreq=FS, fmin=fmin, fmax=fmax, faverage=True, verbose="error"
        )
    dense = found.get_data("dense")[:, :, 0]
    return dense + dense.T


OF_MNE = {
    "pli": {},
    "pli2_unbiased": {"debiased": True},
    "wpli": {"weighted": True},
    "wpli2_debiased": {"weighted": True, "debiased": True},
}


@pytest.mark.parametrize("method", OF_MNE)
def test_phase_lag_indices_are_those_of_mne(method):
    """With its window (Hann's symmetric one) and segments that do not overlap, as its epochs."""
    x = _mixed(samples=60 * 200)
    epochs = x.reshape(4, 60, 200).swapaxes(0, 1)
    spectra = segment_spectra(x[None], FS, 200, 200, (8.0, 30.0), Arrays(np), window=np.hanning(200))
    found = phase_lag_spectrum(spectra, **OF_MNE[method])[0].mean(axis=0)
    reference = _of_mne(epochs, method, 8.0, 30.0)
    off = ~np.eye(4, dtype=bool)
    assert_allclose(found[off], reference[off], atol=1e-10)


def test_coherence_is_the_square_of_mnes():
    """Of one frequency: it averages the root over a band, and this the square."""
    x = _mixed(samples=60 * 200)
    epochs = x.reshape(4, 60, 200).swapaxes(0, 1)
    spectra = segment_spectra(x[None], FS, 200, 200, (10.0, 10.0), Arrays(np), window=np.hanning(200))
    found, reference = coherence_spectrum(spectra)[0, 0], _of_mne(epochs, "coh", 9.9, 10.1)
    off = ~np.eye(4, dtype=bool)
    assert_allclose(found[off], reference[off] ** 2, atol=1e-10)


def test_phase_lag_of_delayed_and_of_mixed_channels():
    """A delay is seen whatever the sizes; what reaches channels at once is not, not even by rounding."""
    source = np.random.default_rng(0).normal(size=20_004)
    x = np.stack([source[4:], 3.7 * source[4:], -0.1 * source[4:], source[:-4]])
    for weighted in (False, True):
        found = phase_lag_index(x, FS, fmin=5, fmax=20, weighted=weighted)
        assert_allclose(found[:3, :3], 0.0, atol=0)
        assert_allclose(found[3, :3], 1.0, atol=0.01)
        assert_allclose(found, found.T, atol=0)


def test_indices_of_unrelated_channels_have_their_bias_and_the_debiased_ones_none():
    x = np.random.default_rng(0).normal(size=(60, 2, 40 * 200))
    options = {"fmin": 2, "fmax": 90, "overlap": 0.0}
    n = 40
    # |mean of n signs| has expectation sqrt(2 / (π n)).
    assert phase_lag_index(x, FS, **options)[:, 0, 1].mean() == pytest.approx(np.sqrt(2 / (np.pi * n)), rel=0.03)
    assert coherence(x, FS, **options)[:, 0, 1].mean() == pytest.approx(1 / n, rel=0.03)
    for weighted in (False, True):
        found = phase_lag_index(x, FS, **options, weighted=weighted, debiased=True)[:, 0, 1]
        assert abs(found.mean()) < 0.001


@pytest.mark.parametrize("measure", [correlation, coherence, phase_lag_index])
def test_batches_bands_and_torch(measure):
    x, bands = _mixed(lead=(2, 3)), [("theta", 4, 8), (8, 30)]
    found = measure(x, FS, bands=bands)
    assert found.shape == (2, 3, 2, 4, 4)
    for at in np.ndindex(2, 3):
        assert_allclose(found[at], measure(x[at], FS, bands=bands), atol=1e-12)
    assert_allclose(measure(x, FS, bands=bands, device=torch.device("cpu")), found, atol=1e-10)
    assert_allclose(measure(x, FS, device=torch.device("cpu")), measure(x, FS, device="auto"), atol=1e-10)
    if measure is not correlation:
        assert_allclose(found[:, :, 1], measure(x, FS, fmin=8, fmax=30), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), measure=st.sampled_from([correlation, coherence, phase_lag_index]))
def test_order_and_units_of_channels(seed, measure):
    generator = np.random.default_rng(seed)
    x, order = _mixed(seed=seed, samples=1200), generator.permutation(4)
    units = 10 ** generator.uniform(-6, 6, size=(4, 1))
    offsets = generator.normal(size=(4, 1))
    found = measure(x, FS)
    assert_allclose(measure(x[order], FS), found[np.ix_(order, order)], atol=1e-12)
    assert_allclose(measure(units * (x + offsets), FS), found, atol=1e-9)
    assert_allclose(found, found.T, atol=0)


REFUSED = [
    (lambda x: coherence(x[:1], FS), "1 channel.s. found, and connectivity is between channels: at least 2"),
    (lambda x: coherence(x, FS, fmax=101), "1 to 101 Hz; edges must increase and lie between 0 and half"),
    (lambda x: coherence(x, FS, bands={"b": (9, 8)}), "the band 'b' is 9 to 8 Hz"),
    (lambda x: coherence(x, FS, bands=[(8.1, 8.9)]), "no frequency of the grid lies in the band 8.1 to 8.9 Hz"),
    (lambda x: coherence(x, FS, bands=[8, 13]), "are not understood; give pairs"),
    (lambda x: coherence(x, FS, bands=[]), "no band was given"),
    (lambda x: coherence(x[:, :250], FS), "250 samples at 200 Hz give fewer than two segments of 1 s"),
    (lambda x: phase_lag_index(x, FS, overlap=1.0), "overlapping by 1.0 mean nothing"),
    (lambda x: phase_lag_index(x, FS, segment_s=-1), "segments of -1 s"),
    (lambda x: correlation(x * [[1], [0], [1], [1]], FS), "correlation: channel 1 is flat"),
    (lambda x: correlation(x + np.inf, FS), "4800 sample.s. are NaN or infinite"),
    (lambda x: correlation(np.stack([x, x])[:, :, :0], FS), "none of them empty"),
    (lambda x: correlation(np.stack([x, x * [[1], [0], [1], [1]]]), FS), "channel 1 of record 1 is flat"),
    (lambda x: correlation(x, "fast"), "sampling rate is 'fast'"),
    (lambda x: correlation([["a", "b"]], FS), "of type <U1; give real numbers"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(_mixed(samples=1200))
