"""The study folder: the only place that knows what its files are called, and the lock of its one coordinator."""

import dataclasses
import json
import os
import re
import socket
import tomllib
from contextlib import contextmanager
from pathlib import Path

import filelock

from ..errors import InputError, StoreError
from .atomic import atomic_write_bytes, atomic_write_text, disk_errors

__all__ = ["Study", "atomic_write_bytes", "atomic_write_text", "checked_run_id", "locate"]

_RUN_ID = re.compile(r"[0-9a-f]{16}")


@dataclasses.dataclass(frozen=True)
class Study:
    """One study, one folder. Makes nothing on disk by itself; picklable, so that workers can be told of it.

    Parameters
    ----------
    folder : path-like
        The study's folder; made absolute, ``~`` expanded, since workers may run elsewhere.

    Examples
    --------
    >>> Study("studies/quick").results.name
    'results.zarr'
    """

    folder: Path

    def __post_init__(self):
        object.__setattr__(self, "folder", Path(os.path.abspath(Path(self.folder).expanduser())))

    @property
    def config(self) -> Path:
        """``study.toml``, as the user gave it."""
        return self.folder / "study.toml"

    @property
    def volumes(self) -> Path:
        """``volumes.zarr``: one field volume per coil pose."""
        return self.folder / "volumes.zarr"

    @property
    def features(self) -> Path:
        """``features.zarr``: connectivity of each record, in a study of EEG and EMG."""
        return self.folder / "features.zarr"

    @property
    def kind(self) -> str:
        """Kind of the study by its own copy of the study file, ``"tms"`` where that does not say."""
        try:
            return str(tomllib.loads(self.config.read_text(encoding="utf-8-sig")).get("kind", "tms"))
        except (OSError, ValueError):
            return "eeg" if self.features.exists() else "tms"

    @property
    def trials(self) -> Path:
        """``trials.zarr``: pose, intensity and muscle responses per trial."""
        return self.folder / "trials.zarr"

    @property
    def codes(self) -> Path:
        """``codes.zarr``: one group per autoencoder run."""
        return self.folder / "codes.zarr"

    @property
    def runs(self) -> Path:
        """``runs``: one folder per training."""
        return self.folder / "runs"

    @property
    def results(self) -> Path:
        """``results.zarr``: the view that `collect` builds from the runs."""
        return self.folder / "results.zarr"

    @property
    def report(self) -> Path:
        """``report``: what a person reads."""
        return self.folder / "report"

    @property
    def exports(self) -> Path:
        """``exports``: fields and pictures for other programs; safe to delete."""
        return self.folder / "exports"

    @property
    def logs(self) -> Path:
        """``logs``: one file per process or job."""
        return self.folder / "logs"

    @property
    def slurm(self) -> Path:
        """``slurm``: the scripts of its jobs."""
        return self.folder / "slurm"

    @property
    def jobs(self) -> Path:
        """``slurm/jobs.jsonl``: one line per job that was asked for."""
        return self.slurm / "jobs.jsonl"

    @property
    def events(self) -> Path:
        """``events.jsonl``: one line per event."""
        return self.folder / "events.jsonl"

    @property
    def expected(self) -> Path:
        """``expected.json``: ids and names of the runs that the study file asks for, by stage."""
        return self.folder / "expected.json"

    @property
    def cache(self) -> Path:
        """``cache``: what can be made again, such as head meshes by content id."""
        return self.folder / "cache"

    @property
    def basis(self) -> Path:
        """``basis.json``: which basis of modes the study takes, and where it lies."""
        return self.folder / "basis.json"

    @property
    def bases(self) -> Path:
        """``../bases``: bases of modes, beside the study since others may share them."""
        return self.folder.parent / "bases"

    @property
    def scratch(self) -> Path:
        """``scratch``: temporary files of workers, removed when a stage ends."""
        return self.folder / "scratch"

    @property
    def dashboard(self) -> Path:
        """``scratch/dashboard.json``: where the running stage's Dask dashboard is; goes when the stage ends."""
        return self.scratch / "dashboard.json"

    @property
    def owner(self) -> Path:
        """``.lock.json``: which process coordinates the study, on which host; a killed one leaves it behind."""
        return self.folder / ".lock.json"

    @property
    def ranks(self) -> Path:
        """``.ranks``: by which the ranks of a running training find and hear each other; goes when they end."""
        return self.folder / ".ranks"

    @property
    def making(self) -> Path:
        """``.making``: unfinished folders, renamed into place when whole; safe to delete when nothing runs."""
        return self.folder / ".making"

    def run(self, run_id: str) -> Path:
        """Give the folder of one training, ``runs/<run_id>``."""
        return self.runs / checked_run_id(run_id)

    def record(self, run_id: str) -> Path:
        """Give ``runs/<run_id>/record.json``, written last: where it lies, the run is over."""
        return self.run(run_id) / "record.json"

    def arrays(self, run_id: str) -> Path:
        """Give ``runs/<run_id>/arrays.npz``."""
        return self.run(run_id) / "arrays.npz"

    def checkpoint(self, run_id: str) -> Path:
        """Give ``runs/<run_id>/checkpoint.pt``."""
        return self.run(run_id) / "checkpoint.pt"

    @contextmanager
    def lock(self):
        """Be the one coordinator of this study while the block runs.

        The operating system frees the lock when its process ends, however it ends; nothing has to be removed by hand.

        Raises
        ------
        StoreError
            Naming the process, host and start of the coordinator that is at work already.

        Examples
        --------
        >>> with Study("studies/quick").lock():        # doctest: +SKIP
        ...     ...
        """
        owner = self.owner
        with disk_errors(f"locking the study {self.folder}", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".lock", timeout=0)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise StoreError(_locked_text(self.folder, owner)) from None
        try:
            atomic_write_text(owner, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            yield self
        finally:
            owner.unlink(missing_ok=True)
            lock.release()


def _locked_text(folder, owner):
    try:
        found = json.loads(owner.read_text())
        who = f"process {int(found['pid'])} on host {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return (
        f"locking the study {folder}: {who} coordinates it already; two coordinators would plan the same work twice "
        "and write the same shards. Wait for it, or stop it, then run the same command again"
    )


def checked_run_id(run_id: str) -> str:
    """Return `run_id` if it is 16 hex digits; anything else could name a file outside of the study.

    Raises
    ------
    InputError
        For any other text.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise InputError(
            f"looking for the run {run_id!r}: a run id is 16 hexadecimal digits, as `motorsweep status` and "
            "`results.run_id` show it"
        )
    return run_id


def locate(study_or_path, part: str) -> Path:
    """Find a store of a study: `study_or_path` is a Study, its folder, or the ``.zarr`` folder itself.

    Parameters
    ----------
    study_or_path : Study or path-like
    part : str
        Name of the Study attribute: ``"volumes"``, ``"features"``, ``"trials"``, ``"codes"`` or ``"results"``.

    Examples
    --------
    >>> locate("studies/quick", "trials").name
    'trials.zarr'
    """
    if isinstance(study_or_path, Study):
        return getattr(study_or_path, part)
    path = Path(study_or_path).expanduser()
    return path if path.suffix == ".zarr" else getattr(Study(path), part)
