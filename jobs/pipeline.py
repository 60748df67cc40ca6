"""What each command does, as functions: study file in, answer out."""

from pathlib import Path

from ..errors import InputError
from ..hpc.rank_command import on_all_ranks
from ..zarr_store.study import Study
from .answers import Damage, Shown, StudyStatus
from .options import RunOptions, StageResult


def plan(config):
    """What is done, what is left, and what it will cost; computes nothing.

    Parameters
    ----------
    config : StudyConfig or EegConfig

    Returns
    -------
    Plan or EegPlan
    """
    from .plan import make_plan  # with torch: the questions must not wait for it

    return make_plan(config)


def simulate(config, options=RunOptions()) -> StageResult:
    """Solve the E-field of every pose that is not done, then make the trials; or clean and connect every record.

    Parameters
    ----------
    config : StudyConfig or EegConfig
    options : RunOptions

    Returns
    -------
    StageResult
    """
    return _one(config, options, "simulate")


def encode(config, options=RunOptions()) -> StageResult:
    """Train the autoencoders that are not done, and keep their codes; as `simulate`."""
    return _one(config, options, "encode")


def train(config, options=RunOptions()) -> StageResult:
    """Train the mappers that are not done; as `simulate`."""
    return _one(config, options, "train")


def collect(config, options=RunOptions()) -> StageResult:
    """Gather the records into results.zarr; as `simulate`."""
    return _one(config, options, "collect")


def report(config, options=RunOptions()) -> StageResult:
    """Write the report from the results; as `simulate`."""
    return _one(config, options, "report")


def run(config, options=RunOptions()):
    """Do all that is not yet done, in order.

    Parameters
    ----------
    config : StudyConfig
    options : RunOptions

    Yields
    ------
    StageResult
        As each stage ends.
    """
    with _coordinator(config, options) as coordinator:
        for verb in ("simulate", "encode", "train", "collect", "report"):
            yield getattr(coordinator, verb)()


def submit(configs, only=None, dry_run=False):
    """Send studies to SLURM; see `submit_studies`."""
    from .submit import submit_studies

    return submit_studies(configs, only=only, dry_run=dry_run)


def status(study_folder, failed=False) -> StudyStatus:
    """How far a study is, from its folder alone.

    Parameters
    ----------
    study_folder : path-like
    failed : bool
        Tell what failed, by cause.

    Returns
    -------
    StudyStatus
    """
    return StudyStatus.of(Path(study_folder), failed)


def show(study_folder, run_id) -> Shown:
    """One run: its settings, scores, and where it came from."""
    return Shown.of(Path(study_folder), run_id)


def show_pose(study, pose, out=None, picture=True):
    """One coil pose: where it is, how strong its field; and, if `picture` and it can be, head and coil in 3D as a PNG.

    Parameters
    ----------
    study : path-like
        The study's TOML file, or its folder.
    pose : int
    out : path-like, optional
        The PNG; by default in the study's folder.
    picture : bool

    Returns
    -------
    PoseFacts
    """
    _need_poses(study, "show")
    from .pose_facts import show_pose

    return show_pose(study, pose, out=out, picture=picture)


def export(study, kind, **choices):
    """Write fields of a study for other programs; see `export_study`."""
    _need_poses(study, "export")
    from .export import export_study

    return export_study(study, kind, **choices)


def verify(study_folder, repair=False) -> Damage:
    """Read everything that counts as done; tell, and with `repair` mark as pending, what is damaged."""
    return Damage.of(Path(study_folder), repair)


def _coordinator(config, options):
    if config.kind == "eeg":
        from .eeg_stages import EegCoordinator

        return EegCoordinator(config, options)
    from .stages import Coordinator

    return Coordinator(config, options)


def _need_poses(study, verb):
    """Refuse to show or export coil poses of a study that has none."""
    study = Path(study)
    if study.is_dir():
        kind = Study(study).kind
    else:
        from .config import load_study_config

        kind = load_study_config(study).kind
    if kind == "eeg":
        raise InputError(
            f"{verb}: {study} is a study of EEG and EMG, which has records and no coil poses; "
            "`motorsweep.open_features(FOLDER)` gives their matrices, `motorsweep report` shows them."
        )


def _one(config, options, verb):
    def lead():
        with _coordinator(config, options) as coordinator:
            return getattr(coordinator, verb)()

    return on_all_ranks(Study(config.folder), lead)
