"""What a report is made from: everything that a finished, or unfinished, study has on disk, read once."""

import tomllib
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..errors import MotorsweepError, StoreError
from ..hpc.events import read_events
from ..zarr_store.results import open_results
from ..zarr_store.runs import list_records
from ..zarr_store.schema import Status
from ..zarr_store.study import Study
from ..zarr_store.trials import open_trials
from ..zarr_store.volumes import open_volumes
from .config import parse_study

INPUT_NAMES = {"e_norm": "raw |E|", "firing_rate": "firing rate"}
CONNECTION_NAMES = {"direct": "Direct", "synergy": "Synergy", "both": "Both"}
BASELINE_NAMES = {"mean": "Training mean", "ridge": "Ridge on the codes", "best_possible": "Best possible"}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of the results table, with its test scores.

    Attributes
    ----------
    input, connection : str
    depth : int
    scores : ndarray (repeats done,)
        Test NRMSE of the repeats that are done.
    """

    input: str
    depth: int
    connection: str
    scores: np.ndarray

    @property
    def mean(self) -> float:
        """Mean NRMSE of the repeats."""
        return float(self.scores.mean())

    @property
    def name(self) -> str:
        """What sentences call it, without its input."""
        return f"{self.depth}-layer {CONNECTION_NAMES.get(self.connection, self.connection)} mapper"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A study as its report sees it.

    Attributes
    ----------
    study : Study
    name : str
        From the study file, or that of the folder.
    config : StudyTables or None
        None where the study file is gone or not valid any more.
    results : xarray.Dataset
        In memory.
    volumes, trials : xarray.Dataset or None
        None where there is no such store.
    records : dict of str to dict
        Records of the runs that the results stand on, by id.
    events : list of dict
    """

    study: Study
    name: str
    config: object
    results: xr.Dataset
    volumes: xr.Dataset | None
    trials: xr.Dataset | None
    records: dict
    events: list

    @property
    def models(self) -> list[Model]:
        """Models with at least one repeat done, the best first."""
        nrmse, done = self.results["nrmse"], self.results["status"] == int(Status.DONE)
        cells = nrmse.where(done).stack(cell=("input", "depth", "connection")).transpose("cell", "repeat")
        models = []
        for (kind, depth, connection), scores in zip(cells["cell"].values, cells.values):
            scores = scores[np.isfinite(scores)]
            if len(scores):
                models.append(Model(input=str(kind), depth=int(depth), connection=str(connection), scores=scores))
        return sorted(models, key=lambda model: model.mean)

    def baseline(self, name, kind) -> np.ndarray:
        """NRMSE of a baseline in the repeats that have it, for an input; empty where there is none."""
        if name not in self.results["baseline"].values:
            return np.empty(0)
        values = self.results["baseline_nrmse"].sel(baseline=name, input=kind).values
        return values[np.isfinite(values)]

    @property
    def shown_depth(self) -> int:
        """Depth of the predictions that are drawn: 3 as in the paper, else the first."""
        depths = [int(depth) for depth in self.results["depth"].values]
        return 3 if 3 in depths else depths[0]

    @property
    def shown_input(self) -> str:
        """Input of the predictions that are drawn: that of the best model of the drawn depth."""
        models = [model for model in self.models if model.depth == self.shown_depth]
        return models[0].input if models else str(self.results["input"].values[-1])


def read_evidence(study) -> Evidence:
    """Read what a study has.

    Parameters
    ----------
    study : Study or path-like

    Returns
    -------
    Evidence

    Raises
    ------
    StoreError
        Where there are no results yet, naming the command that makes them; or where a record is damaged.

    Examples
    --------
    >>> read_evidence("studies/quick").models[0].name        # doctest: +SKIP
    '3-layer Both mapper'
    """
    study = study if isinstance(study, Study) else Study(study)
    results = open_results(study).load()
    name, config = _study_file(study)
    return Evidence(
        study=study,
        name=name,
        config=config,
        results=results,
        volumes=_or_none(open_volumes, study),
        trials=_or_none(open_trials, study),
        records=_records_behind(study, results),
        events=list(read_events(study.events)),
    )


def _study_file(study):
    """Name and tables of the study file; what cannot be read is left out, since the results stand without it."""
    try:
        text = study.config.read_text(encoding="utf-8-sig")
        name = str(tomllib.loads(text).get("name") or study.folder.name)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return study.folder.name, None
    try:
        return name, parse_study(text)
    except MotorsweepError:
        return name, None


def _or_none(opener, study):
    try:
        return opener(study)
    except StoreError:
        return None


def _records_behind(study, results):
    """Records of the runs in the results and of the runs that those build on; not those of older configurations."""
    found = dict(list_records(study))
    wanted = {
        str(run_id)
        for name in ("run_id", "baseline_run_id", "cv_run_id")
        if name in results
        for run_id in results[name].values.ravel()
        if run_id
    }
    for run_id in sorted(wanted & found.keys()):
        spec = found[run_id]["spec"]
        wanted |= {spec[key] for key in ("autoencoder", "synergy") if isinstance(spec.get(key), str)}
    return {run_id: found[run_id] for run_id in sorted(wanted & found.keys())}
