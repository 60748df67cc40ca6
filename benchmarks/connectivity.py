"""Connectivity of EEG records, beside the packages that people use: time, ratio, and how far the numbers differ.

Run as ``python benchmarks/connectivity.py``; ``--quick`` takes seconds. One record of 19 channels, 60 s at 1 kHz, made
by a stable autoregression; one thread. References run in the same call on the same record: NumPy (correlation), SciPy
and mne-connectivity (coherence), mne-connectivity (phase lag), statsmodels (Granger causality, DTF, order). Times are
processor seconds, which other work on the machine changes less than wall time: the median of ``--repeats`` for ours,
for references one run. Where a reference loops over pairs or channels, ``--pairs`` ordered pairs and ``--left-out``
channels of it are run and the time is scaled to all (0: all). mne-connectivity is given epochs that are the very
segments, cut beforehand; its window is Hann's symmetric one and ours the periodic one, so it is compared on its own
window. DTF's reference is statsmodels' fit and a loop of NumPy over frequencies. "Difference" is the largest of any
entry. Then `connect`, which makes all five matrices and chooses the order, over a batch of records, and what 1 000 of
them would take.
"""

import argparse
import time
import warnings

import numpy as np
from machine import describe, row, table
from motorsweep.learn.connectivity import (
    ConnectivityConfig,
    coherence,
    connect,
    correlation,
    dtf,
    granger,
    phase_lag_index,
)
from motorsweep.learn.connectivity_arrays import Arrays
from motorsweep.learn.spectra import coherence_spectrum, phase_lag_spectrum, segment_spectra
from motorsweep.learn.var_models import select_order, spectral_radius
from scipy import signal

FMIN, FMAX = 1.0, 45.0


def main():
    from threadpoolctl import threadpool_limits

    arguments = parse()
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(describe(threads=1))
        print(
            f"- {arguments.channels} channels, {arguments.seconds:g} s, {arguments.rate:g} Hz, order {arguments.order}"
        )
        x = record(arguments, seed=0)
        table("measure", "ours, ms", "reference", "its time, s", "ratio", "largest difference")
        for each in (spectral, regressions):
            each(x, arguments)
        batch(arguments)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=19, help="(default 19)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a record (default 60)")
    parser.add_argument("--rate", type=float, default=1000.0, help="sampling rate, Hz (default 1000)")
    parser.add_argument(
        "--order", type=int, default=20, help="of autoregressions, and the largest to choose (default 20)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of our own measures (default 5)")
    parser.add_argument(
        "--pairs", type=int, default=12, help="ordered pairs of pairwise references; 0: all (default 12)"
    )
    parser.add_argument(
        "--left-out", type=int, default=2, help="channels left out in the conditional one; 0: all (default 2)"
    )
    parser.add_argument("--records", type=int, default=30, help="of the batch (default 30)")
    parser.add_argument("--quick", action="store_true", help="6 s, order 8, 4 pairs, 5 records")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.order, arguments.pairs, arguments.records = 6.0, 8, 4, 5
    return arguments


def record(arguments, seed):
    """A record (channels, samples), V, of a stable autoregression of order 3 with many couplings."""
    generator = np.random.default_rng(seed)
    c, samples = arguments.channels, round(arguments.seconds * arguments.rate)
    a = generator.normal(size=(3, c, c)) * 0.2 / np.sqrt(c)
    a[0, range(c), range(c)] += 0.6
    a *= min(1.0, 0.95 / spectral_radius(a)) ** np.arange(1, 4)[:, None, None]
    x = generator.normal(size=(samples, c))
    for t in range(3, samples):
        x[t] += a[0] @ x[t - 1] + a[1] @ x[t - 2] + a[2] @ x[t - 3]
    return 1e-5 * x.T.copy()


def taken(function, repeats=1):
    """Median processor seconds, and what it returned."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return float(np.median(times)), result


def compare(name, ours, reference, seconds, difference):
    mine, _ = ours
    row(name, f"{1e3 * mine:.1f}", reference, f"{seconds:.2f}", f"{seconds / mine:.1f}", f"{difference:.0e}")


def pairs_of(arguments):
    every = [(i, j) for i in range(arguments.channels) for j in range(arguments.channels) if i != j]
    chosen = np.random.default_rng(0).permutation(len(every))[: arguments.pairs or len(every)]
    return [every[k] for k in chosen], len(every) / len(chosen)


# ---- correlation, coherence, phase lag -------------------------------------------------------------------------------


def spectral(x, arguments):
    fs, repeats, length = arguments.rate, arguments.repeats, round(arguments.rate)
    ours = taken(lambda: correlation(x, fs), repeats)
    seconds, found = taken(lambda: np.corrcoef(x))
    compare("correlation", ours, "NumPy", seconds, abs(ours[1] - found).max())

    ours = taken(lambda: coherence(x, fs, fmin=FMIN, fmax=FMAX), repeats)
    seconds, (chosen, found) = taken(lambda: coherence_of_scipy(x, fs, length, arguments))
    difference = max(abs(ours[1][i, j] - value) for (i, j), value in zip(chosen, found))
    scale = arguments.channels * (arguments.channels - 1) / 2 / len(chosen)
    compare("coherence", ours, "SciPy, each pair once", seconds * scale, difference)

    epochs = np.lib.stride_tricks.sliding_window_view(x, length, axis=-1)[:, :: length // 2].swapaxes(0, 1).copy()
    of_mne(epochs[:3], "coh", fs)  # imports
    spectra = segment_spectra(x[None], fs, length, length // 2, (FMIN, FMAX), Arrays(np), window=np.hanning(length))
    seconds, found = taken(lambda: of_mne(epochs, "coh", fs))
    same = np.sqrt(coherence_spectrum(spectra)[0]).mean(axis=0)
    compare("coherence", ours, "mne-connectivity", seconds, off_diagonal(same - found))
    for name, method, weighted in (("phase lag index", "pli", False), ("the same, weighted", "wpli", True)):
        ours = taken(lambda weighted=weighted: phase_lag_index(x, fs, fmin=FMIN, fmax=FMAX, weighted=weighted), repeats)
        seconds, found = taken(lambda method=method: of_mne(epochs, method, fs))
        same = phase_lag_spectrum(spectra, weighted=weighted)[0].mean(axis=0)
        compare(name, ours, "mne-connectivity", seconds, off_diagonal(same - found))


def coherence_of_scipy(x, fs, length, arguments):
    chosen, _ = pairs_of(arguments)
    values = []
    for i, j in chosen:
        f, each = signal.coherence(x[i], x[j], fs, nperseg=length)
        values.append(each[(f >= FMIN) & (f <= FMAX)].mean())
    return chosen, values


def of_mne(epochs, method, fs):
    from mne_connectivity import spectral_connectivity_epochs

    found = spectral_connectivity_epochs(
        epochs, method=method, mode="fourier", sfreq=fs, fmin=FMIN, fmax=FMAX, faverage=True, verbose="error"
    )
    dense = found.get_data("dense")[:, :, 0]
    return dense + dense.T


def off_diagonal(matrix):
    return abs(matrix[~np.eye(len(matrix), dtype=bool)]).max()


# ---- Granger causality, DTF, order -----------------------------------------------------------------------------------


def regressions(x, arguments):
    from statsmodels.tsa.api import VAR

    fs, order, repeats = arguments.rate, arguments.order, arguments.repeats
    ours = taken(lambda: granger(x, fs, order), repeats)
    (chosen, scale), z = pairs_of(arguments), x / x.std(axis=1, keepdims=True)
    seconds, found = taken(lambda: [pair_of_statsmodels(z[[i, j]], order) for i, j in chosen])
    difference = max(abs(ours[1][i, j] - value) for (i, j), value in zip(chosen, found))
    compare(f"Granger, pairwise, order {order}", ours, f"statsmodels, × {scale:.1f}", seconds * scale, difference)

    ours = taken(lambda: granger(x, fs, order, conditional=True), repeats)
    once, full = taken(lambda: VAR(z.T).fit(order).sigma_u_mle.diagonal())
    left_out = list(range(arguments.channels))[: arguments.left_out or None]
    seconds, found = taken(lambda: [without(z, j, order) for j in left_out])
    scale = arguments.channels / len(left_out)
    difference = max(
        abs(np.delete(ours[1][:, j], j) - np.log(each / np.delete(full, j))).max() for j, each in zip(left_out, found)
    )
    compare("Granger, conditional", ours, f"statsmodels, × {scale:.1f}", once + seconds * scale, difference)

    ours = taken(lambda: dtf(x, fs, order, fmin=FMIN, fmax=FMAX), repeats)
    seconds, found = taken(lambda: dtf_of_statsmodels(z, fs, order))
    compare("DTF", ours, "statsmodels' fit, NumPy", seconds, abs(ours[1] - found).max())

    ours = taken(lambda: select_order(x, order), repeats)
    seconds, found = taken(lambda: VAR(z.T).select_order(order).ics["bic"])
    difference = abs(ours[1].values - 2 * np.log(x.std(axis=1)).sum() - found).max()
    compare(f"order, BIC, up to {order}", ours, "statsmodels", seconds, difference)


def pair_of_statsmodels(pair, order):
    from statsmodels.tsa.stattools import grangercausalitytests

    restricted, full = grangercausalitytests(pair.T, [order])[order][1][:2]
    return np.log(restricted.ssr / full.ssr)


def without(z, j, order):
    from statsmodels.tsa.api import VAR

    return VAR(np.delete(z, j, axis=0).T).fit(order).sigma_u_mle.diagonal()


def dtf_of_statsmodels(z, fs, order):
    from statsmodels.tsa.api import VAR

    coefficients, rows = VAR(z.T).fit(order).coefs, []
    for f in np.arange(FMIN, FMAX + 0.5):
        turns = np.exp(-2j * np.pi * f / fs * np.arange(1, order + 1))
        power = np.abs(np.linalg.inv(np.eye(len(z)) - np.tensordot(turns, coefficients, 1))) ** 2
        rows.append(power / power.sum(axis=1, keepdims=True))
    return np.mean(rows, axis=0)


# ---- a batch ---------------------------------------------------------------------------------------------------------


def batch(arguments):
    config, times = ConnectivityConfig(max_order=arguments.order, fmin_hz=FMIN, fmax_hz=FMAX), []
    for seed in range(arguments.records):
        x = record(arguments, seed)
        began, start = time.process_time(), time.perf_counter()
        found = connect(x, arguments.rate, config)
        times.append((time.process_time() - began, time.perf_counter() - start))
        assert np.isfinite(found.matrices).all()
    cpu, wall = np.array(times).sum(axis=0)
    low, middle, high = 1e3 * np.percentile(np.array(times)[:, 0], [25, 50, 75])
    print(
        f"\nAll five and the order, `connect`: {middle:.0f} ms of processor time a record (quartiles {low:.0f} to "
        f"{high:.0f}), {arguments.records} records {cpu:.1f} s ({wall:.1f} s by the clock); 1 000 records "
        f"{1000 * cpu / arguments.records:.0f} s ({1000 * wall / arguments.records:.0f} s) on one core."
    )


if __name__ == "__main__":
    main()
