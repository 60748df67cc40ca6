"""Runs: one folder per training. Its record is the truth, written last; the results are a view of records."""

import io
import json
import math

import numpy as np

from ..errors import InputError, StoreError
from .atomic import atomic_write_bytes, atomic_write_text
from .ids import content_id, plain
from .schema import Status
from .study import Study, checked_run_id

KINDS = ("autoencoder", "mapper", "baseline", "network", "predictor")


def write_run(study, run_id: str, record: dict, arrays: dict | None = None) -> None:
    """Store a finished training: ``arrays.npz`` first, ``record.json`` last, each whole or not at all.

    Parameters
    ----------
    study : Study or path-like
    run_id : str
        ``content_id(record["spec"])``.
    record : dict
        ``kind``, ``spec``, ``labels``, ``scores``, ``loss``, ... of plain values; ``status`` is set to ``"done"`` and
        ``reason`` to ``""`` unless given. Numbers that are not finite become null, as JSON has no others.
    arrays : dict of ndarray, optional
        Numeric arrays; object arrays are refused, as reading them would run code.

    Raises
    ------
    StoreError
        Where the id is not that of the spec, or the disk refuses.
    InputError
        For a record without kind, spec or labels, or an object array.

    Examples
    --------
    >>> spec = {"depth": 3}
    >>> write_run("studies/quick", content_id(spec),
    ...           {"kind": "mapper", "spec": spec, "labels": {}}, {})        # doctest: +SKIP
    """
    study = study if isinstance(study, Study) else Study(study)
    text = _record_text(run_id, {"status": "done", "reason": "", **record})
    arrays = {name: np.asarray(array) for name, array in (arrays or {}).items()}
    objects = [name for name, array in arrays.items() if array.dtype.hasobject]
    if objects:
        raise InputError(f"writing run {run_id}: {', '.join(objects)} would be stored as pickles; give numeric arrays")
    file = io.BytesIO()
    np.savez(file, **arrays)
    atomic_write_bytes(study.arrays(run_id), file.getvalue())
    atomic_write_text(study.record(run_id), text)


def write_failure(study, run_id: str, record: dict) -> None:
    """Store why a training failed; a run that is done already (a second worker was luckier) stays done.

    Parameters
    ----------
    study : Study or path-like
    run_id : str
    record : dict
        As for `write_run`, with a ``reason``; ``status`` is set to ``"failed"``.

    Raises
    ------
    InputError
        Without a reason: nobody could act on it.
    """
    study = study if isinstance(study, Study) else Study(study)
    if not record.get("reason"):
        raise InputError(f"writing the failure of run {run_id}: it has no reason, so nobody could mend it; give one")
    text = _record_text(run_id, {**record, "status": "failed"})
    if run_state(study, run_id) is not Status.DONE:
        atomic_write_text(study.record(run_id), text)


def read_record(study, run_id: str) -> dict | None:
    """Read the record of a run, or None where there is none.

    Raises
    ------
    StoreError
        Where the record cannot be read, or its spec does not have this id: someone or something changed it.

    Examples
    --------
    >>> read_record("studies/nowhere", "0123456789abcdef") is None
    True
    """
    study = study if isinstance(study, Study) else Study(study)
    path = study.record(run_id)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        record = json.loads(text)
        spec, known = record["spec"], {"kind", "labels", "status", "reason"} <= record.keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(_damaged(path, f"it is not a record ({type(error).__name__}: {error})")) from error
    found = content_id(spec)
    if found != run_id:
        raise StoreError(_damaged(path, f"its spec has the id {found}, not {run_id}: it was changed or copied"))
    if not known or record["status"] not in ("done", "failed"):
        raise StoreError(_damaged(path, "it lacks kind, labels, reason, or a status of done or failed"))
    return record


def read_arrays(study, run_id: str) -> dict[str, np.ndarray]:
    """Read the arrays of a run; never unpickles anything.

    Raises
    ------
    StoreError
        Where the file is not there or damaged.
    """
    study = study if isinstance(study, Study) else Study(study)
    path = study.arrays(run_id)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged zip raises anything from KeyError to struct.error
        raise StoreError(_damaged(path, f"it cannot be read ({type(error).__name__}: {error})")) from error


def list_records(study) -> list[tuple[str, dict]]:
    """Read all records of a study: (run id, record), sorted by id; those of older configurations are among them.

    Raises
    ------
    StoreError
        For a damaged record.
    """
    study = study if isinstance(study, Study) else Study(study)
    ids = sorted(path.parent.name for path in study.runs.glob("*/record.json"))
    return [(run_id, read_record(study, run_id)) for run_id in ids]


def run_state(study, run_id: str) -> Status:
    """Tell whether a run is done, failed, or still to be made. Done needs the arrays too.

    Raises
    ------
    StoreError
        For a damaged record.

    Examples
    --------
    >>> run_state("studies/nowhere", "0123456789abcdef").name
    'PENDING'
    """
    study = study if isinstance(study, Study) else Study(study)
    return record_state(study, run_id, read_record(study, run_id))


def record_state(study: Study, run_id: str, record: dict | None) -> Status:
    """Tell the state of a run whose record was read already; see `run_state`."""
    if record is None:
        return Status.PENDING
    if record["status"] == "failed":
        return Status.FAILED
    return Status.DONE if study.arrays(run_id).is_file() else Status.PENDING


def _record_text(run_id, record):
    missing = [key for key in ("kind", "spec", "labels") if key not in record]
    if missing or record["kind"] not in KINDS:
        found = f"no {', '.join(missing)}" if missing else f"kind {record['kind']!r}"
        raise InputError(
            f"writing run {run_id}: the record has {found}; it could not be found again. It needs a spec, labels and a "
            f"kind of {', '.join(KINDS)}"
        )
    found = content_id(record["spec"])
    if found != checked_run_id(run_id):
        raise StoreError(
            f"writing run {run_id}: the spec has the id {found}; under another id it would be refused when read. Name "
            "the run content_id(spec)"
        )
    rest = {key: plain(_finite(value), key) for key, value in record.items() if key != "spec"}
    ordered = {"kind": rest.pop("kind"), "spec": plain(record["spec"]), **rest}
    return json.dumps(ordered, indent=1, allow_nan=False) + "\n"


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, (float, np.floating)) and not math.isfinite(value):
        return None
    return value


def _damaged(path, found):
    return (
        f"reading {path}: {found}; its numbers cannot be trusted. Remove the folder {path.parent} and run the same "
        "command again: only this run is trained anew"
    )
