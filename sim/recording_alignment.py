"""EEG's and EMG's clocks, and how they lie to each other."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from .recording_clocks import Clock, fit_clock
from .recording_signals import Signals

SHORTEST_S = 0.5
"""Two clocks have something in common from this long an overlap on, s."""

_DAY_S = 86400.0
_UNLIKE_SHARE, _UNLIKE_S = 0.01, 1.0


def with_clock(signals: Signals, source, role) -> tuple[Signals, Clock]:
    """Clock of a file's signals, from their `start_s` on, and the signals with events at its times.

    A stated rate counts before what the file says or its stamps show; where they differ, a note tells both.

    Parameters
    ----------
    signals : Signals
    source : RecordingSource
    role : str
        "eeg" or "emg".

    Raises
    ------
    InputError
        Where there is neither a rate nor time stamps, the stamps are of no use, or another rate is stated than that of
        an interrupted recording.
    """
    stated = getattr(source, f"{role}_rate_hz")
    what = Path(signals.what).name
    rate = stated or signals.rate_hz
    notes = ()
    if stated and signals.rate_hz and abs(signals.rate_hz / stated - 1) > 1e-6:
        if signals.gap_s:
            raise InputError(
                f"reading {signals.what}: the recording was interrupted, and its samples and events have their times "
                f"from the file, which has {signals.rate_hz:g} Hz; {stated:g} Hz would part them. Leave out "
                f"`{role}_rate_hz`, or export each part as a file."
            )
        told = f"{what}: {role.upper()} is taken at {stated:g} Hz as stated; the file says {signals.rate_hz:g} Hz"
        table = role == "eeg" and source.event_table
        notes = (f"{told}; times in {Path(table).name} stay as they are" if table else told,)
    if signals.stamps_s is not None:
        clock = fit_clock(
            signals.stamps_s, signals.values, what, kind=source.clock, rate_hz=stated, gap_s=signals.gap_s
        )
        return signals, replace(clock, rate_hz=_own_rate(clock, signals), notes=(*notes, *clock.notes))
    if not rate:
        raise InputError(
            f"reading {signals.what}: it has neither time stamps nor a rate, so nothing has a frequency. Give "
            f"`{role}_rate_hz`."
        )
    if notes:
        # The file's events are at samples, whose times it reckoned with its own rate.
        slower = signals.rate_hz / rate
        moved = (replace(e, onset_s=e.onset_s * slower, duration_s=e.duration_s * slower) for e in signals.events)
        signals = replace(signals, events=tuple(moved))
    places = np.arange(signals.values.shape[1])
    return signals, Clock(start_s=0.0, rate_hz=rate, places=places, notes=notes)


def _own_rate(clock, signals):
    """The rate that the file says, where by its stamps too no sample is half a step away; else the measured one."""
    away = abs(signals.rate_hz / clock.rate_hz - 1) * clock.places[-1]
    return signals.rate_hz if signals.rate_hz and away < 0.5 else clock.rate_hz


def aligned(clocks, eeg: Signals, emg: Signals, source) -> list[Clock]:
    """Both clocks with times that can be compared.

    Parameters
    ----------
    clocks : list of Clock
        The EEG's and the EMG's, as `with_clock` gives them.
    eeg, emg : Signals
    source : RecordingSource

    Raises
    ------
    InputError
        Where one has times of day and the other a zero of its own; or arrays of one file last differently at a rate
        that it holds for both.
    """
    notes = _lasting(clocks, eeg, emg, source)
    origins = [eeg.origin, emg.origin]
    same_file = eeg.what == emg.what
    stamped = eeg.stamps_s is not None and emg.stamps_s is not None
    by_day = False
    if not same_file:
        clocks = [replace(clock, start_s=clock.start_s + s.start_s) for clock, s in zip(clocks, (eeg, emg))]
    if (
        source.align == "start"
        or (same_file and eeg.stamps_s is None)
        or (origins == ["own", "own"] and not stamped)
    ):  # fmt: skip
        clocks = [replace(clock, start_s=0.0) for clock in clocks]
        if not same_file:
            told = "" if source.align == "start" else "; files do not tell"
            notes.append(f"EEG and EMG are taken to begin at once{told}")
    elif origins[0] != origins[1]:
        if "own" in origins:
            raise InputError(
                f"aligning {eeg.what} and {emg.what}: one has times of day and the other a zero of its own, "
                'so how they lie to each other is not known. If both began at once, say `align = "start"`.'
            )
        clocks = [replace(clock, start_s=clock.start_s % _DAY_S) for clock in clocks]
        notes.append("one file has dates and the other times of day: compared by time of day")
        by_day = True
    elif origins[0] == "own" and not same_file:
        notes.append("both files count seconds; taken as one clock")
    else:
        by_day = origins[0] == "day" and not same_file
    emg_start = clocks[1].start_s - source.emg_delay_s
    if by_day:
        days, told = _days_later(clocks[0], replace(clocks[1], start_s=emg_start))
        emg_start, notes = emg_start + days * _DAY_S, notes + told
    return [replace(clocks[0], notes=(*clocks[0].notes, *notes)), replace(clocks[1], start_s=emg_start)]


def _lasting(clocks, eeg, emg, source):
    """Notes on arrays of one file that last differently, which a rate shared by both would not be true of."""
    (eeg_s, emg_s) = (each.values.shape[1] / clock.rate_hz for each, clock in zip((eeg, emg), clocks))
    unlike = abs(eeg_s - emg_s)
    if eeg.what != emg.what or unlike <= max(_UNLIKE_SHARE * max(eeg_s, emg_s), _UNLIKE_S):
        return []
    name = Path(eeg.what).name
    lasting = f"EEG of {eeg_s:.4g} s at {clocks[0].rate_hz:g} Hz and EMG of {emg_s:.4g} s at {clocks[1].rate_hz:g} Hz"
    if any(s.shared_rate and not stated for s, stated in ((eeg, source.eeg_rate_hz), (emg, source.emg_rate_hz))):
        raise InputError(
            f"reading {eeg.what}: it holds {lasting}, with one rate of {eeg.rate_hz:g} Hz for both arrays, which does "
            "not seem to be true of both. State `eeg_rate_hz` and `emg_rate_hz`."
        )
    return [f"{name}: it holds {lasting}"]


def _days_later(eeg, emg):
    """Days by which the EMG's times of day lie later than they seem: another day, if they overlap on that alone."""
    common = {
        days: min(eeg.stop_s, emg.stop_s + days * _DAY_S) - max(eeg.start_s, emg.start_s + days * _DAY_S)
        for days in (-1, 0, 1)
    }
    on = [days for days, seconds in common.items() if seconds >= SHORTEST_S]
    if len(on) > 1 and 0 in on:
        return 0, ["times of day of a whole day: EMG would overlap the EEG on the day before or after, too"]
    if len(on) != 1 or on == [0]:
        return 0, []
    when = "a day later" if on[0] > 0 else "a day earlier"
    return on[0], [f"midnight lies between both beginnings: EMG's times of day are taken {when}, where they overlap"]
