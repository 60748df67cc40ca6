"""What failed in a study: poses and trainings, each with its reason."""

import shlex

from ..hpc.predictor_names import CONNECTION_NAMES, INPUT_NAMES
from ..zarr_store.schema import Status
from .evidence import Evidence


def failure_rows(evidence: Evidence) -> list[dict]:
    """Write a row for each failed pose and training: what, why, and the command that tells more."""
    return _failed_poses(evidence) + _failed_runs(evidence)


def _failed_poses(evidence):
    if evidence.volumes is None:
        return []
    status = evidence.volumes["status"].values
    reasons = evidence.volumes["reason"].values if "reason" in evidence.volumes else [""] * len(status)
    failed = [number for number, state in enumerate(status) if int(state) == int(Status.FAILED)]
    return [{"What": f"pose {number}", "Why": str(reasons[number]), "More": "–"} for number in failed]


def _failed_runs(evidence):
    folder = shlex.quote(str(evidence.study.folder))
    return [
        {"What": _run_name(record), "Why": record["reason"], "More": f"motorsweep show {folder} {run_id}"}
        for run_id, record in evidence.records.items()
        if record["status"] == "failed"
    ]


def _run_name(record):
    labels = record["labels"]
    words = [record["kind"]] + ([f"{labels['depth']}-layer"] if labels.get("depth") else [])
    if labels.get("connection"):
        words.append(CONNECTION_NAMES.get(labels["connection"], labels["connection"]))
    kind = labels.get("input")
    name = f"{' '.join(words)} on {INPUT_NAMES.get(kind, kind)}, repeat {labels.get('repeat')}"
    name += "" if labels.get("trials") is None else f", {labels['trials']} trials"
    return name if labels.get("fold") is None else f"{name}, fold {labels['fold']}"
