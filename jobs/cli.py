"""The ``motorsweep`` command: reads arguments, calls :mod:`.pipeline`, prints the answer, and says how it went.

Answers go to stdout, progress and faults to stderr. Exit codes: 0 done; 1 some work failed; 2 bad usage, study file or
input; 75 stopped by SIGUSR1, as the walltime is near; 130 stopped by Ctrl-C; 143 stopped by SIGTERM. What is slow to
load (torch, PETSc, Dask) is loaded only by the commands that need it.
"""

import errno
import os
import signal
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import CycloptsError, Parameter

from ..errors import ConfigError, InputError, MissingPackageError, MotorsweepError
from ..hpc.ranks import LAUNCHER_VARIABLES
from . import cluster_commands, questions  # noqa: F401 - they register their commands
from .app import (
    DONE,
    FAILED,
    INTERRUPTED,
    REQUEUE,
    TERMINATED,
    USAGE,
    app,
    everything,
    load_config,
    load_pipeline,
    print_answer,
    stages,
)
from .options import RunOptions

STOPPED = "stopped; nothing that was computed is lost: the same command goes on"

Options = Annotated[RunOptions, Parameter(name="*")]


@app.command(group=everything, sort_key=1)
def run(study: Path, *, options: Options = RunOptions()) -> int:
    """Do everything that is not yet done: simulate, encode, train, collect, report.

    Example: `motorsweep run study.toml --workers 4`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = load_config(study)
    return _print_results(load_pipeline().run(config, options), study, options.allow_failed)


@app.command(group=everything, sort_key=2)
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
    config = load_config(study)
    return print_answer(load_pipeline().plan(config), json)


@app.command(group=stages, sort_key=1)
def simulate(study: Path, *, options: Options = RunOptions()) -> int:
    """Solve the electric field of every coil pose (of kind "eeg": clean and connect every record), and keep it.

    Example: `motorsweep simulate study.toml --retry-failed`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = load_config(study)
    return _print_results([load_pipeline().simulate(config, options)], study, options.allow_failed)


@app.command(group=stages, sort_key=2)
def encode(study: Path, *, options: Options = RunOptions()) -> int:
    """Train the autoencoders on the volumes and keep the codes (of kind "eeg": nothing to do).

    Example: `motorsweep encode study.toml --executor serial`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = load_config(study)
    return _print_results([load_pipeline().encode(config, options)], study, options.allow_failed)


@app.command(group=stages, sort_key=3)
def train(study: Path, *, options: Options = RunOptions()) -> int:
    """Train every mapper from codes to muscle responses (of kind "eeg": every network and predictor beside it).

    Example: `motorsweep train study.toml --workers 2`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = load_config(study)
    return _print_results([load_pipeline().train(config, options)], study, options.allow_failed)


@app.command(group=stages, sort_key=4)
def collect(study: Path, *, allow_failed: bool = False) -> int:
    """Gather the records of all runs into one labelled results store.

    Example: `motorsweep collect study.toml`

    Parameters
    ----------
    study
        The study's TOML file.
    allow_failed
        Exit with 0 though some models failed, so that what waits for this begins.
    """
    config = load_config(study)
    return _print_results([load_pipeline().collect(config, RunOptions())], study, allow_failed)


@app.command(group=stages, sort_key=5)
def report(study: Path) -> int:
    """Write the report: tables and figures in one HTML file.

    Example: `motorsweep report study.toml`

    Parameters
    ----------
    study
        The study's TOML file.
    """
    config = load_config(study)
    return _print_results([load_pipeline().report(config, RunOptions())], study)


def main(arguments=None) -> None:
    """Run the command line, by default that of the process, and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or os.environ.get("MOTORSWEEP_DEBUG", "0") not in ("", "0")
    for number in _EXIT_CODES:
        signal.signal(number, _on_stop)
    arguments = [each for each in arguments if each != "--debug"]
    sys.exit(_as_rank(lambda: call(arguments, debug=debug), arguments))


def _as_rank(command, arguments):
    """The command's exit code; of several ranks that a launcher started all share its work, and one answers."""
    if not any(name in os.environ for name in LAUNCHER_VARIABLES):
        return command()  # an ordinary start must not wait for what follows to load
    from ..hpc.rank_command import run_command

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
    except KeyboardInterrupt:
        print(f"\n{STOPPED}", file=sys.stderr)
        return _EXIT_CODES[_asked[0]] if _asked else INTERRUPTED
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


_EXIT_CODES = {signal.SIGTERM: TERMINATED, signal.SIGUSR1: REQUEUE}
_asked = []  # signals so far


def _on_stop(number, frame):
    """Close things as Ctrl-C does, when a batch system's time is up or will be; a training first keeps its state."""
    _asked.append(number)
    checkpoints = sys.modules.get(f"{__package__.partition('.')[0]}.learn.checkpoints")
    if len(_asked) > 1 or checkpoints is None or not checkpoints.request_stop():
        raise KeyboardInterrupt


def _print_results(results, study, allow_failed=False) -> int:
    """Print each stage's line as the stage ends; 1 if anything failed, unless that is allowed."""
    failed = 0
    for result in filter(None, results):  # of several ranks, one has results
        print(result.line(), flush=True)
        if result.failed and not failed:
            print(f"{'':<9} why, and what to do: motorsweep status {study} --failed", flush=True)
        if result.table:
            print("", *result.table, "", sep="\n", flush=True)
        failed += result.failed
    return FAILED if failed and not allow_failed else DONE


if __name__ == "__main__":
    main()
