"""What an eeg study found, in sentences that follow from its numbers; first whether the network knows anything."""

import numpy as np

from ..hpc.channel_sets import listed
from ..hpc.emg_comparison import usable, usable_subjects
from ..hpc.emg_names import BY_SUBJECT, CONTROLS, MEAN, NETWORKS, OPTIMIZER_NAMES, SPLIT_NAMES, TRUTH, TUNED
from ..learn.matrix_comparison import FEWEST_UNITS, LARGEST_P, LEAST_SKILL
from ..zarr_store.schema import Status
from .eeg_evidence import EegEvidence, SkillRow, skill_range, skill_text
from .typesetting import number_text

_FEW_RECORDS = 50


def summary(evidence: EegEvidence) -> list[str]:
    """Sum the study up: whether the network beats the mean matrix on unseen subjects, and what stands beside it.

    Parameters
    ----------
    evidence : EegEvidence

    Returns
    -------
    list of str
        Sentences; the answer comes first, a word about what is not done last.

    Examples
    --------
    >>> summary(read_eeg_evidence("studies/eeg"))[0]                              # doctest: +SKIP
    'On subjects that it has never seen, the network (Adam) beats the mean matrix: it makes 41.2 % less squared error …'
    """
    words = [
        answer(evidence),
        *_no_network(evidence),
        *_within(evidence),
        *_optimizers(evidence),
        *_tuned(evidence),
        *_rival(evidence),
        *_truth(evidence),
    ]
    return [*words, *_hollow(evidence), *_controls(evidence), *_little(evidence), *_unfinished(evidence)]


def answer(evidence: EegEvidence) -> str:
    """Say in one sentence whether the network beats the mean matrix on subjects that it has never seen."""
    if "network" in evidence.impossible:
        return (
            "Whether the network beats the mean matrix on subjects that it has never seen cannot be told: no network "
            "was trained."
        )
    row = _network(evidence, BY_SUBJECT)
    if row is None:
        if len(usable_subjects(evidence.results)) == 1:
            some = " that can be used" if evidence.results.sizes["subject"] > 1 else ""
            return (
                f"All records{some} are of one subject, so whether the network beats the mean matrix on subjects that "
                "it has never seen cannot be told from this study."
            )
        why = "that split was not asked for" if BY_SUBJECT not in evidence.impossible else "the records do not allow it"
        return f"Whether the network beats the mean matrix on subjects that it has never seen was not tried: {why}."
    who = f"the network ({OPTIMIZER_NAMES[row.optimizer]})"
    if not row.known:
        state = "succeeded" if row.failed == row.planned else "is finished yet" if not row.done else "could be compared"
        return f"Whether the network beats the mean matrix on subjects that it has never seen: no training {state}."
    return _verdict(row, who, "On subjects that it has never seen", "subject")


def _verdict(row: SkillRow, who, where, unit):
    what = f"it makes {_share(row.skill)} ({_figures(row, unit)})"
    if row.verdict == "too few":
        return f"{where}, it cannot be told whether {who} beats the mean matrix: {_number(row.units, unit)} " + (
            f"{'is' if row.units == 1 else 'are'} too few. As far as it goes, {what}."
        )
    verdict = {
        "beats": "beats the mean matrix",
        "loses": "does not beat the mean matrix, it is worse",
        "unclear": _unclear(row),
    }[row.verdict]
    return f"{where}, {who} {verdict}: {what}."


def _unclear(row):
    """Why a model neither beats the mean matrix nor loses: it may be sure that it differs, and by next to nothing."""
    low, high = row.interval
    sure = low > 0 and row.p <= LARGEST_P
    if abs(row.skill) < LEAST_SKILL and (sure or max(abs(low), abs(high)) < LEAST_SKILL):
        return "differs from the mean matrix by less than a hundredth of its squared error"
    return "does not beat the mean matrix beyond chance"


def _share(skill):
    """The squared error beside that of the mean matrix, in words."""
    if skill < -1:
        return f"{1 - skill:.3g} times the squared error of the mean matrix"
    return f"{100 * abs(skill):.1f} % {'less' if skill >= 0 else 'more'} squared error than the mean matrix"


def _figures(row, unit):
    interval = skill_range(row.interval)
    text = f"skill {skill_text(row.skill)}"
    text += f", 95 % interval {interval}" if interval != "–" else ""
    text += f"; the smaller error in {row.wins} of {_number(row.units, unit)}"
    return text + (f", sign test p = {row.p:.2g}" if row.verdict in ("beats", "unclear") else "")


def _number(count, unit):
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _network(evidence, split):
    """Row of the network with the paper's optimizer, else the first one's; None where the split has none."""
    if split not in evidence.splits or not evidence.optimizers:
        return None
    chosen = "adam" if "adam" in evidence.optimizers else evidence.optimizers[0]
    return evidence.row(split, "network", chosen)


def _no_network(evidence):
    """Why there is no network, where the records allow none or all trainings of it failed."""
    if "network" in evidence.impossible:
        return [evidence.impossible["network"]]
    networks = evidence.results.sel(model="network") if "network" in evidence.results["model"].values else None
    if networks is None:
        return []
    status, planned = networks["status"].values, networks["run_id"].values != ""
    if not planned.any() or not (status[planned] == int(Status.FAILED)).all():
        return []
    reason = str(networks["reason"].values[planned][0]).partition(": ")[2]
    return [f"No network could be trained. {reason}"]


def _within(evidence):
    """The same on further records of subjects that it knows: over the first split by record that is finished."""
    for split in evidence.splits:
        row = _network(evidence, split)
        if split == BY_SUBJECT or row is None or not row.known or row.verdict not in _SAYS_SOMETHING:
            continue
        whose = "the same subject" if len(usable_subjects(evidence.results)) == 1 else "subjects that it knows"
        where = f"On further records of {whose} ({SPLIT_NAMES.get(split, split)})"
        return [_verdict(row, "it", where, _unit(evidence, split))]
    return []


def _unit(evidence, split):
    """What a split's models are compared over: "subject" or "fold"."""
    return str(evidence.results["skill_unit"].sel(split=split).item())


_SAYS_SOMETHING = ("beats", "loses", "unclear", "too few")


def _optimizers(evidence):
    split, first = evidence.shown_split, _network(evidence, evidence.shown_split)
    rows = [row for row in evidence.rows(split) if row.model == "network" and row.known]
    others = [row for row in rows if first is None or row.optimizer != first.optimizer]
    if not others:
        return []
    parts = [f"{OPTIMIZER_NAMES[row.optimizer]} {skill_text(row.skill)}" for row in others]
    return [f"Skill of the network with the other optimizers ({SPLIT_NAMES.get(split, split)}): {', '.join(parts)}."]


def _tuned(evidence):
    """What the same network reaches when it is trained otherwise than in the paper."""
    split = evidence.shown_split
    words = {
        "beats": "better than the mean matrix",
        "loses": "worse than the mean matrix",
        "unclear": "not to be told from the mean matrix",
        "too few": f"of too few {_unit(evidence, split)}s to judge",
    }
    return [
        "The same network with inputs and outputs scaled, a rate of 0.001 and 50 epochs (not the paper's): "
        f"skill {skill_text(row.skill)}, {words.get(row.verdict, row.verdict)}."
        for row in evidence.rows(split)
        if row.model == TUNED and row.known
    ]


def _rival(evidence):
    split = evidence.shown_split
    row, network = evidence.best_rival(split), _network(evidence, split)
    if row is None:
        return []
    unit = _unit(evidence, split)
    figures = f"({_figures(row, unit)})"
    text = f"Without a network ({SPLIT_NAMES.get(split, split)}), {_inside(row.name)} " + {
        "beats": f"beats the mean matrix {figures}",
        "loses": f"is the best, and does worse than the mean matrix {figures}",
        "unclear": f"is the best, and {_unclear(row)} {figures}",
        "too few": f"is the best, of too few {unit}s to judge {figures}",
    }.get(row.verdict, f"is the best {figures}")
    if network is not None and network.known:
        text += ", and does better than the network" if row.skill > network.skill else ", and the network does better"
    return [text + "."]


def _inside(name):
    """A model's name inside a sentence."""
    return name if name[:2].isupper() else name[0].lower() + name[1:]


def _truth(evidence):
    row = evidence.row(evidence.shown_split, TRUTH)
    if row is None or not row.known:
        return []
    return [
        "These records are simulated, and their truth is known: as a prediction it has a skill of "
        f"{skill_text(row.skill)}. What it misses is the error of estimating Granger causality from a "
        "record; the part of it that all records share, such as estimates above 0 where there is no influence, can be "
        "learned."
    ]


def _hollow(evidence):
    """The paper's own scores of a model that knows nothing of the EEG."""
    split, row = evidence.shown_split, _network(evidence, evidence.shown_split)
    mean = [evidence.score(f"{name}_with_diagonal", split, MEAN) for name in ("r2", "r")]
    if not np.isfinite(mean).all():
        return []
    text = f"By the paper's scores the mean matrix, which has seen no EEG, reaches R² {number_text(mean[0])} and r "
    text += f"{number_text(mean[1])} on test records: so much says no more than how unlike the entries are."
    if row is not None and row.known:
        ours = [evidence.score(f"{name}_with_diagonal", split, *row_key(row)) for name in ("r2", "r")]
        text += f" The network reaches R² {number_text(ours[0])} and r {number_text(ours[1])}."
    return [text]


def row_key(row: SkillRow):
    """Model and optimizer of a row, as `EegEvidence.score` wants them."""
    return row.model, row.optimizer


def _controls(evidence):
    split = evidence.shown_split
    rows = [row for row in evidence.rows(split) if row.model in CONTROLS and row.known]
    if not rows:
        return []
    parts = [f"{'the network' if row.model in NETWORKS else 'ridge'} {skill_text(row.skill)}" for row in rows]
    end = _control_verdict(rows, _unit(evidence, split))
    return [f"Trained on EEG and EMG of different records: skill of {' and of '.join(parts)}; {end}"]


def _control_verdict(rows, unit):
    beat = [row for row in rows if row.verdict == "beats"]
    if beat:
        who = "one of them beats" if len(beat) < len(rows) else "they beat" if len(rows) > 1 else "it beats"
        return (
            f"{who} the mean matrix, by chance or because something leaks. Find out before you believe anything above."
        )
    if all(row.verdict == "too few" for row in rows):
        return f"of too few {unit}s to judge."
    who = "neither beats" if len(rows) > 1 else "it does not beat"
    return f"{who} the mean matrix, as it must be."


# ---- what so little data can show -----------------------------------------------------------------------------------


def _little(evidence):
    results = evidence.results
    records, subjects = len(usable(results)), len(usable_subjects(results))
    words = []
    if subjects < FEWEST_UNITS:
        words.append(
            f"{_number(subjects, 'subject')} can carry no statement about people: a sign test needs at least "
            f"{FEWEST_UNITS}, and wins in all of them, to fall below {LARGEST_P:g}."
        )
    if records < _FEW_RECORDS:
        text = f"{_number(records, 'record')} are few for {_entries(results)} entries each: scores may change a good "
        text += "deal with other records"
        network = "" if "network" in evidence.impossible else ", and a network of this size cannot be judged by them"
        words.append(f"{text}{network}.")
    return words


def _entries(results):
    n = results.sizes["emg_i"]
    return n * (n - 1)


def data_words(evidence: EegEvidence) -> list[str]:
    """Tell what the study's records can carry: how many, of whom, and how they compare with the network's size."""
    results = evidence.results
    rows, subjects = usable(results), usable_subjects(results)
    conditions, counts = np.unique(results["condition"].values[rows].astype(str), return_counts=True)
    named = [f"{count} of {name or 'unknown condition'}" for name, count in zip(conditions, counts)]
    text = f"{_number(len(rows), 'record')} of {_number(len(subjects), 'subject')} ({', '.join(named)})"
    lost = results.sizes["record"] - len(rows)
    text += f"; {lost} more failed and {'is' if lost == 1 else 'are'} in no part of any split" if lost else ""
    gone = [each for each in map(str, results["subject"].values) if each not in subjects]
    words = [text + (f", among them all those of {_number(len(gone), 'subject')}: {listed(gone)}." if gone else ".")]
    sizes = results["n_parameters"].values
    train = results["n_records"].sel(part="training").values
    if sizes.any() and train.any():
        values = int(train.max()) * _entries(results)
        words.append(
            f"The network has {int(sizes.max()):,} parameters; the largest training part holds {int(train.max()):,} "
            f"records, that is {values:,} values to learn."
        )
    words += [f"Not made: {reason}" for reason in evidence.impossible.values()]
    return words


def _unfinished(evidence):
    status, planned = evidence.results["status"].values, evidence.results["run_id"].values != ""
    counts = {state: int((status[planned] == int(state)).sum()) for state in Status}
    if counts[Status.DONE] == planned.sum():
        return []
    rest = [f"{counts[state]} {state.name.lower()}" for state in (Status.PENDING, Status.FAILED) if counts[state]]
    return [
        f"{counts[Status.DONE]} of {planned.sum()} trainings are done ({', '.join(rest)}); what is said is of those."
    ]
