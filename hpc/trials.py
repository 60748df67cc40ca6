"""Trials: which pose was stimulated at which intensity, and how the muscles answered.

Measured responses come from the user's file. Without one, responses are simulated by a planted motor map, whose mean
is kept beside them: the best prediction that there is. Both end in the same store.
"""

import json
from dataclasses import replace

import numpy as np
import xarray as xr

from ..errors import InputError
from ..sim.map_alignment import ALIGNMENTS
from ..sim.response_files import read_responses
from ..sim.responses import ResponseModel, calibrate, plant, simulate_responses
from ..sim.tissues import BRAIN_TAGS
from ..zarr_store.ids import content_id, plain
from ..zarr_store.schema import Status
from ..zarr_store.trials import open_trials, write_trials
from ..zarr_store.volumes import open_volumes, read_volumes
from .identity import hand_knob_mm, trials_spec
from .stimuli import read_stimuli

_PEAK_PERCENTILE = 99.9
_NAMED_AT_MOST = 5


def design_trials(n_poses, n_grid, trials, seed):
    """Deal poses to trials: the pose of every trial, intensity by intensity.

    An intensity with enough trials visits every grid pose once, as in the paper, and deals the rest from the other
    poses; one with fewer deals from all poses. Dealing goes on where the intensity before stopped, over a fixed random
    order, so that all poses are used about equally often.

    Parameters
    ----------
    n_poses, n_grid : int
        Poses in all, of which the first `n_grid` are the grid.
    trials : sequence of int
        Trials at each intensity.
    seed : int

    Returns
    -------
    list of ndarray of int
        Pose numbers for each intensity.

    Examples
    --------
    >>> [len(poses) for poses in design_trials(10, 4, (7, 3), seed=1)]
    [7, 3]
    """
    rng = np.random.default_rng([seed, 2])
    others = rng.permutation(np.arange(n_grid, n_poses)) if n_poses > n_grid else np.arange(n_poses)
    everything = rng.permutation(n_poses)
    dealt, next_other, next_any = [], 0, 0
    for count in trials:
        if 0 < n_grid <= count:
            rest = count - n_grid
            picked = others[(next_other + np.arange(rest)) % len(others)]
            dealt.append(np.concatenate([np.arange(n_grid), picked]))
            next_other += rest
        else:
            dealt.append(everything[(next_any + np.arange(count)) % n_poses])
            next_any += count
    return dealt


def prepare_trials(study, config):
    """Make the trials' store if it is not there, or was made with other settings.

    Parameters
    ----------
    study : Study
        Its volumes must be done.
    config : StudyConfig

    Returns
    -------
    str
        The trials' id.

    Raises
    ------
    InputError
        If the response file cannot be used with these poses.
    """
    volumes = open_volumes(study)
    failed = np.flatnonzero(volumes["status"].values != int(Status.DONE))
    trials_id = content_id(trials_spec(config, failed))
    if study.trials.exists() and open_trials(study).attrs.get("id") == trials_id:
        return trials_id
    hotspot = hotspot_pose(config, volumes)
    peak = _peak(study, volumes, hotspot)
    rmt = config.stimulation.rmt_a_per_us or config.stimulation.rmt_e_v_per_m / peak
    e_rmt = rmt * peak
    firing = {"e50": config.firing.e50_of_rmt * e_rmt, "slope": config.firing.slope_of_rmt * e_rmt}
    if config.responses.file:
        dataset = _measured(config, volumes.sizes["pose"], rmt)
    else:
        dataset = _synthetic(study, config, volumes, hotspot, rmt, firing)
    kept = dataset.isel(trial=~np.isin(dataset["pose_index"].values, failed))
    if not kept.sizes["trial"]:
        raise InputError(
            f"making the trials: all {dataset.sizes['trial']} belong to poses that failed, so there is nothing to "
            "learn from. `motorsweep status STUDY --failed` tells why; try them again with `simulate --retry-failed`."
        )
    kept.attrs.update(
        id=trials_id,
        title="Trials: pose, intensity and muscle responses",
        spec=plain(trials_spec(config, failed)),
        hotspot_pose=int(hotspot),
        rmt_a_per_us=float(rmt),
        rmt_e_v_per_m=float(e_rmt),
        e50_v_per_m=float(firing["e50"]),
        slope_v_per_m=float(firing["slope"]),
        left_out_trials=int(dataset.attrs.get("left_out_trials", 0) + dataset.sizes["trial"] - kept.sizes["trial"]),
    )
    if config.poses.align != "none":
        kept.attrs["positions"] = (
            "measured on another head: moved rigidly onto this one, their plane parallel to the scalp and "
            f"{ALIGNMENTS[config.poses.align]}; the fields are those of this head"
        )
    write_trials(study, kept)
    return trials_id


def expected_trials_id(study, config):
    """Id of the trials as far as it is known: that of the store, else that without any failed pose."""
    failed = ()
    if study.volumes.exists():
        failed = np.flatnonzero(open_volumes(study)["status"].values == int(Status.FAILED))
    return content_id(trials_spec(config, failed))


def hotspot_pose(config, volumes):
    """Number of the pose that the motor threshold refers to: the grid's middle, or the pose nearest the hand knob."""
    if config.poses.grid and not config.poses.file:
        return config.poses.grid**2 // 2
    centres = volumes["pose_matrix"].values[:, :3, 3]
    return int(np.argmin(np.linalg.norm(centres - np.array(hand_knob_mm(config)) * 1e-3, axis=1)))


def _peak(study, volumes, pose):
    """Largest |E| (99.9th percentile) in the brain within the mask at 1 A/µs, V/m."""
    if int(volumes["status"].values[pose]) != int(Status.DONE):
        reason = str(volumes["reason"].values[pose]).rstrip(". ")
        told = f" ({reason})" if reason else ""
        raise InputError(
            f"making the trials: pose {pose}, the hotspot that the motor threshold refers to, has no field{told}. "
            "Try it again with `simulate --retry-failed`, or give [stimulation] rmt_a_per_us and other poses."
        )
    seen = volumes["motor_mask"].values & np.isin(volumes["tissue"].values, BRAIN_TAGS)
    return float(np.percentile(read_volumes(study, [pose])[0][seen], _PEAK_PERCENTILE))


def _synthetic(study, config, volumes, hotspot, rmt, firing):
    table = config.responses.synthetic
    model = ResponseModel(
        synergies=table.synergies,
        direct_share=table.direct_share,
        gain_sd=table.gain_sd,
        muscle_sd=table.muscle_sd,
        noise_v=table.noise_uv * 1e-6,
        seed=config.seed,
    )
    axes = tuple(volumes[name].values for name in "xyz")
    knob = np.array(hand_knob_mm(config)) * 1e-3
    mask, tissue = volumes["motor_mask"].values, volumes["tissue"].values
    motor_map = plant(axes, tissue, mask, config.responses.muscles, knob, model)
    at_threshold = read_volumes(study, [hotspot])[0] * rmt
    motor_map = calibrate(motor_map, at_threshold, firing["e50"], firing["slope"], model)
    n_grid = 0 if config.poses.file else config.poses.grid**2
    dealt = design_trials(volumes.sizes["pose"], n_grid, config.stimulation.trials, config.seed)
    pose_index = np.concatenate(dealt)
    intensity = np.repeat(config.stimulation.intensities_percent_rmt, [len(poses) for poses in dealt])
    # Trials of poses that failed have no field, so no response can be simulated.
    done = volumes["status"].values[pose_index] == int(Status.DONE)
    pose_index, intensity = pose_index[done], intensity[done]
    didt = intensity / 100 * rmt * 1e6
    responses = simulate_responses(
        lambda pose: read_volumes(study, [pose])[0],
        pose_index,
        didt,
        firing["e50"],
        firing["slope"],
        motor_map,
        model,
        config.seed,
    )
    dataset = _dataset(pose_index, intensity, didt, responses.measured, config.responses.muscles)
    muscle = ("trial", "muscle")
    dataset["expected_response"] = (muscle, responses.expected, _attrs("mean response given pose and intensity", "V"))
    dataset["median_response"] = (muscle, responses.median, _attrs("response without variability and noise", "V"))
    dataset.attrs["left_out_trials"] = int((~done).sum())
    dataset.attrs["generative_model"] = json.dumps(plain(model), sort_keys=True)
    return dataset


def check_responses(config, n_poses):
    """Read the user's responses, if there are any, so that a fault in them shows before hours of solves, not after.

    Parameters
    ----------
    config : StudyConfig
    n_poses : int
        Poses in the volumes.

    Returns
    -------
    ResponseTable or None
        Its pose numbers are those of the volumes, -1 where the navigator did not see the coil; its dI/dt is the
        navigator's where the table has none; where neither has any, its intensity is the study's, if that is one alone.

    Raises
    ------
    InputError
        If the file cannot be used with these poses.
    """
    if not config.responses.file:
        return None
    stimuli = read_stimuli(config) if config.poses.file else None
    table = read_responses(config.responses.file, len(stimuli.pose_of) if stimuli else n_poses)
    if stimuli:
        table = _at_stimuli(config, table, stimuli)
    elif table.didt is None and table.intensity_percent_rmt is None:
        table = _at_one_intensity(config, table, "the poses of a grid have no dI/dt")
    wanted = config.mappers.synergies
    if wanted > len(table.muscles) and set(config.mappers.connections) & {"synergy", "both"}:
        raise InputError(
            f"{config.responses.file}: holds {len(table.muscles)} muscles, and [mappers] synergies is {wanted}; a "
            "synergy groups muscles, so there cannot be more of them. Lower synergies, or leave out synergy and both."
        )
    return table


def trial_intensities(config, n_poses):
    """Intensity of each trial that the study will have, if no pose fails; reads the user's responses if there are any.

    Parameters
    ----------
    config : StudyConfig
    n_poses : int
        Poses in the volumes.

    Returns
    -------
    ndarray (t,)
        % RMT; of measured trials with a dI/dt alone, that: what matters is which are alike.

    Raises
    ------
    InputError
        If the file cannot be used with these poses.
    """
    table = check_responses(config, n_poses)
    if table is None:
        return np.repeat(config.stimulation.intensities_percent_rmt, config.stimulation.trials)
    given = table.didt if table.intensity_percent_rmt is None else table.intensity_percent_rmt
    return given[table.pose_index >= 0]


def _at_stimuli(config, table, stimuli):
    """The table with the places of its stimuli, and their dI/dt where it has no intensity of its own."""
    markers = table.pose_index
    seen = stimuli.pose_of[markers] >= 0
    if not seen.any():
        raise InputError(
            f"{config.responses.file}: all {len(markers)} trials belong to markers of {config.poses.file} that have no "
            "pose, so there is nothing to learn from. Check the column 'pose' (markers are counted from 0)."
        )
    table = replace(table, pose_index=stimuli.pose_of[markers])
    if table.didt is None and table.intensity_percent_rmt is None:
        asked = np.unique(markers[seen])
        unknown = asked[np.isnan(stimuli.didt[asked])]
        if len(unknown):
            named = ", ".join(map(str, unknown[:_NAMED_AT_MOST]))
            more = f" and {len(unknown) - _NAMED_AT_MOST} more" if len(unknown) > _NAMED_AT_MOST else ""
            has, marker = ("have", "markers") if len(unknown) > 1 else ("has", "marker")
            found = f"{len(unknown)} of {len(asked)} stimuli that are asked for {has} no dI/dt ({marker} {named}{more})"
            return _at_one_intensity(config, table, found, some=len(unknown) < len(asked))
        table = replace(table, didt=stimuli.didt[markers])
    return table


def _at_one_intensity(config, table, found, some=False):
    """The table with the study's one intensity for all trials; refused where some have a dI/dt, or it has several."""
    intensities = config.stimulation.intensities_percent_rmt
    if some or len(intensities) > 1:
        raise InputError(
            f"{config.responses.file}: has neither a column didt_a_per_us nor intensity_percent_rmt, and {found}, so "
            "the field of its trials is not known; add one of the columns, leave such trials out, or, if all were "
            "given at one intensity, name that alone: [stimulation] intensities_percent_rmt = [110]."
        )
    return replace(table, intensity_percent_rmt=np.full(len(table.response), float(intensities[0])))


def _measured(config, n_poses, rmt):
    table = check_responses(config, n_poses)
    seen = table.pose_index >= 0
    didt, intensity = table.didt, table.intensity_percent_rmt
    didt = intensity / 100 * rmt * 1e6 if didt is None else didt
    intensity = didt / (rmt * 1e6) * 100 if intensity is None else intensity
    dataset = _dataset(table.pose_index[seen], intensity[seen], didt[seen], table.response[seen], table.muscles)
    dataset.attrs["left_out_trials"] = int((~seen).sum())
    return dataset


def _dataset(pose_index, intensity, didt, response, muscles):
    return xr.Dataset(
        {
            "pose_index": ("trial", np.asarray(pose_index, np.int64), _attrs("pose in volumes.zarr", "1")),
            "intensity_percent_rmt": ("trial", np.asarray(intensity, float), _attrs("intensity, % of RMT", "percent")),
            "didt": ("trial", np.asarray(didt, float), _attrs("rate of change of the coil current", "A s-1")),
            "response": (
                ("trial", "muscle"),
                np.asarray(response, float),
                _attrs("peak-to-peak muscle response", "V"),
            ),
        },
        coords={"trial": np.arange(len(pose_index)), "muscle": list(muscles)},
    )


def _attrs(long_name, units):
    return {"long_name": long_name, "units": units}
