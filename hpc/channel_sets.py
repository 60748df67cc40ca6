"""Channels of a study: every record must bring the same ones, and bring them through the cleaning."""

import re
from collections import Counter
from dataclasses import replace

from ..errors import InputError
from ..sim.electrodes import EOG

_SHOWN = 6
_FAULT_LINE = re.compile(r"channel (.+?) is [a-z ]+: ")


def in_study_order(recording, eeg_names, emg_names):
    """Bring a record's channels into the study's order; EOG channels, which help to find artefacts, after the EEG.

    Parameters
    ----------
    recording : Recording
    eeg_names, emg_names : tuple of str
        Of the study.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        For a record with other channels, telling which are missing and which are too many.
    """
    _check_names(recording, eeg_names, emg_names)
    eeg_names = (*eeg_names, *(name for name in recording.eeg_names if EOG.search(name)))
    return replace(
        recording,
        eeg=recording.eeg[[recording.eeg_names.index(name) for name in eeg_names]],
        emg=recording.emg[[recording.emg_names.index(name) for name in emg_names]],
        eeg_names=tuple(eeg_names),
        emg_names=tuple(emg_names),
    )


def check_still_whole(recording, eeg_names, emg_names):
    """Refuse a record of which the cleaning has dropped a channel.

    Raises
    ------
    InputError
        Naming the channels, what is wrong with them, and what to put into the study file.
    """
    lost = [name for name in (*eeg_names, *emg_names) if name not in (*recording.eeg_names, *recording.emg_names)]
    if not lost:
        return
    told = [fault_line(fault) for fault in recording.faults if fault.channel in lost]
    names = ", ".join(f'"{name}"' for name in lost)
    raise InputError(
        f"connecting the record {recording.name}: the cleaning left out {listed(lost)} ({listed(told, '; ')}), and "
        "matrices of other channels than the study's cannot be learned from together. Leave these channels out of all "
        f"records ([records] drop_channels = [{names}], in a study of another name where records are done), or leave "
        "out the record"
    )


def fault_line(fault):
    """Write what is wrong with a channel, as a record's notes have it."""
    return f"channel {fault.channel} is {fault.fault}: {fault.found}"


def faulty_channels(notes):
    r"""Count the channels that the notes of records tell to be faulty.

    Parameters
    ----------
    notes : sequence of str
        Of each record.

    Returns
    -------
    dict of str to int
        In how many records, commonest first.

    Examples
    --------
    >>> faulty_channels(["channel C3 is flat: 0 uV", "read late\nchannel C3 is flat: 0 uV", ""])
    {'C3': 2}
    """
    counts = Counter()
    for text in notes:
        counts.update({found[1] for line in text.splitlines() if (found := _FAULT_LINE.match(line))})
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))


def study_channels(recording):
    """Give the channels of a study, as its first record has them: (EEG names without EOG, EMG names).

    Raises
    ------
    InputError
        If there are fewer than two of a kind.
    """
    names = tuple(name for name in recording.eeg_names if not EOG.search(name)), tuple(recording.emg_names)
    for kind, found in zip(("EEG", "EMG"), names):
        if len(found) < 2:
            raise InputError(
                f"planning the study's channels: the record {recording.name} has {len(found)} {kind} channels "
                f"({listed(found) or 'none'}), and connectivity is between two or more. Check [records]: the files, "
                "how channels are named, and drop_channels"
            )
    return names


def _check_names(recording, eeg_names, emg_names):
    for kind, wanted in (("EEG", eeg_names), ("EMG", emg_names)):
        found = getattr(recording, f"{kind.lower()}_names")
        missing = [name for name in wanted if name not in found]
        others = [name for name in found if name not in wanted and not EOG.search(name)]
        parts = {"lacks": missing, "has besides": others}
        parts = [f"{word} {listed(names)}" for word, names in parts.items() if names]
        if parts:
            raise InputError(
                f"connecting the record {recording.name}: its {kind} {' and '.join(parts)}, against the {len(wanted)} "
                f"{kind} channels of the study ({listed(wanted)}). Matrices of other channels cannot be learned from "
                "together. Mend the record's channel names, or name what some records lack in [records] drop_channels"
            )


def listed(names, between=", "):
    """Write names, the first few of many.

    Examples
    --------
    >>> listed(["C3", "C4"]), listed([str(n) for n in range(9)])
    ('C3, C4', '0, 1, 2, 3, 4, 5, … (9 in all)')
    """
    names = [str(name) for name in names]
    shown = between.join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}{between}… ({len(names)} in all)"
