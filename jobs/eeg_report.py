"""The report of an eeg study: one HTML file that needs nothing else, and its pictures beside it."""

import shlex
from pathlib import Path

import numpy as np

from ..hpc.emg_names import SPLIT_NAMES, model_name
from ..zarr_store.schema import Status
from ..zarr_store.study import Study
from .eeg_evidence import EegEvidence, read_eeg_evidence
from .eeg_figures import curve_pictures, scatter_pictures, subject_pictures
from .eeg_findings import data_words, summary
from .eeg_matrix_figures import eeg_pictures, emg_pictures
from .eeg_methods import PAPER_WORDS, method_words
from .eeg_records import cutting_words, fact_rows, note_rows
from .eeg_score_tables import skill_tables, table_3
from .evidence import version_rows
from .report_page import Section, write_page
from .timeline import stage_rows, timeline_picture
from .typesetting import table_of

_SHOWN_FAILURES = 50
_NO_FEATURES = (
    "Not drawn: the features that these results were made from are not there. They are gone, or more recordings came; "
    "`motorsweep run` brings both to the same state."
)


def write_eeg_report(study: Study) -> Path:
    """Write the report of an eeg study: ``report/index.html``, and every picture as PNG beside it.

    Parameters
    ----------
    study : Study or path-like
        Its results must be collected.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    StoreError
        Where there are no results yet, a record is damaged, or the disk refuses.

    Examples
    --------
    >>> write_eeg_report(Study("studies/eeg"))        # doctest: +SKIP
    PosixPath('.../studies/eeg/report/index.html')
    """
    evidence = read_eeg_evidence(study)
    sections = [
        _skill(evidence), _table_3(evidence), _emg(evidence), _scatter(evidence), _subjects(evidence),
        _curves(evidence), _eeg(evidence), _data(evidence), _paper(), _failures(evidence), _methods(evidence),
        _runs(evidence),
    ]  # fmt: skip
    return write_page(evidence, sections, summary=summary(evidence), kicker="motorsweep report · EEG to EMG")


# ---- sections, in the order of the page -----------------------------------------------------------------------------


def _skill(evidence: EegEvidence):
    text = (
        "Skill is the share of the mean matrix's squared error on test records that a model takes away: 0 is the mean "
        "matrix of the training records, which knows nothing of the EEG; 1 is perfect; below 0 is worse than knowing "
        "nothing. It beats the mean matrix where the 95 % interval lies above 0 and the error is the smaller one in so "
        "many subjects (or folds) that an exact sign test gives p ≤ 0.05: 5 of 5, 7 of 8, 9 of 10. It loses where both "
        "hold the other way round. All else is unclear, and so is less than a hundredth. Fewer than 5 are too few, and "
        "have no interval."
    )
    notes = ["In grey, R² and r pooled over all entries off the diagonal: the mean matrix has high ones as well."]
    return Section(
        id="skill", title="Does it beat the mean matrix?", paragraphs=[text], tables=[skill_tables(evidence)],
        notes=notes,
    )  # fmt: skip


def _table_3(evidence):
    text = (
        "The paper's four scores for training, validation, test and all records, with the zeros of the diagonal, as it "
        "must have computed them; means over folds. MSE and MAE are in thousandths."
    )
    notes = [
        "The paper's values are of other people's records, and cannot all be right (see below): compare the pattern, "
        "not the values. Marked: the best test R² but for the planted truth."
    ]
    return Section(
        id="table-3", title="Scores as in the paper's Table 3", paragraphs=[text],
        tables=[table_3(evidence, split) for split in evidence.splits], notes=notes, style="dense",
    )  # fmt: skip


def _emg(evidence):
    pictures = emg_pictures(evidence)
    if not pictures:
        return None
    text = (
        f"Test records of the split “{SPLIT_NAMES.get(evidence.shown_split, evidence.shown_split)}”. Mean matrices "
        "look alike for any model that has learned the mean; whether a model knows more shows in the skill of its "
        "entries, and in whether single records differ as the measured ones do."
    )
    return Section(id="emg", title="Muscles: measured and predicted", paragraphs=[text], pictures=pictures, columns=2)


def _scatter(evidence):
    pictures = scatter_pictures(evidence)
    if not pictures:
        return None
    text = (
        "Each point is an entry of a test record. The mean matrix lies in flat bands, one for each entry: all of its r "
        "comes from entries that differ from each other. A model that knows more tilts the bands towards the diagonal."
    )
    return Section(id="scatter", title="Predicted against measured", paragraphs=[text], pictures=pictures)


def _subjects(evidence):
    pictures = subject_pictures(evidence)
    if not pictures:
        return None
    text = f"Test records of each subject, {SPLIT_NAMES.get(evidence.shown_split, evidence.shown_split)}."
    return Section(id="subjects", title="Skill by subject", paragraphs=[text], pictures=pictures)


def _curves(evidence):
    title, pictures = "Training (the paper's Figs. 3 and 4)", curve_pictures(evidence)
    split = SPLIT_NAMES.get(evidence.shown_split, evidence.shown_split)
    if not pictures:
        return Section(id="curves", title=title, notes=[f"Not drawn: no network is trained ({split})."])
    text = (
        f"The network, {split}, one line a fold: error of each batch before its step, and of the validation records. "
        "The error is over all entries, the diagonal included; errors of first steps that lie far above are cut off."
    )
    return Section(id="curves", title=title, paragraphs=[text], pictures=pictures)


def _eeg(evidence):
    pictures = eeg_pictures(evidence)
    if not pictures:
        return Section(id="eeg", title="Connectivity of the EEG", notes=[_NO_FEATURES])
    text = "Mean over all records. The scale leaves out the diagonal; from column to row where there is a direction."
    return Section(id="eeg", title="Connectivity of the EEG", paragraphs=[text], pictures=pictures, columns=3)


def _data(evidence):
    rows, noted = fact_rows(evidence.features), note_rows(evidence.features)
    tables = [table_of(rows, name="facts", stub="What", words=["Value"])] if rows else []
    tables += [table_of(noted, name="notes", stub="Number", words=["Note", "Records"])] if noted else []
    words = data_words(evidence) + cutting_words(evidence.features)
    return Section(id="data", title="The records, and what they can show", paragraphs=words, tables=tables)


def _paper():
    return Section(id="paper", title="What does not agree within the paper", paragraphs=list(PAPER_WORDS), style="box")


def _failures(evidence):
    rows = _failure_rows(evidence)
    if not rows:
        return None
    shown, more = rows[:_SHOWN_FAILURES], len(rows) - _SHOWN_FAILURES
    command = f"motorsweep status {shlex.quote(str(evidence.study.folder))} --failed"
    notes = [f"And {more} more. All of them, by cause: {command}"] if more > 0 else []
    text = f"{len(rows)} failed. Try them again with: motorsweep run STUDY.toml --retry-failed"
    table = table_of(shown, name="failures", stub="What", words=["Why", "More"])
    return Section(id="failures", title="Failures", paragraphs=[text], tables=[table], notes=notes)


def _failure_rows(evidence):
    rows, folder = [], shlex.quote(str(evidence.study.folder))
    if evidence.features is not None:
        bad = np.flatnonzero(evidence.features["status"].values == int(Status.FAILED))
        names, reasons = (evidence.features[name].values for name in ("record", "reason"))
        rows = [{"What": f"record {names[k]}", "Why": str(reasons[k]), "More": "–"} for k in bad]
    for run_id, record in evidence.records.items():
        if record["status"] == "failed":
            labels = record["labels"]
            name = f"{model_name(labels['model'], labels['optimizer'])}, {labels['split']}, fold {labels['fold']}"
            rows.append({"What": name, "Why": record["reason"], "More": f"motorsweep show {folder} {run_id}"})
    return rows


def _methods(evidence):
    return Section(id="methods", title="Methods and limits", paragraphs=method_words(evidence))


def _runs(evidence):
    rows, picture = stage_rows(evidence.events), timeline_picture(evidence.events)
    versions = version_rows(evidence.records)
    shown = [table_of(rows, name="stages", stub="Stage", words=["Pieces", "Slowest task"])] if rows else []
    shown += [table_of(versions, name="versions", stub="Part", words=["Version"])] if versions else []
    places = dict.fromkeys(str(event["executor"]) for event in evidence.events if event.get("executor"))
    text = f"Ran on: {'; '.join(places)}." if places else "There are no events in the study's folder."
    pictures = [picture] if picture else []
    return Section(id="runs", title="What ran, where, how long", paragraphs=[text], tables=shown, pictures=pictures)
