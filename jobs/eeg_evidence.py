"""What the report of an eeg study is made from, read once; and its models with their skill, in one list."""

import tomllib
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..errors import StoreError
from ..hpc.emg_names import BY_SUBJECT, MEAN, NO_OPTIMIZER, model_name
from ..hpc.events import read_events
from ..zarr_store.features import open_features
from ..zarr_store.results import open_results
from ..zarr_store.runs import list_records
from ..zarr_store.schema import Status
from ..zarr_store.study import Study
from .typesetting import number_text


@dataclass(frozen=True, kw_only=True)
class SkillRow:
    """One model on one split: how much of the mean matrix's squared error it takes away on unseen records.

    Attributes
    ----------
    model, optimizer, split : str
    skill : float
        Mean over the units; NaN where it is not known.
    interval : tuple of float
        At 95 %.
    units, wins : int
    p : float
    verdict : str
        "beats", "loses", "unclear", "too few", "undefined"; "" where it is not known.
    done, failed, planned : int
        Folds.
    """

    model: str
    optimizer: str
    split: str
    skill: float
    interval: tuple
    units: int
    wins: int
    p: float
    verdict: str
    done: int
    failed: int
    planned: int

    @property
    def name(self):
        """What people call the model."""
        return model_name(self.model, self.optimizer)

    @property
    def known(self):
        """Whether there is a skill."""
        return bool(np.isfinite(self.skill))


def skill_text(value) -> str:
    """Write a skill with its sign; far from 0, where decimals say nothing, with fewer.

    Examples
    --------
    >>> skill_text(0.41249), skill_text(-12.345), skill_text(-12345.6), skill_text(float("nan"))
    ('+0.412', '−12.3', '−1.2e+04', '–')
    """
    size = abs(value)
    return number_text(value, "+.3f" if size < 10 else "+.1f" if size < 1000 else "+.1e")


def skill_range(bounds) -> str:
    """Write the interval of a skill as "low to high"; "–" where it is not known.

    Examples
    --------
    >>> skill_range((-0.1, 0.25)), skill_range((float("nan"), 1.0))
    ('−0.100 to +0.250', '–')
    """
    return " to ".join(map(skill_text, bounds)) if np.isfinite(bounds).all() else "–"


def skill_rows(results, split) -> list[SkillRow]:
    """All models that a split was planned with, in the order of the results.

    Examples
    --------
    >>> skill_rows(open_results("studies/eeg"), "k-fold")[0].verdict              # doctest: +SKIP
    'beats'
    """
    rows = []
    for model in map(str, results["model"].values):
        for optimizer in map(str, results["optimizer"].values):
            cell = results.sel(model=model, optimizer=optimizer, split=split)
            planned = cell["run_id"].values != ""
            if planned.any():
                rows.append(_skill_row(cell, (model, optimizer, split), planned))
    return rows


def _skill_row(cell, key, planned):
    status = cell["status"].values[planned]
    return SkillRow(
        **dict(zip(("model", "optimizer", "split"), key)),
        skill=float(cell["skill"]),
        interval=tuple(map(float, cell["skill_interval"].values)),
        units=int(cell["skill_units"]),
        wins=int(cell["skill_wins"]),
        p=float(cell["skill_p"]),
        verdict=str(cell["verdict"].item()),
        done=int((status == int(Status.DONE)).sum()),
        failed=int((status == int(Status.FAILED)).sum()),
        planned=len(status),
    )


@dataclass(frozen=True, kw_only=True)
class EegEvidence:
    """An eeg study as its report sees it.

    Attributes
    ----------
    study : Study
    name : str
    results : xarray.Dataset
        In memory.
    features : xarray.Dataset or None
        None where the store is gone, or grew since the results were made.
    records : dict of str to dict
        Records of the runs that the results stand on, by id.
    events : list of dict
    """

    study: Study
    name: str
    results: xr.Dataset
    features: xr.Dataset | None
    records: dict
    events: list

    @property
    def splits(self) -> list[str]:
        """Splits of the results: that by subject first, as it asks what matters, then those with most folds."""
        folds = (self.results["run_id"] != "").any(["model", "optimizer"]).sum("fold")
        found = {str(split): int(count) for split, count in zip(self.results["split"].values, folds.values)}
        return sorted(found, key=lambda split: (split != BY_SUBJECT, -found[split]))

    @property
    def shown_split(self) -> str:
        """Split of the figures."""
        return self.splits[0]

    @property
    def optimizers(self) -> list[str]:
        """Optimizers of the networks, the study's first one first."""
        return [str(each) for each in self.results["optimizer"].values if str(each) != NO_OPTIMIZER]

    @property
    def planted(self) -> bool:
        """Whether the truth is known."""
        return bool(np.isfinite(self.results["expected"].values).any())

    @property
    def impossible(self) -> dict:
        """What the records did not allow, a split or ``"network"``, and why."""
        return dict(self.results.attrs.get("impossible", {}))

    @property
    def tested(self):
        """Records that some model was tested on, in the shown split: positions."""
        return np.flatnonzero(self.results["test_fold"].sel(split=self.shown_split).values >= 0)

    def rows(self, split) -> list[SkillRow]:
        """Models of a split; see `skill_rows`."""
        return skill_rows(self.results, split)

    def row(self, split, model, optimizer=NO_OPTIMIZER) -> SkillRow | None:
        """One model of a split, or None."""
        found = [each for each in self.rows(split) if (each.model, each.optimizer) == (model, optimizer)]
        return found[0] if found else None

    def best_rival(self, split) -> SkillRow | None:
        """The best predictor that is neither a network, nor the mean, nor a control, nor the planted truth."""
        rivals = [row for row in self.rows(split) if row.known and row.optimizer == NO_OPTIMIZER]
        rivals = [row for row in rivals if row.model not in _NO_RIVALS]
        return max(rivals, key=lambda row: row.skill, default=None)

    @property
    def shown_models(self) -> list[SkillRow]:
        """Models whose predictions are drawn: the first optimizer's network that is done, and its best rival."""
        rows = [row for row in self.rows(self.shown_split) if row.model == "network" and row.known]
        rows.sort(key=lambda row: self.optimizers.index(row.optimizer))
        rival = self.best_rival(self.shown_split)
        return rows[:1] + ([rival] if rival is not None else [])

    @property
    def muscles(self) -> list[str]:
        """Names of the EMG channels."""
        return [str(each) for each in self.results["emg_i"].values]

    def score(self, metric, split, model, optimizer=NO_OPTIMIZER, part="test") -> float:
        """Mean of a score over the folds that are done; NaN where none is."""
        at = {"model": model, "optimizer": optimizer, "split": split, "part": part}
        values = self.results[metric].sel(at).values
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


_NO_RIVALS = (MEAN, "ridge_shuffled", "planted_truth")


def read_eeg_evidence(study) -> EegEvidence:
    """Read what an eeg study has.

    Parameters
    ----------
    study : Study or path-like

    Raises
    ------
    StoreError
        Where there are no results yet, naming the command that makes them; or where a record is damaged.
    """
    study = study if isinstance(study, Study) else Study(study)
    results = open_results(study).load()
    wanted = {str(run_id) for run_id in results["run_id"].values.ravel() if run_id}
    return EegEvidence(
        study=study,
        name=_name(study),
        results=results,
        features=_features(study, str(results.attrs["features_id"])),
        records={run_id: record for run_id, record in list_records(study) if run_id in wanted},
        events=list(read_events(study.events)),
    )


def _features(study, features_id):
    """The features, if they are those that the results were made from: more records may have come since."""
    try:
        features = open_features(study)
    except StoreError:
        return None
    return features if features.attrs["id"] == features_id else None


def _name(study):
    try:
        return str(tomllib.loads(study.config.read_text(encoding="utf-8-sig")).get("name") or study.folder.name)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return study.folder.name
