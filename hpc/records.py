"""Records of trainings: what ``record.json`` says, for runs that are done and for those that failed."""

import time
from datetime import UTC, datetime

from ..zarr_store.ids import provenance


def record_of(run, began, *, scores=None, loss=(), reason="", how=None):
    """Record of a run.

    Parameters
    ----------
    run : Run
    began : float
        Seconds since the epoch.
    scores : mapping, optional
    loss : sequence of float
        Mean loss of each epoch.
    reason : str
        Why it failed; empty when it is done.
    how : mapping, optional
        What a network was trained on: device, precision.

    Returns
    -------
    dict
        Plain values.
    """
    return {
        "kind": run.kind,
        "spec": run.spec,
        "labels": run.labels,
        "status": "failed" if reason else "done",
        "reason": reason,
        "scores": dict(scores or {}),
        "loss": [float(value) for value in loss],
        "seconds": time.time() - began,
        "started": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "provenance": provenance() | dict(how or {}),
    }
