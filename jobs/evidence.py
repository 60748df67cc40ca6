"""What a report is made from: everything that a finished, or unfinished, study has on disk, read once."""

import tomllib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..errors import MotorsweepError, StoreError
from ..hpc.events import read_events
from ..zarr_store.results import open_results
from ..zarr_store.runs import list_records
from ..zarr_store.schema import Method, Status
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
        return models_of(self.results)

    def baseline(self, name, kind) -> np.ndarray:
        """NRMSE of a baseline in the repeats that have it, for an input; empty where there is none."""
        return baseline_of(self.results, name, kind)

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


def models_of(results) -> list[Model]:
    """Models of a results Dataset with at least one repeat done, the best mean first.

    Examples
    --------
    >>> models_of(open_results("studies/quick"))[0].name        # doctest: +SKIP
    '3-layer Both mapper'
    """
    done = results["status"] == int(Status.DONE)
    cells = results["nrmse"].where(done).stack(cell=("input", "depth", "connection")).transpose("cell", "repeat")
    models = []
    for (kind, depth, connection), scores in zip(cells["cell"].values, cells.values):
        scores = scores[np.isfinite(scores)]
        if len(scores):
            models.append(Model(input=str(kind), depth=int(depth), connection=str(connection), scores=scores))
    return sorted(models, key=lambda model: model.mean)


def baseline_of(results, name, kind) -> np.ndarray:
    """NRMSE (repeats that have it,) of a baseline for an input; empty where there is none."""
    if name not in results["baseline"].values:
        return np.empty(0)
    values = results["baseline_nrmse"].sel(baseline=name, input=kind).values
    return values[np.isfinite(values)]


def version_rows(records) -> list[dict]:
    """Versions that made the records, and how many runs each; empty where no record says.

    Examples
    --------
    >>> version_rows({"a": {"provenance": {"python": "3.13.1"}}})
    [{'Part': 'python', 'Version': '3.13.1', 'Runs': '1'}]
    """
    seen = {}
    for record in records.values():
        made = record.get("provenance") or {}
        commit = (made.get("commit") or "")[:12] + (" with changes" if made.get("dirty") else "")
        texts = {"motorsweep": made.get("version"), "commit": commit, "numerics": made.get("numerics")}
        texts |= {"python": made.get("python"), **(made.get("packages") or {}), "host": made.get("host")}
        texts["SLURM job"] = made.get("slurm_job_id")
        for key, text in texts.items():
            if text not in (None, ""):
                seen.setdefault(key, Counter())[str(text)] += 1
    return [
        {"Part": key, "Version": text, "Runs": str(count)}
        for key, counts in seen.items()
        for text, count in counts.most_common(6)
    ]


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


def facts(evidence: Evidence) -> list[tuple[str, str]]:
    """Head, coil, poses, grid and trials: (what, value) pairs."""
    rows = _volume_facts(evidence.volumes) if evidence.volumes is not None else []
    rows += _trial_facts(evidence.trials) if evidence.trials is not None else []
    results = evidence.results
    models = " and ".join(f"{depth}" for depth in results["depth"].values)
    connections = ", ".join(CONNECTION_NAMES.get(str(each), str(each)) for each in results["connection"].values)
    return [*rows, ("Models", f"{models} layers; {connections}; test splits: {results.sizes['repeat']}")]


def _volume_facts(volumes):
    notes, n, axis = volumes.attrs.get("notes", {}), volumes.sizes["x"], volumes["x"].values * 1e3
    status = volumes["status"].values
    head = str(notes.get("head_name", "unknown"))
    if "head_tets" in notes:
        head += f", {int(notes['head_nodes']):,} nodes, {int(notes['head_tets']):,} tetrahedra"
    poses = f"{len(status)}, of which {int((status == int(Status.DONE)).sum())} solved"
    residual = volumes["residual"].values[status == int(Status.DONE)] if "residual" in volumes else np.empty(0)
    if np.isfinite(residual).any():
        poses += f"; largest relative residual {np.nanmax(residual):.1e}"
    poses += _by_modes(volumes)
    mask = int(volumes["motor_mask"].values.sum())
    return [
        ("Head", head),
        ("Elements", _elements(volumes)),
        ("Coil", ", ".join(filter(None, (str(notes.get("coil_name", "unknown")), notes.get("coil_description"))))),
        ("Poses", poses),
        ("Volumes", f"{n} × {n} × {n} voxels of {abs(axis[1] - axis[0]):.3g} mm; motor mask {mask:,} voxels"),
    ]


def _by_modes(volumes):
    """How many poses a basis of modes has served, and how well."""
    if "error_estimate" not in volumes or not (volumes["method"].values == int(Method.MODES)).any():
        return ""
    estimates = volumes["error_estimate"].values
    served = np.isfinite(estimates)
    return (
        f"; {served.sum()} by modes, estimated to be off by {np.nanmax(estimates):.2%} at most (median "
        f"{np.nanmedian(estimates):.2%}) in brain tissue"
    )


def _elements(volumes):
    spec, notes = volumes.attrs.get("config", {}).get("elements", {}), volumes.attrs.get("notes", {})
    kind = "linear, gradients recovered tissue by tissue"
    if spec.get("order") == 2:
        kind = f"second order in the volume and {spec['margin_mm']:g} mm around it, linear elsewhere"
    return kind + (f"; {int(notes['unknowns']):,} unknowns" if "unknowns" in notes else "")


def _trial_facts(trials):
    percent, counts = np.unique(trials["intensity_percent_rmt"].values, return_counts=True)
    deal = (
        ", ".join(f"{count} at {each:g} %" for each, count in zip(percent, counts))
        if len(percent) < 9
        else "many intensities"
    )
    left = int(trials.attrs.get("left_out_trials", 0))
    text = f"{trials.sizes['trial']} ({deal} RMT), {trials.sizes['muscle']} muscles"
    return [("Trials", text + (f"; {left} left out, as their poses failed" if left else ""))]
