"""How long a training takes: as this study's own took, else a guess; for the plan, and to do the dearest first."""

import numpy as np

from ..zarr_store.runs import list_records

# Core-seconds of a piece of work, as long as the study has not measured its own: see docs/performance.md.
SECONDS_PER_VOLUME_AND_EPOCH = 0.085
SECONDS_OF_BASELINES = 20.0
SECONDS_PER_CODE_AND_EPOCH = {3: 1.1e-3, 6: 3.9e-3}


def measured_seconds(study) -> dict:
    """Median seconds of the study's own trainings, by kind and depth.

    Parameters
    ----------
    study : Study

    Returns
    -------
    dict
    """
    seconds = {}
    for _, record in list_records(study) if study.runs.exists() else []:
        if record["status"] == "done":
            seconds.setdefault((record["kind"], record["labels"].get("depth")), []).append(record["seconds"])
    return {key: float(np.median(values)) for key, values in seconds.items()}


def training_seconds(run, config, trials: int, measured) -> float:
    """Core-seconds that a training takes.

    Parameters
    ----------
    run : Run
    config : StudyConfig
    trials : int
        Of the study.
    measured : mapping
        From `measured_seconds`.

    Returns
    -------
    float
    """
    volume = (config.volume.n / 64) ** 3
    if run.kind == "baseline":
        return measured.get(("baseline", None), SECONDS_OF_BASELINES)
    if run.kind == "autoencoder":
        # Training sees each calibration volume once an epoch; encoding all of them is cheap beside it.
        guess = trials * 0.9 * config.autoencoder.epochs * SECONDS_PER_VOLUME_AND_EPOCH * volume
        return measured.get(("autoencoder", None), guess)
    seen = run.trials or trials * 0.9 * (1 if run.fold is None else 1 - 1 / config.validation.folds)
    guess = seen * config.mappers.epochs * SECONDS_PER_CODE_AND_EPOCH[run.cell.depth]
    return measured.get(("mapper", run.cell.depth), guess * volume)
