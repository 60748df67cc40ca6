"""The report of a study: one HTML file that needs nothing else, and its pictures beside it."""

import shlex
from pathlib import Path

from ..hpc.predictor_names import FLOOR, INPUT_NAMES
from ..zarr_store.study import Study
from .calibration import calibration_pictures, calibration_words
from .evidence import Evidence, read_evidence, version_rows
from .failures import failure_rows
from .field_figure import field_pictures, field_view
from .figures import loss_pictures, prediction_pictures
from .findings import criteria_words, input_words, responses_in_training, size_words, summary
from .muscle_scores import muscle_picture, muscle_table, silent_muscles
from .report_page import Section, write_page
from .report_tables import conclusions_table, score_table
from .score_figures import CURVE_TOP, complexity_picture, curve_pictures, forest_picture
from .study_facts import assumptions, facts
from .synergy_figures import basis_picture, synergy_words, vaf_picture
from .timeline import stage_rows, timeline_picture
from .training_tables import chosen_table, criteria_table, validation_table
from .typesetting import table_of

_SHOWN_FAILURES = 50


def write_report(study: Study) -> Path:
    """Write the report of a study: ``report/index.html``, and every picture as PNG beside it.

    The page is one file without scripts or links to elsewhere, for light and dark screens, wide and narrow. What is
    not done yet is named as such; a new report takes the place of the old one only when it is whole.

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
    >>> write_report(Study("studies/quick"))        # doctest: +SKIP
    PosixPath('.../studies/quick/report/index.html')
    """
    evidence = read_evidence(study)
    sections = [
        _scores(evidence), _conclusions(evidence), _muscles(evidence), _curves(evidence), _calibration(evidence),
        _criteria(evidence), _complexity(evidence), _synergies(evidence), _validation(evidence), _field(evidence),
        _predictions(evidence), _losses(evidence), _failures(evidence), _runs(evidence), _rests_on(evidence),
    ]  # fmt: skip
    return write_page(evidence, sections, summary=summary(evidence))


# ---- sections, in the order of the page -----------------------------------------------------------------------------


def _scores(evidence: Evidence):
    repeats, picture = evidence.results.sizes["repeat"], forest_picture(evidence)
    spread = f"mean ± sd over {repeats} repeats of the test split" if repeats > 1 else "one repeat, so no sd"
    floor = any(each.key[1] == FLOOR for each in evidence.ranking)
    text = f"NRMSE on the test trials (equation 7), {spread}; lower is better. "
    text += "The best possible prediction is the floor, the training mean" if floor else "The training mean is"
    text += " the ceiling that anything useful stays below."
    how = (
        "Intervals: 95 %, by resampling the test trials, those of one pose together. The difference to the best is "
        "paired, on the same trials, and its intervals hold for all predictors at once: “within chance” of the best is "
        "what an interval that reaches 0 says. They speak of new trials for the models as they were trained"
    )
    how += "; what other training trials would change shows in the sd over repeats." if repeats > 1 else "."
    notes = [
        "In grey, Table 1 of the paper: measured responses of another subject. Compare the pattern, not the values."
    ]
    if any(0 < each.known.size < repeats for each in evidence.ranking):
        notes.append(f"In brackets: how many of the {repeats} repeats are done, where some are not.")
    paragraphs = [text, *filter(None, [size_words(evidence)]), how]
    pictures = [picture] if picture else []
    tables = [score_table(evidence)]
    return Section(id="scores", title="Scores", paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)


def _conclusions(evidence):
    table = conclusions_table(evidence)
    if table is None:
        return None
    text = (
        "Each conclusion as a paired difference of NRMSE on the same test trials: it holds where the 95 % interval "
        "lies above 0, it does not where it lies below, and otherwise this study cannot tell. Each interval is for "
        "itself; of twenty such, one misses by chance."
    )
    return Section(
        id="conclusions", title="What holds here", paragraphs=[text], tables=[table], notes=input_words(evidence)
    )


def _muscles(evidence):
    table, picture = muscle_table(evidence), muscle_picture(evidence)
    if table is None:
        return None
    notes = [f"Responds in no test trial, so there is nothing to score: {', '.join(silent)}."] if (
        silent := silent_muscles(evidence)
    ) else []  # fmt: skip
    text = "NRMSE of each muscle on the test trials, mean over the repeats; the best of a muscle is marked."
    return Section(
        id="muscles", title="Scores by muscle", paragraphs=[text], tables=[table], pictures=[picture], notes=notes
    )


def _curves(evidence):
    pictures = curve_pictures(evidence)
    if not pictures:
        return None
    text = (
        "The models, trained on fewer labelled trials and scored on the same test trials; the last point is the "
        "model of the table above. Hyper-parameters of the other points are the first of each grid, the codes those of "
        "all calibration trials. A curve that still falls at its end asks for more trials."
    )
    values = [evidence.results[name].values for name in ("curve_nrmse", "curve_baseline_nrmse")]
    over = any((each > CURVE_TOP).any() for each in values)
    notes = [f"NRMSE over {CURVE_TOP} lies outside the picture."] if over else []
    return Section(id="curves", title="Learning curves", paragraphs=[text], pictures=pictures, columns=2, notes=notes)


def _calibration(evidence):
    pictures = calibration_pictures(evidence)
    if not pictures:
        return None
    words = [calibration_words(evidence)]
    return Section(
        id="calibration", title="How well uncertainty is told", paragraphs=words, pictures=pictures, columns=2
    )


def _synergies(evidence):
    pictures = [picture for picture in (vaf_picture(evidence), basis_picture(evidence)) if picture]
    if not pictures:
        return None
    words = [text for text in [synergy_words(evidence)] if text]
    return Section(id="synergies", title="Muscle synergies", paragraphs=words, pictures=pictures, columns=2)


def _validation(evidence):
    shown = [validation_table(evidence), chosen_table(evidence)]
    if None in shown:
        return None
    text = (
        f"{evidence.results.sizes['fold']} folds within the calibration trials of each repeat. Above, the mean NRMSE "
        "on the validation trials over all models, repeats and folds, and how many final models took each "
        "configuration; below, the one that each model took, where repeats differ with their number."
    )
    return Section(id="validation", title="Cross-validation", paragraphs=[text], tables=shown)


def _criteria(evidence):
    n = responses_in_training(evidence)
    text = (
        "BIC = Nk ln(variance) + p ln(Nk) and AICc = Nk ln(variance) + Nk (p + Nk) / (Nk − p − 2), equations 10 and 11"
    )
    text += f"; Nk = {n:,} responses, mean over repeats." if n else "; mean over repeats."
    caution = "Caution: " + criteria_words(evidence)
    return Section(
        id="table-2",
        title="Information criteria (the paper's Table 2)",
        paragraphs=[text, caution],
        tables=[criteria_table(evidence)],
    )


def _field(evidence):
    view, why = field_view(evidence.volumes, evidence.trials)
    title = "Field and firing rate (the paper's Fig. 1)"
    if view is None:
        return Section(id="fig-1", title=title, notes=[f"Not drawn. {why}"])
    pictures = field_pictures(view)
    return Section(id="fig-1", title=title, paragraphs=[view.sentence()], pictures=pictures, columns=3)


def _predictions(evidence):
    pictures, missing = prediction_pictures(evidence)
    kind = INPUT_NAMES.get(evidence.shown_input, evidence.shown_input)
    text = (
        f"Test set of repeat {evidence.results['repeat'].values[0]}, {evidence.shown_depth}-layer mappers on {kind}: "
        "what the muscles did and what each model said."
    )
    title = "Measured and predicted responses (the paper's Fig. 3)"
    return Section(id="fig-3", title=title, paragraphs=[text], pictures=pictures, columns=2, notes=missing)


def _complexity(evidence):
    picture = complexity_picture(evidence)
    title = "Score against size (the paper's Fig. 4)"
    if picture is None:
        return Section(id="fig-4", title=title, notes=["No model is done yet."])
    text = "Each point is a model; the lines are what needs no network."
    several = evidence.results.sizes["input"] > 1
    text += " What depends on the input has a line for each, in its colour." if several else ""
    return Section(id="fig-4", title=title, paragraphs=[text], pictures=[picture])


def _losses(evidence):
    pictures = loss_pictures(evidence)
    if not pictures:
        return None
    text = "Loss of each epoch on the training trials, one line a repeat."
    return Section(id="losses", title="Losses", paragraphs=[text], pictures=pictures, columns=2)


def _failures(evidence):
    rows = failure_rows(evidence)
    if not rows:
        return None
    shown, more = rows[:_SHOWN_FAILURES], len(rows) - _SHOWN_FAILURES
    command = f"motorsweep status {shlex.quote(str(evidence.study.folder))} --failed"
    notes = [f"And {more} more. All of them, by cause: {command}"] if more > 0 else []
    text = f"{len(rows)} failed. Try them again with: motorsweep run STUDY.toml --retry-failed"
    table = table_of(shown, name="failures", stub="What", words=["Why", "More"])
    return Section(id="failures", title="Failures", paragraphs=[text], tables=[table], notes=notes)


def _runs(evidence):
    rows, picture = stage_rows(evidence.events), timeline_picture(evidence.events)
    words, versions = ["Pieces", "Slowest task"], version_rows(evidence.records)
    shown = [table_of(rows, name="stages", stub="Stage", words=words)] if rows else []
    shown += [table_of(versions, name="versions", stub="Part", words=["Version"])] if versions else []
    places = dict.fromkeys(str(event["executor"]) for event in evidence.events if event.get("executor"))
    text = f"Ran on: {'; '.join(places)}." if places else "There are no events in the study's folder."
    return Section(
        id="runs",
        title="What ran, where, how long",
        paragraphs=[text],
        tables=shown,
        pictures=[picture] if picture else [],
    )


def _rests_on(evidence):
    rows = [{"What": what, "Value": value} for what, value in facts(evidence)]
    return Section(
        id="assumptions",
        title="What it rests on",
        paragraphs=assumptions(evidence),
        tables=[table_of(rows, name="facts", stub="What", words=["Value"])],
    )
