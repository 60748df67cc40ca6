"""The ``motorsweep`` command: reads arguments, calls :mod:`.pipeline`, prints the answer, and says how it went.

Answers go to stdout, progress and faults to stderr. Exit codes: 0 done; 1 some work failed; 2 bad usage, study file or
input; 130 stopped by Ctrl-C; 143 stopped by SIGTERM. What is slow to load (torch, PETSc, Dask) is loaded only by the
commands that need it.
"""

import errno
import json
import os
import re
import signal
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from .. import __version__
from ..errors import ConfigError, InputError, MissingPackageError, MotorsweepError
from .options import RunOptions, WholeNumber

DONE, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
STOPPED = "stopped; nothing that was computed is lost: the same command goes on"

app = App(
    name="motorsweep",
    version=__version__,
    suppress_keyboard_interrupt=False,  # call() closes with a word of its own
    default_parameter=Parameter(negative=()),  # no --no-json
    help="""From TMS coil poses to muscle responses: simulate, encode, train, and see which model explains the muscles.

A study is one TOML file. The same command again does only what is missing.

Example: `motorsweep run study.toml`

With `--debug` (or MOTORSWEEP_DEBUG=1) an error shows where in the program it arose.""",
)
_everything = Group("All at once", sort_key=1)
_stages = Group("Stage by stage, in this order", sort_key=2)
_questions = Group("Questions", sort_key=3)

Options = Annotated[RunOptions, Parameter(name="*")]


@app.command(group=_everything, sort_key=1)
def run(study: Path, *, options: Options = RunOptions()) -> int:
    """Do everything that is not yet done: simulate, encode, train, collect, report.

    Example: `motorsweep run study.toml --workers 4`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = _config(study)
    return _print_results(_pipeline().run(config, options), study)


@app.command(group=_everything, sort_key=2)
def plan(study: Path, *, json: bool = False) -> int:
    """Show what is done, what is left, and what it will cost. Computes nothing.

    Example: `motorsweep plan study.toml`

    Parameters
    ----------
    study
        The study's TOML file.
    json
        Print JSON, for scripts.
    """
    config = _config(study)
    return _print_answer(_pipeline().plan(config), json)


@app.command(group=_stages, sort_key=1)
def simulate(study: Path, *, options: Options = RunOptions()) -> int:
    """Solve the electric field of every coil pose and keep it as labelled volumes.

    Example: `motorsweep simulate study.toml --retry-failed`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = _config(study)
    return _print_results([_pipeline().simulate(config, options)], study)


@app.command(group=_stages, sort_key=2)
def encode(study: Path, *, options: Options = RunOptions()) -> int:
    """Train the autoencoders on the volumes and keep the codes.

    Example: `motorsweep encode study.toml --executor serial`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = _config(study)
    return _print_results([_pipeline().encode(config, options)], study)


@app.command(group=_stages, sort_key=3)
def train(study: Path, *, options: Options = RunOptions()) -> int:
    """Train every mapper from codes to muscle responses.

    Example: `motorsweep train study.toml --workers 2`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = _config(study)
    return _print_results([_pipeline().train(config, options)], study)


@app.command(group=_stages, sort_key=4)
def collect(study: Path) -> int:
    """Gather the records of all runs into one labelled results store.

    Example: `motorsweep collect study.toml`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = _config(study)
    return _print_results([_pipeline().collect(config, RunOptions())], study)


@app.command(group=_stages, sort_key=5)
def report(study: Path) -> int:
    """Write the report: tables and figures in one HTML file.

    Example: `motorsweep report study.toml`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = _config(study)
    return _print_results([_pipeline().report(config, RunOptions())], study)


@app.command(group=_questions, sort_key=1)
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
    folder = _folder(study)
    return _print_answer(_pipeline().status(folder, failed=failed), json)


@app.command(group=_questions, sort_key=2)
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
    folder = _folder(study)
    if re.fullmatch(r"-?[0-9]{1,7}", which):
        return _print_answer(_pipeline().show_pose(study, int(which), out, picture=not facts), json)
    return _print_answer(_pipeline().show(folder, which), json)


@app.command(group=_questions, sort_key=3)
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
    _folder(study)
    choices = {"pose": pose, "poses": poses, "of": of, "components": components}
    return _print_answer(_pipeline().export(study, format, **choices, didt_a_per_us=didt, out=out, quiet=quiet), json)


@app.command(group=_questions, sort_key=4)
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
    folder = _folder(study)
    answer = _pipeline().verify(folder, repair)
    _print_answer(answer, json)
    return DONE if answer.ok else FAILED


def main(arguments=None) -> None:
    """Run the command line, by default that of the process, and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or os.environ.get("MOTORSWEEP_DEBUG", "0") not in ("", "0")
    signal.signal(signal.SIGTERM, _on_terminate)
    arguments = [each for each in arguments if each != "--debug"]
    sys.exit(_as_rank(lambda: call(arguments, debug=debug), arguments))


def _as_rank(command, arguments):
    """The command's exit code; under mpirun the ranks share its work, and one of them answers."""
    if not any(name in os.environ for name in ("OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_SIZE")):
        return command()  # an ordinary start must not wait for what follows to load
    from ..hpc.mpi_executor import run_command

    return run_command(command, arguments)


def call(arguments: list[str], debug: bool = False) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : list of str
        Command and options.
    debug : bool
        Let errors through, with their tracebacks.

    Returns
    -------
    int
        See the module's docstring. A bug of the program is raised as it is.
    """
    try:
        with _warnings_as_lines(debug):
            return app(arguments, exit_on_error=False, result_action="return_value") or DONE
    except CycloptsError:
        return USAGE  # cyclopts has printed what was wrong, and what may have been meant
    except KeyboardInterrupt as stop:
        print(f"\n{STOPPED}", file=sys.stderr)
        return TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has what it wanted; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except MotorsweepError as error:
        if debug:
            raise
        print(f"motorsweep: {error}", file=sys.stderr)
        return USAGE if isinstance(error, (ConfigError, InputError, MissingPackageError)) else FAILED
    except OSError as error:
        if debug:
            raise
        advice = "; make room, then give the same command again" if error.errno == errno.ENOSPC else ""
        print(f"motorsweep: {error}{advice}", file=sys.stderr)
        return FAILED


@contextmanager
def _warnings_as_lines(debug):
    """Warnings that are meant for the user (UserWarning) as one line each, once; the others, and to debug, as ever."""
    before, told = warnings.showwarning, set()

    def show(message, category, *place, **named):
        if debug or not issubclass(category, UserWarning):
            before(message, category, *place, **named)
        elif str(message) not in told:
            told.add(str(message))
            print(f"motorsweep: {message}", file=sys.stderr)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


class _Terminated(KeyboardInterrupt):
    """SIGTERM (a batch system's time is up) closes things as Ctrl-C does."""


def _on_terminate(number, frame):
    raise _Terminated


def _pipeline():
    # After the study file was checked: a typo must not wait for torch to load.
    from . import pipeline

    return pipeline


def _config(path):
    from .config import load_study_config

    return load_study_config(path)


def _folder(study: Path) -> Path:
    return study if study.is_dir() else Path(_config(study).folder)


def _print_results(results, study) -> int:
    """Print each stage's line as the stage ends; 1 if anything failed."""
    failed = 0
    for result in results:
        print(result.line(), flush=True)
        if result.failed and not failed:
            print(f"{'':<9} why, and what to do: motorsweep status {study} --failed", flush=True)
        if result.table:
            print("", *result.table, "", sep="\n", flush=True)
        failed += result.failed
    return FAILED if failed else DONE


def _print_answer(answer, as_json) -> int:
    print(json.dumps(answer.as_dict(), indent=2) if as_json else "\n".join(answer.lines()), flush=True)
    return DONE


if __name__ == "__main__":
    main()
