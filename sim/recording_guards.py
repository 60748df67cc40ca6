"""What a recording's header says, held against the file before a reader trusts it.

Readers take counts and offsets at their word: a damaged one becomes gigabytes or an endless loop. Layouts are those of
the EDF specification (edfplus.info), BioSemi's BDF, and of FIF's tags (big-endian kind, type, size, next).
"""

import importlib.util
import math
import struct
from dataclasses import dataclass
from itertools import accumulate

from ..errors import InputError, MissingPackageError
from .quotation import quoted

_MOST_CHANNELS = 4096
_MOST_RATE_HZ = 1e6
_FIELDS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)


@dataclass(frozen=True, kw_only=True)
class EdfChannels:
    """Channels and data records as an EDF or BDF header lists them.

    Attributes
    ----------
    names, units : tuple of str
        Without annotations.
    rates_hz : tuple of float
    rails : tuple of (float, float)
        Physical values of the smallest and largest digital value.
    plus, gaps : bool
        The file is an EDF+ or BDF+, which tells its records' onsets; one whose records need not follow on each other.
    records : int
        In the file, whatever its header says.
    record_s : float
        Duration of a data record, s.
    header_bytes, record_bytes : int
    annotations : tuple of (int, int)
        First byte and end of each annotation signal within a data record.
    """

    names: tuple
    units: tuple
    rates_hz: tuple
    rails: tuple
    plus: bool
    gaps: bool
    records: int
    record_s: float
    header_bytes: int
    record_bytes: int
    annotations: tuple


def edf_channels(path, size) -> EdfChannels:
    """Read an EDF or BDF header and refuse a file whose size it does not bear out.

    Parameters
    ----------
    path : Path
    size : int
        Bytes of the file.

    Raises
    ------
    InputError
        Where a field is no number, or the file is shorter than its header says.
    """
    with path.open("rb") as file:
        head = file.read(256)
        if len(head) < 256 or head[:8] not in (b"0       ", b"\xffBIOSEMI"):
            raise InputError(f"reading {path}: it does not begin as an EDF or BDF file does. Export it again.")
        wide = 3 if head[0] == 0xFF else 2
        count = int(_number(path, head[252:256], "number of signals", 1, _MOST_CHANNELS))
        rest = file.read(256 * count)
    if len(rest) < 256 * count:
        raise InputError(f"reading {path}: the file ends within its header of {count} signals. Copy it again.")
    columns, at = [], 0
    for width in _FIELDS:
        columns.append([rest[at + n * width : at + (n + 1) * width] for n in range(count)])
        at += width * count
    samples = [int(_number(path, field, "samples in a record", 1, 1e7)) for field in columns[8]]
    seconds = _number(path, head[244:252], "duration of a record", 0, 1e6)
    records = int(_number(path, head[236:244], "number of records", -1, 1e9))
    ends = [wide * end for end in accumulate(samples)]
    there = _check_size(path, size, 256 * (count + 1), records, ends[-1])
    names = [field.decode("utf-8", "replace").strip() for field in columns[0]]
    kept = [n for n in range(count) if names[n] not in ("EDF Annotations", "BDF Annotations")]
    if not kept or seconds <= 0:
        raise InputError(f"reading {path}: the header names no signal with a rate, so nothing was recorded in it.")
    if max(samples[n] / seconds for n in kept) > _MOST_RATE_HZ:
        raise InputError(f"reading {path}: the header gives a rate above {_MOST_RATE_HZ:g} Hz; it is damaged.")
    return EdfChannels(
        names=tuple(names[n] for n in kept),
        units=tuple(columns[2][n].decode("latin-1").strip() for n in kept),
        rates_hz=tuple(samples[n] / seconds for n in kept),
        rails=tuple(_rails(path, [columns[c][n] for c in (3, 4, 5, 6)], names[n]) for n in kept),
        plus=head[192:196] in (b"EDF+", b"BDF+"),
        gaps=head[192:197] in (b"EDF+D", b"BDF+D"),
        records=there,
        record_s=seconds,
        header_bytes=256 * (count + 1),
        record_bytes=ends[-1],
        annotations=tuple((ends[n] - wide * samples[n], ends[n]) for n in range(count) if n not in kept),
    )


def _number(path, field, what, least, most):
    text = field.decode("latin-1").strip("\0 ")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise InputError(f"reading {path}: the header's {what} is {quoted(text)}; it is damaged. Copy the file again.")
    return value


def _rails(path, fields, name):
    low, high, lowest, highest = (_number(path, field, f"range of {quoted(name)}", -1e12, 1e12) for field in fields)
    if low == high or lowest >= highest:
        raise InputError(
            f"reading {path}: the header gives {quoted(name)} the range {low:g} to {high:g} for {lowest:g} to "
            f"{highest:g}, so its values have no scale. Export the file again."
        )
    return low, high


def _check_size(path, size, header, records, each):
    """Whole records in the file."""
    there = (size - header) / each
    if there < 1 or (records >= 0 and there < records):
        raise InputError(
            f"reading {path}: the header promises {max(records, 1):g} records of {each} bytes and {there:.1f} are "
            "there, so the recording is cut short. Copy it again."
        )
    return int(there)


def check_fif(path, size):
    """Refuse a FIF file whose tags leave the file or lead backwards.

    Parameters
    ----------
    path : Path
    size : int
        Bytes of the file.

    Raises
    ------
    InputError
    """
    with path.open("rb") as file:
        at = 0
        while at + 16 <= size:
            file.seek(at)
            kind, _, length, following = struct.unpack(">iIii", file.read(16))
            if at == 0 and kind != 100:
                raise InputError(f"reading {path}: it does not begin as a FIF file does. Save it again with MNE.")
            if length < 0 or at + 16 + length > size or (following > 0 and following < at + 16 + length):
                raise InputError(
                    f"reading {path}: a tag at byte {at} of {length} bytes does not fit into the file, which is cut "
                    "short or damaged. Copy it again."
                )
            if following == -1:
                return
            at = following if following > 0 else at + 16 + length
    raise InputError(f"reading {path}: the file ends without its last tag, so it is cut short. Copy it again.")


def require_mne(doing):
    """Refuse, in one sentence that begins with `doing`, to go on without MNE.

    Raises
    ------
    MissingPackageError
    """
    if importlib.util.find_spec("mne") is None:
        raise MissingPackageError(
            f"{doing}: MNE, which reads EDF, BDF, BrainVision and FIF, is not installed; `make setup EXTRAS=eeg` "
            "installs it (or `pip install 'motorsweep[eeg]'`), and CSV, .mat and HDF5 need nothing."
        )
