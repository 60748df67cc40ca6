"""Commands that ask a study: ``status``, ``dashboard``, ``show``, ``export``, ``verify``."""

import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..zarr_store.study import Study
from .app import DONE, FAILED, app, find_folder, load_pipeline, print_answer, questions
from .options import WholeNumber


@app.command(group=questions, sort_key=1)
def status(study: Path, *, failed: bool = False, json: bool = False) -> int:
    """Show how far the study is.

    Example: `motorsweep status study.toml --failed`

    Parameters
    ----------
    study
        The study's TOML file, or its folder.
    failed
        Show what failed, by cause, and how to try it again.
    json
        Print JSON, for scripts.
    """
    folder = find_folder(study)
    return print_answer(load_pipeline().status(folder, failed=failed), json)


@app.command(group=questions, sort_key=2)
def show(study: Path, which: str, *, out: Path | None = None, facts: bool = False, json: bool = False) -> int:
    """Show one run (settings, scores, where it came from), or one coil pose (place, field, a 3D picture).

    Example: `motorsweep show study.toml 3`

    Parameters
    ----------
    study
        The study's TOML file, or its folder.
    which
        The run's id, as in the results' `run_id`; or the number of a pose (fewer than 8 digits).
    out
        The picture of a pose, a PNG; by default in the study's folder, under exports, if this machine can draw.
    facts
        Of a pose only the facts, no picture.
    json
        Print JSON, for scripts.
    """
    folder = find_folder(study)
    if re.fullmatch(r"-?[0-9]{1,7}", which):
        return print_answer(load_pipeline().show_pose(study, int(which), out, picture=not facts), json)
    return print_answer(load_pipeline().show(folder, which), json)


@app.command(group=questions, sort_key=3)
def export(
    study: Path,
    *,
    format: Literal["msh", "nii.gz", "vtu", "e_matrix"],
    pose: WholeNumber = None,
    poses: str | None = None,
    of: Literal["motor_mask", "brain", "elements"] | None = None,
    components: bool = False,
    didt: float = 1.0,
    out: Path | None = None,
    quiet: bool = False,
    json: bool = False,
) -> int:
    """Write fields for other programs: SimNIBS and Gmsh (msh), image viewers (nii.gz), ParaView (vtu), HDF5 (e_matrix).

    Example: `motorsweep export study.toml --pose 3 --format msh`

    Parameters
    ----------
    study
        The study's TOML file, or its folder.
    format
        msh, vtu: E in the head's elements, solved again. nii.gz: the stored volume. e_matrix: |E|, poses x columns.
    pose
        The pose, by its number.
    poses
        START:STOP, for e_matrix; by default all poses that are done.
    of
        Columns of e_matrix: voxels from the store (motor_mask by default), or the brain's elements in the cube (solved
        again).
    components
        E along x, y, z: in place of |E| in nii.gz, beside it in e_matrix.
    didt
        Rate of change of the coil current, A/us; fields are proportional to it.
    out
        The file; by default in the study's folder, under exports.
    quiet
        No progress.
    json
        Print JSON, for scripts.
    """
    find_folder(study)
    choices = {"pose": pose, "poses": poses, "of": of, "components": components}
    return print_answer(
        load_pipeline().export(study, format, **choices, didt_a_per_us=didt, out=out, quiet=quiet), json
    )


@app.command(group=questions, sort_key=4)
def verify(study: Path, *, repair: bool = False, json: bool = False) -> int:
    """Read everything that counts as done, and tell what is damaged.

    Example: `motorsweep verify study.toml --repair`

    Parameters
    ----------
    study
        The study's TOML file, or its folder.
    repair
        Mark what is damaged as not done, so that the next run makes it again.
    json
        Print JSON, for scripts.
    """
    folder = find_folder(study)
    answer = load_pipeline().verify(folder, repair)
    print_answer(answer, json)
    return DONE if answer.ok else FAILED


@app.command(group=questions, sort_key=2)
def dashboard(
    study: Path,
    *,
    port: WholeNumber = None,
    no_open: bool = False,
    print_only: Annotated[bool, Parameter(name="--print")] = False,
) -> int:
    """Show the study live in the browser: progress, pace, best score, failures, jobs. Ctrl-C ends it.

    Example: `motorsweep dashboard study.toml --port 8080`

    Parameters
    ----------
    study
        The study's TOML file, or its folder.
    port
        Of this machine's loopback; any that is free by default.
    no_open
        Open no browser.
    print_only
        Only print where Dask's dashboard is, with a line to reach it from your own machine.
    """
    folder = find_folder(study)
    from .dashboard import dask_lines, serve_dashboard

    if print_only:
        print(*dask_lines(Study(folder)), sep="\n", flush=True)
    else:
        serve_dashboard(folder, port=port or 0, open_browser=not no_open)
    return DONE
