"""What a study's parts depend on: the one place that says what is hashed.

A spec is a nested plain value that holds all that can change the numbers of a part, and nothing else; its content
hash is the part's id. A spec holds the ids of the parts that it builds on. Files count by content, not by name. Specs
follow from the study file alone, so that a plan needs no mesh, no pose and no solve.
"""

import hashlib
import os
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError, StoreError
from ..learn.protocols import AutoencoderTraining, MapperTraining
from ..sim.label_mesh import MESH_VERSION
from ..sim.markers import Target
from ..sim.pose_files import read_markers
from ..sim.template import HAND_KNOB_MM, KEY
from ..zarr_store.bases import basis_id
from ..zarr_store.ids import NUMERICS_VERSION, content_id, plain
from .solver_choice import resolved_method

# The layered sphere's brain ends at 80 mm.
_SPHERE_KNOB_MM = (0.0, 0.0, 75.0)
_BUILTIN = ("template", "sphere", "magstim-70mm", "dipole")


def hand_knob_mm(config):
    """Hand knob of the study's head, (x, y, z) mm: as given, or that of a built-in head.

    Parameters
    ----------
    config : StudyConfig

    Returns
    -------
    tuple of 3 floats, mm
    """
    if config.head.hand_knob_mm is not None:
        return tuple(config.head.hand_knob_mm)
    return HAND_KNOB_MM if config.head.source == "template" else _SPHERE_KNOB_MM


def volume_centre_mm(config):
    """Centre of the volume grid, (x, y, z) mm: as given, or the hand knob."""
    return tuple(config.volume.centre_mm or hand_knob_mm(config))


def head_spec(config):
    """Spec of the head model: source, mesh sizes and conductivities.

    Parameters
    ----------
    config : StudyConfig

    Returns
    -------
    dict
    """
    spec = {"source": _source(config.head.source), "conductivities": plain(config.head.conductivities)}
    if not config.head.source.endswith((".msh", ".msh.gz")):
        sizes = {**plain(config.head.mesh), "centre_mm": list(hand_knob_mm(config)), "version": MESH_VERSION}
        spec["mesh"] = sizes | ({"key": KEY} if config.head.source == "template" else {})
    return spec


def volumes_spec(config):
    """Spec of the field volumes: head, coil, poses, grid, elements and the solver's tolerances; not the mask.

    Exact solvers give the same fields, so which of them is not told; modes are another matter.
    """
    spec = {
        "kind": "volumes",
        "numerics": NUMERICS_VERSION,
        "head": head_spec(config),
        "coil": _source(config.coil.source),
        "poses": _poses_spec(config),
        "hand_knob_mm": list(hand_knob_mm(config)),
        "grid": {
            "n": config.volume.n,
            "spacing_mm": config.volume.spacing_mm,
            "centre_mm": list(volume_centre_mm(config)),
        },
        "components": config.volume.components,
        "elements": _elements_spec(config.solver),
        "rtol": config.solver.rtol,
    }
    return spec | ({"modes": _modes_spec(config.solver)} if resolved_method(config).method == "modes" else {})


def _poses_spec(config):
    poses = plain(config.poses)
    laid = {key: poses.pop(key) for key in ("align", "axes", "align_centre_mm")}
    if config.poses.file:
        whole = {"file": file_hash(config.poses.file), "section": config.poses.section}
        # Of a table of positions only these count: it may hold the responses too, which change no field.
        positions = _positions_hash(config.poses.file, whole["file"])
        if positions is None:
            return whole
        return {"positions": positions, "angle_deg": poses["angle_deg"], "distance_mm": poses["distance_mm"], **laid}
    del poses["file"], poses["section"]
    return poses | {"seed": config.seed if config.poses.random else None}


@lru_cache(maxsize=64)
def _positions_hash(path, content):
    """Hash of the positions in a file of this content, rows without one counted; None where it holds whole poses."""
    if not path.lower().endswith((".csv", ".tsv")):
        return None
    with warnings.catch_warnings():  # who lays the coil over them is told of rows without a position
        warnings.simplefilter("ignore")
        markers = read_markers(path)
    if not any(isinstance(marker, Target) for marker in markers):
        return None
    return content_id([marker and [*marker.point_m, marker.angle_deg] for marker in markers])


def _modes_spec(solver):
    # Where the study names no region, that of its poses, which the spec has already.
    spec = {"tolerance": solver.tolerance, "region": plain(solver.region) if solver.region.given else None}
    return spec | ({"basis": _named_basis(solver.basis)} if solver.basis else {})


def _named_basis(path):
    if not os.path.exists(path):
        raise StoreError(f"[solver] basis names {path}, which is not there; put it back or mend the path.")
    return basis_id(path)


def _elements_spec(solver):
    # The margin counts only where there is second order.
    return {"order": 2, "margin_mm": solver.margin_mm} if solver.order == 2 else {"order": 1}


def trials_spec(config, left_out=()):
    """Spec of the trials: stimulation, firing, mask, responses, and the poses left out because they failed."""
    responses = {"synthetic": plain(config.responses.synthetic), "muscles": list(config.responses.muscles)}
    if config.responses.file:
        responses = {"file": file_hash(config.responses.file)}
    if config.responses.file and config.poses.file:
        responses["numbering"] = "markers"  # untracked ones count, which they once did not
    stimulation = plain(config.stimulation)
    if config.responses.file:
        # The file's own trials count, not the designed ones; a single intensity may be that of all its trials.
        del stimulation["trials"]
        if len(config.stimulation.intensities_percent_rmt) > 1:
            del stimulation["intensities_percent_rmt"]
    mask = {"radius_mm": config.volume.mask_radius_mm}
    if config.volume.mask_file:
        mask = {"file": file_hash(config.volume.mask_file)}
    return {
        "kind": "trials",
        "volumes": content_id(volumes_spec(config)),
        "seed": config.seed,
        "stimulation": stimulation,
        "firing": plain(config.firing),
        "mask": mask,
        "responses": responses,
        "left_out": [int(pose) for pose in left_out],
    }


def autoencoder_training(config):
    """How the study's autoencoders are trained."""
    return AutoencoderTraining(protocol=config.protocol, **vars(config.autoencoder))


def mapper_training(config):
    """How the study's mappers are trained; what the sweep varies stands in each run's `Cell`."""
    swept = ("depths", "connections", "activation")
    values = {key: value for key, value in vars(config.mappers).items() if key not in swept}
    return MapperTraining(protocol=config.protocol, **values)


def training_seed(seed, repeat):
    """Seed of initial weights, order and dropout: another one for each repeat, the same for all models of it.

    So that models are compared like with like, and the spread over repeats holds the luck of a start.
    """
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])


def autoencoder_spec(config, trials_id, kind, scaling, repeat, fold):
    """Spec of one autoencoder training: its input, the trials it may see, and how it learns."""
    return {
        "kind": "autoencoder",
        "numerics": NUMERICS_VERSION,
        "trials": trials_id,
        "seed": config.seed,
        "training_seed": training_seed(config.seed, repeat),
        "input": kind,
        "scaling": scaling,
        "split": split_spec(config, repeat, fold),
        "training": plain(autoencoder_training(config)),
    }


def split_spec(config, repeat, fold, trials=None):
    """Which trials a training may see: by repeat, by fold where there is one, and how many on a learning curve."""
    spec = {"repeat": repeat, "test_fraction": config.validation.test_fraction, "fold": fold}
    spec |= {"folds": config.validation.folds} if fold is not None else {}
    return spec | ({"trials": trials} if trials is not None else {})


def mapper_spec(config, autoencoder_id, cell, synergy_id, split):
    """Spec of one mapper training: its codes, the cell of the sweep, and for ``both`` the synergy run below it."""
    training = plain(mapper_training(config))
    for swept in ("dropout", "l1"):
        del training[swept]
    if cell.connection == "direct":
        del training["synergies"]
    if cell.connection == "direct" or training["synergies"]:
        del training["synergy_vaf"]
    return {
        "kind": "mapper",
        "numerics": NUMERICS_VERSION,
        "autoencoder": autoencoder_id,
        "seed": config.seed,
        "training_seed": training_seed(config.seed, split["repeat"]),
        "cell": plain(cell),
        "split": split,
        "training": training,
        "synergy": synergy_id,
    }


def baseline_spec(config, autoencoder_id, split):
    """Spec of the predictors without a network, on the inputs and codes of one autoencoder."""
    return {
        "kind": "baseline",
        "numerics": NUMERICS_VERSION,
        "autoencoder": autoencoder_id,
        "seed": config.seed,
        "split": split,
    }


def _source(source):
    return source if source in _BUILTIN else {"file": file_hash(source)}


def file_hash(path):
    """Content hash of a file, 16 hex digits; read again only when its size or time of change is another.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    path = Path(path)
    try:
        state = path.stat()
        return _hashed(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise InputError(f"reading {path}: {error.strerror}; check the path in the study file.") from error


@lru_cache(maxsize=64)
def _hashed(path, size, changed):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
