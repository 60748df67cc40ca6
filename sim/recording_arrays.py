"""Recordings as arrays of MATLAB and HDF5 files. Nothing in such a file is run: arrays of objects are refused."""

import io
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from scipy.io import loadmat

from ..errors import InputError
from .matlab_layout import check_layout
from .quotation import quoted
from .recording_signals import Signals, channel_type, damaged, file_bytes, volts_of
from .solver_memory import free_bytes

SUFFIXES = (".mat", ".h5", ".hdf5", ".hdf")
LAYOUTS = ("auto", "channels, samples", "samples, channels")

_RATES = ("fs", "sfreq", "srate", "rate", "rate_hz", "fsample", "sampling_rate", "sample_rate", "samplingrate", "sr")
_NAMES = ("channels", "labels", "ch_names", "channel_names", "names", "chan", "label")
_MOST_GROWTH = 1032  # deflate packs at most about this many bytes into one
_LARGEST_CHANNELS = 1024
_LARGE_BYTES = 1 << 20


def read_arrays_of(path, *, eeg_array="", emg_array="", layout="auto") -> list[Signals]:
    """Read the arrays of a ``.mat`` (level 5 or 7.3) or HDF5 file that hold EEG and EMG.

    An array is a matrix of channels by samples or samples by channels. Which, is told by `layout`, by the number of
    channel names, or else by the shape: there are at least twice as many samples as channels. The rate is a number
    named ``fs``, ``sfreq``, ``srate``, ... beside the array (``eeg_fs`` for an array ``eeg``) or an attribute of it;
    one that stands for two arrays is marked as shared, for it may be true of one of them alone.

    Parameters
    ----------
    path : path-like
    eeg_array, emg_array : str
        Path of an array: ``eeg``, ``EEG.data`` (a field of a structure), ``/raw/eeg``. "" looks for an array whose
        name has ``eeg`` or ``emg`` in it, or takes the only matrix there is.
    layout : str
        "auto", "channels, samples" or "samples, channels".

    Returns
    -------
    list of Signals
        One for each array; two if EEG and EMG are two arrays.

    Raises
    ------
    InputError
        Naming the file, where it is damaged, lacks the array or has several that it could be, or where the array
        holds objects, text or complex numbers, or its channels cannot be told from its samples.

    Examples
    --------
    >>> read_arrays_of("s01.mat", eeg_array="EEG.data")[0].values.shape               # doctest: +SKIP
    """
    path = Path(path)
    size = file_bytes(path)
    with path.open("rb") as file:
        magic = file.read(520)
    is_hdf = b"\x89HDF\r\n\x1a\n" in magic
    if not is_hdf and path.suffix.lower() != ".mat":
        raise InputError(f"reading {path}: it does not begin as an HDF5 file does. Export it again.")
    try:
        arrays = _hdf(path, size) if is_hdf else _matlab(path)
        return _chosen(path, arrays, eeg_array, emg_array, layout)
    except InputError:
        raise
    except MemoryError as error:
        raise damaged(path, "recording that fits into memory", error, "Cut it into shorter files") from error
    except Exception as error:  # SciPy and h5py meet damaged bytes with almost any exception
        raise damaged(path, "MATLAB or HDF5 file", error) from error


def _matlab(path):
    """Everything in a level 5 file, by path: arrays, numbers, lists of text."""
    data = path.read_bytes()
    check_layout(data)
    found = {}

    def collect(value, name):
        if isinstance(value, dict):
            for key, item in value.items():
                if not key.startswith("__"):
                    collect(item, f"{name}.{key}" if name else key)
        else:
            found[name] = value

    collect(loadmat(io.BytesIO(data), simplify_cells=True), "")
    return found


def _hdf(path, size):
    """Everything in an HDF5 file, by path; `rate` and names kept as attributes become entries beside the array."""
    found = {}
    with h5py.File(path, "r") as file:
        names = []
        file.visit(names.append)
        for name in names:
            if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
                continue
            item = file[name]
            if not isinstance(item, h5py.Dataset) or name.startswith("#refs#"):
                continue
            if item.dtype.kind == "O" and item.ndim == 2 and h5py.check_dtype(ref=item.dtype):
                found[name] = _cells(file, item)
                continue
            _check_dataset(path, item, size)
            found[name] = _small_values(item)
            for key, value in item.attrs.items():
                found[f"{name}@{key}"] = value
        found.update({f"@{key}": value for key, value in file.attrs.items()})
    return found


def _small_values(item):
    """Values of a data set; of a large one zeros of its shape and type in no memory, until it is known to be needed."""
    if h5py.check_string_dtype(item.dtype):
        return item.asstr()[()]
    if item.nbytes > _LARGE_BYTES and item.dtype.kind in "fiu":
        return np.broadcast_to(np.zeros((), item.dtype), item.shape)
    return item[()]


def _values(path, arrays, name):
    """Values of an array, read now if `_small_values` has left that."""
    value = np.asarray(arrays[name])
    if value.nbytes <= _LARGE_BYTES or any(value.strides):
        return value
    with h5py.File(path, "r") as file:
        return file[name][()]


def _cells(file, item):
    """Texts of a MATLAB cell array (level 7.3)."""
    return np.array(["".join(map(chr, np.ravel(file[each][()])[:100].astype(int))) for each in np.ravel(item[()])])


def _check_dataset(path, item, size):
    if item.is_virtual or item.external:
        raise InputError(f"reading {path}: {quoted(item.name)} keeps its values in other files. Copy them into one.")
    if item.nbytes > min(free_bytes(), _MOST_GROWTH * size + 4096):
        raise InputError(
            f"reading {path}: {quoted(item.name)} should take {item.nbytes / 1e9:.1f} GB, more than there is memory or "
            "than the file can hold; it is damaged, or must be cut into shorter recordings."
        )


def _chosen(path, arrays, eeg_array, emg_array, layout):
    by_role = {"eeg": eeg_array, "emg": emg_array}
    found = {role: _find(path, arrays, role, name) for role, name in by_role.items()}
    names = [name for name in dict.fromkeys(found.values()) if name]
    if not names:
        matrices = _matrices(arrays)
        if len(matrices) != 1:
            raise InputError(
                f"reading {path}: which array holds the signals cannot be told; matrices of numbers are "
                f"{', '.join(map(quoted, matrices[:12])) or 'none'}, of all {quoted(', '.join(arrays))}. Say so with "
                "`eeg_array` and `emg_array`."
            )
        names = matrices
    roles = {name: role for role, name in found.items() if name and list(found.values()).count(name) == 1}
    signals = [_signals(path, arrays, name, roles.get(name, "") if len(names) > 1 else "", layout) for name in names]
    rates = [_beside(arrays, name, _RATES) for name in names]
    return [replace(each, shared_rate=bool(key) and rates.count(key) > 1) for each, key in zip(signals, rates)]


def _find(path, arrays, role, name):
    wanted = name.strip("/").replace("/", ".")
    by_dots = {key.replace("/", "."): key for key in arrays}
    if name and wanted not in by_dots:
        raise InputError(
            f"reading {path}: there is no array {quoted(name)}; found {quoted(', '.join(arrays))}. Correct "
            f"`{role}_array`."
        )
    if name:
        return by_dots[wanted]
    fitting = [key for key in _matrices(arrays) if role in key.lower()]
    if len(fitting) > 1:
        raise InputError(
            f"reading {path}: {', '.join(map(quoted, fitting[:12]))} could all be {role.upper()}. Say which with "
            f"`{role}_array`."
        )
    return fitting[0] if fitting else ""


def _matrices(arrays):
    return [
        name
        for name, value in arrays.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.ndim == 2 and min(value.shape) > 0
        if max(value.shape) > 1 and "@" not in name
    ]


def _signals(path, arrays, name, role, layout):
    value = _values(path, arrays, name)
    where = f"reading {path}, array {quoted(name)}"
    if value.dtype.kind not in "fiu":
        raise InputError(f"{where}: found {value.dtype} where numbers are needed; objects are not read. Save a matrix.")
    if value.ndim != 2 or min(value.shape) < 1:
        raise InputError(
            f"{where}: found shape {value.shape}, but a recording is a matrix of channels and samples. Save each "
            "recording (or epoch) as a matrix of its own."
        )
    names = _channel_names(arrays, name, value.shape)
    data = _channels_first(where, value, names, layout).astype(float)
    prefix = role.upper() or "ch"
    names = names if len(names) == len(data) else [f"{prefix}{n + 1}" for n in range(len(data))]
    rate = arrays.get(_beside(arrays, name, _RATES))
    rate = (
        float(np.ravel(rate)[0])
        if rate is not None and np.size(rate) == 1 and np.asarray(rate).dtype.kind in "fiu"
        else 0.0
    )
    unit = arrays.get(_beside(arrays, name, ("unit", "units")))
    volts = volts_of(unit) if isinstance(unit, str) else np.nan
    return Signals(
        what=str(path),
        values=data,
        names=tuple(names),
        types=tuple(role or channel_type(each) for each in names),
        volts=(volts,) * len(names),
        rate_hz=rate if np.isfinite(rate) and rate > 0 else 0.0,
        bad={},
    )


def _channels_first(where, value, names, layout):
    rows, columns = value.shape
    if layout != "auto":
        return value if layout.startswith("channels") else value.T
    if len(names) in value.shape and rows != columns:
        return value if rows == len(names) else value.T
    if min(rows, columns) > _LARGEST_CHANNELS or max(rows, columns) < 2 * min(rows, columns):
        raise InputError(
            f"{where}: of shape {value.shape} channels cannot be told from samples. Say so with `layout`: "
            f"{LAYOUTS[1]!r} or {LAYOUTS[2]!r}."
        )
    return value if rows < columns else value.T


def _beside(arrays, name, words):
    """Key of an entry that belongs to the array (its attribute, one with its name in it, or beside it); "" if none."""
    cut = max(name.rfind("."), name.rfind("/")) + 1
    folder, own = name[:cut], name[cut:]
    by_lower = {key.lower(): key for key in arrays}
    # What is the array's own, whatever its word, goes before what several arrays share.
    for form in (
        "{name}@{word}",
        "{folder}{own}_{word}",
        "{folder}{word}_{own}",
        "{folder}{word}",
        "{word}",
        "@{word}",
    ):
        for word in words:
            key = form.format(name=name, folder=folder, own=own, word=word).lower()
            if key in by_lower:
                return by_lower[key]
    return ""


def _channel_names(arrays, name, shape):
    found = arrays.get(_beside(arrays, name, _NAMES))
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, (list, np.ndarray)):
        return []
    texts = [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in np.ravel(found)]
    return [text.strip() for text in texts] if len(texts) in shape and all(isinstance(t, str) for t in texts) else []
