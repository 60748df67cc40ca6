"""Which files a recording consists of: those that its source names, and those that these lead to.

A FIF file may go on in others, as MNE and MEG devices split what is long; a BrainVision header names data and marks.
"""

import os
import re
import warnings
from pathlib import Path

from .recording_guards import check_fif, require_mne

NAMED = ("eeg", "emg", "eeg_table", "emg_table", "event_table")
"""Attributes of a `RecordingSource` that are files."""

_LARGEST_HEADER = 4 << 20
_SPLIT = re.compile(r"_split-(\d+)(?=_)")


def files_of(source) -> list[str]:
    """List the files that hold a record: those that its source names, then those that belong to these by format.

    Parameters
    ----------
    source : RecordingSource

    Returns
    -------
    list of str

    Raises
    ------
    MissingPackageError
        For a FIF file, if MNE is not installed.

    Examples
    --------
    >>> files_of(RecordingSource(eeg="a.vhdr"))                                       # doctest: +SKIP
    ['a.vhdr', 'a.eeg', 'a.vmrk']
    """
    named = [getattr(source, key) for key in NAMED if getattr(source, key)]
    return named + [str(path) for name in named for path in companions(name)]


def companions(path) -> list[Path]:
    """Files that are read with a file because it says so, and that are there.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    list of Path
        FIF: the files that it goes on in, to the last. BrainVision: data, then marks. Of a damaged file none; what is
        wrong with it is told by who reads it.

    Raises
    ------
    MissingPackageError
        For a FIF file, if MNE is not installed.
    """
    path = Path(path)
    if path.suffix.lower() == ".fif":
        return _fif_parts(path)
    return _brainvision_files(path) if path.suffix.lower() == ".vhdr" else []


def without_later_parts(paths) -> list[Path]:
    """Leave out FIF files that another one of them goes on in: they are read with it, and would be records twice.

    By what the files say; of BIDS names also where the first part is damaged.

    Parameters
    ----------
    paths : sequence of Path

    Returns
    -------
    list of Path
        In the order that they came in.
    """
    fif = [path for path in paths if path.suffix.lower() == ".fif"]
    later = {os.path.abspath(part) for path in fif for part in companions(path)}
    firsts = {}
    for path in fif:
        whole, number = _split_of(path)
        firsts[whole] = min(number, firsts.get(whole, number))
    later |= {os.path.abspath(path) for path in fif if _split_of(path)[1] > firsts[_split_of(path)[0]]}
    return [path for path in paths if os.path.abspath(path) not in later]


def _split_of(path):
    """A file's path without the BIDS entity "split", and that entity's number, 0 without one."""
    found = _SPLIT.search(path.name)
    return path.with_name(_SPLIT.sub("", path.name)), int(found[1]) if found else 0


def _fif_parts(path):
    require_mne(f"looking for the files that {path} goes on in")
    import mne

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_fif(path, path.stat().st_size)
            return [Path(each) for each in mne.io.read_raw_fif(path, verbose="error").filenames[1:]]
        except Exception:  # no such file, or damaged bytes, which MNE meets with almost any exception
            return []


def _brainvision_files(path):
    try:
        with path.open("rb") as file:
            header = file.read(_LARGEST_HEADER).decode("latin-1").split("[Comment]")[0]
    except OSError:
        return []
    data, marks = (_named_in(header, path, key) for key in ("DataFile", "MarkerFile"))
    beside = path.with_suffix(".vmrk")
    if marks and not marks.is_file():  # as after BIDS renamed it, and as MNE then does
        marks = beside
    return [each for each in (data, marks) if each and each.is_file()]


def _named_in(header, path, key):
    found = re.search(rf"^[ \t]*{key}[ \t]*[=:][ \t]*(\S.*?)\s*$", header, re.IGNORECASE | re.MULTILINE)
    if not found:
        return None
    written = found[1].encode("latin-1")
    named = [path.parent / written.decode(code, "replace") for code in ("utf-8", "cp1252")]
    return next((each for each in named if each.is_file()), named[0])
