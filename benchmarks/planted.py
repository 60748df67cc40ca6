"""How near the response model comes to the best possible score, whatever the curve that planted the responses.

Run as ``python benchmarks/planted.py STUDY.toml`` after ``motorsweep simulate STUDY.toml``, in the same folder. The
responses of the study's trials are simulated anew with other firing-rate curves (half-activation field and slope, in
multiples of the field at motor threshold; the study's default is 1.15 and 0.08); the response model sees raw |E| alone.
Test sets are the study's own; NRMSE is the mean over the repeats.
"""

import argparse

import numpy as np
from machine import describe, row, table
from motorsweep.hpc.identity import hand_knob_mm
from motorsweep.jobs.config import load_study_config
from motorsweep.learn.response_model import fit_response_model
from motorsweep.learn.scores import nrmse
from motorsweep.learn.splits import test_split
from motorsweep.sim.responses import ResponseModel, calibrate, plant, simulate_responses
from motorsweep.zarr_store.study import Study
from motorsweep.zarr_store.trials import open_trials
from motorsweep.zarr_store.volumes import open_volumes, read_volumes
from threadpoolctl import threadpool_limits

CURVES = ((1.15, 0.08), (1.0, 0.08), (1.3, 0.08), (1.15, 0.03), (1.15, 0.2), (1.4, 0.2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="study file")
    parser.add_argument("--every", type=int, default=3, help="voxel of the mask that is used (default 3)")
    arguments = parser.parse_args()
    config = load_study_config(arguments.study)
    volumes, trials = open_volumes(Study(config.folder)), open_trials(Study(config.folder))
    fields = [read_volumes(Study(config.folder), [pose])[0] for pose in range(volumes.sizes["pose"])]
    print(describe(threads=1))
    print(f"- {trials.sizes['trial']} trials of {config.name}, {config.validation.repeats} repeats\n")
    table("half-activation field", "slope", "response model", "best possible", "ratio")
    for e50, slope in CURVES:
        with threadpool_limits(1):
            ours, best = scores(config, volumes, trials, fields, e50, slope, arguments.every)
        row(e50, slope, f"{ours:.3f}", f"{best:.3f}", f"{ours / best:.3f}")


def scores(config, volumes, trials, fields, e50_of_rmt, slope_of_rmt, every):
    """Mean NRMSE of the response model, and of the expected response."""
    e_rmt, rmt = trials.attrs["rmt_e_v_per_m"], trials.attrs["rmt_a_per_us"]
    e50, slope = e50_of_rmt * e_rmt, slope_of_rmt * e_rmt
    model, mask = ResponseModel(seed=config.seed), volumes["motor_mask"].values
    axes, knob = tuple(volumes[name].values for name in "xyz"), np.array(hand_knob_mm(config)) * 1e-3
    planted = plant(axes, volumes["tissue"].values, mask, config.responses.muscles, knob, model)
    planted = calibrate(planted, fields[trials.attrs["hotspot_pose"]] * rmt, e50, slope, model)
    pose, didt = trials["pose_index"].values, trials["didt"].values
    responses = simulate_responses(fields.__getitem__, pose, didt, e50, slope, planted, model, config.seed)
    inputs = np.array([field[mask][::every] for field in fields])[pose] * np.float32(1e-6) * didt[:, None]
    found = []
    for repeat in range(config.validation.repeats):
        split = trials["intensity_percent_rmt"].values, repeat, config.validation.test_fraction, config.seed
        train, test = test_split(*split)
        low, unit = responses.measured[train].min(0), np.ptp(responses.measured[train], axis=0)
        prediction = fit_response_model(
            inputs.astype(np.float32), None, None, responses.measured, train, test, config.seed
        ).mean
        scaled = [(each - low) / unit for each in (responses.measured[test], prediction, responses.expected[test])]
        found.append([nrmse(scaled[0], each) for each in scaled[1:]])
    return np.mean(found, axis=0)


if __name__ == "__main__":
    main()
