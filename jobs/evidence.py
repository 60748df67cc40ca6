"""What a report is made from: everything that a finished, or unfinished, study has on disk, read once."""

import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from ..errors import MotorsweepError, StoreError
from ..hpc.events import read_events
from ..zarr_store.results import open_results
from ..zarr_store.runs import list_records
from ..zarr_store.study import Study
from ..zarr_store.trials import open_trials
from ..zarr_store.volumes import open_volumes
from .conclusions import Conclusion, conclusions
from .config import parse_study
from .contrasts import scores_of
from .ranking import Predictor, completed, ranking


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
        In memory, with what an older version did not write as missing.
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

    @cached_property
    def ranking(self) -> list[Predictor]:
        """All predictors, the best first; see `ranking`."""
        return ranking(self.results)

    @property
    def networks(self) -> list[Predictor]:
        """Networks with at least one repeat done, the best first."""
        return [each for each in self.ranking if each.is_network and each.known.size]

    @cached_property
    def conclusions(self) -> list[Conclusion]:
        """What the paper concludes, judged by this study."""
        poses = None if self.trials is None else self.trials["pose_index"].values
        return conclusions(self.results, poses)

    def baseline(self, name, kind) -> np.ndarray:
        """NRMSE of a baseline in the repeats that have it, for an input; empty where there is none."""
        scores = scores_of(self.results, (kind, name))
        return scores[np.isfinite(scores)]

    @property
    def shown_depth(self) -> int:
        """Depth of the predictions that are drawn: 3 as in the paper, else the first."""
        depths = [int(depth) for depth in self.results["depth"].values]
        return 3 if 3 in depths else depths[0]

    @property
    def shown_input(self) -> str:
        """Input of the predictions that are drawn: that of the best model of the drawn depth."""
        networks = [each for each in self.networks if each.key[1] == self.shown_depth]
        return networks[0].input if networks else str(self.results["input"].values[-1])


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
    >>> read_evidence("studies/quick").networks[0].name        # doctest: +SKIP
    'the 3-layer Both mapper on firing rate'
    """
    study = study if isinstance(study, Study) else Study(study)
    results = completed(open_results(study).load())
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
        for name in ("run_id", "baseline_run_id", "cv_run_id", "curve_run_id", "curve_baseline_run_id")
        if name in results
        for run_id in results[name].values.ravel()
        if run_id
    }
    for run_id in sorted(wanted & found.keys()):
        spec = found[run_id]["spec"]
        wanted |= {spec[key] for key in ("autoencoder", "synergy") if isinstance(spec.get(key), str)}
    return {run_id: found[run_id] for run_id in sorted(wanted & found.keys())}
