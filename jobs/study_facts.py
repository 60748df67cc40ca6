"""What a study rests on: head, coil, poses, trials, and what was assumed rather than measured."""

import json

import numpy as np

from ..hpc.predictor_names import CONNECTION_NAMES
from ..zarr_store.schema import Method, Status
from .evidence import Evidence
from .findings import simulated

_GENERATIVE = {
    "synergies": "{:g} planted synergies",
    "direct_share": "a share of {:g} of the drive by direct connections",
    "gain_sd": "log-normal gain from trial to trial, sd {:g} for all muscles together",
    "muscle_sd": "and sd {:g} for each muscle alone",
    "noise_v": "measurement noise sd {:.3g} µV",
}


def assumptions(evidence: Evidence) -> list[str]:
    """State what was assumed, not measured: threshold field, sigmoid, responses, head."""
    words = []
    notes = {} if evidence.volumes is None else evidence.volumes.attrs.get("notes", {})
    if notes.get("head_comment"):
        words.append(f"Head: {notes['head_comment']}.")
    if evidence.trials is None:
        return words
    attrs = evidence.trials.attrs
    if "rmt_e_v_per_m" in attrs:
        words.append(
            f"Resting motor threshold (RMT): the peak |E| in the brain within the mask at the hotspot pose is "
            f"{attrs['rmt_e_v_per_m']:.1f} V/m at 100 % RMT, which takes "
            f"{attrs.get('rmt_a_per_us', float('nan')):.1f} A/µs in the coil. This peak is the 99.9th percentile of "
            "these voxels; Fig. 1 shows the maximum."
        )
    if "e50_v_per_m" in attrs:
        words.append(
            f"Firing rate: a sigmoid of |E|, half at E50 = {attrs['e50_v_per_m']:.1f} V/m with a slope of "
            f"{attrs.get('slope_v_per_m', float('nan')):.1f} V/m. "
            "Its parameters are published for no human cortex; they are tied to the RMT."
        )
    return [*words, _responses(evidence.trials)]


def _responses(trials):
    if not simulated(trials):
        return "Responses: as measured; the best possible prediction is not known."
    text = "Responses: simulated, not measured. A planted motor map turns firing rates, of the same sigmoid, E50 and "
    text += "slope as the firing-rate input, into muscle responses"
    try:
        model = json.loads(trials.attrs["generative_model"])
    except (KeyError, TypeError, ValueError):
        return f"{text}; their mean is the best possible prediction."
    parts = [
        form.format(model[key] * (1e6 if key == "noise_v" else 1)) for key, form in _GENERATIVE.items() if key in model
    ]
    return f"{text} ({', '.join(parts)}); their mean given pose and intensity is the best possible prediction."


def facts(evidence: Evidence) -> list[tuple[str, str]]:
    """Head, coil, poses, grid and trials: (what, value) pairs."""
    rows = _volume_facts(evidence.volumes) if evidence.volumes is not None else []
    rows += _trial_facts(evidence.trials) if evidence.trials is not None else []
    results = evidence.results
    models = " and ".join(f"{depth}" for depth in results["depth"].values)
    connections = ", ".join(CONNECTION_NAMES.get(str(each), str(each)) for each in results["connection"].values)
    protocol = f"; protocol {results.attrs['protocol']}" if results.attrs.get("protocol") else ""
    splits = f"test splits: {results.sizes['repeat']}"
    return [*rows, ("Models", f"{models} layers; {connections}; {splits}{protocol}")]


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
