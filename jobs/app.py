"""The command line's frame: the app that commands register on, and what all of them need."""

import json
from pathlib import Path

from cyclopts import App, Group, Parameter

from .. import __version__

DONE, FAILED, USAGE, REQUEUE, INTERRUPTED, TERMINATED = 0, 1, 2, 75, 130, 143

app = App(
    name="motorsweep",
    version=__version__,
    suppress_keyboard_interrupt=False,  # call() closes with a word of its own
    default_parameter=Parameter(negative=()),  # no --no-json
    help="""From TMS coil poses to muscle responses: simulate, encode, train, and see which model explains the muscles.

A study is one TOML file. The same command again does only what is missing. A file with `kind = "eeg"` is a study from
EEG connectivity to EMG connectivity instead, by the same commands.

Example: `motorsweep run study.toml`

With `--debug` (or MOTORSWEEP_DEBUG=1) an error shows where in the program it arose.""",
)
everything = Group("All at once", sort_key=1)
stages = Group("Stage by stage, in this order", sort_key=2)
cluster = Group("On a cluster", sort_key=3)
questions = Group("Questions", sort_key=4)


def load_pipeline():
    """Return :mod:`.pipeline`: after the study file was checked, as a typo must not wait for torch to load."""
    from . import pipeline

    return pipeline


def load_config(path):
    """Read a study file; pydantic is loaded only by the commands that need it."""
    from .config import load_study_config

    return load_study_config(path)


def find_folder(study: Path) -> Path:
    """Return the folder of a study that is given as its TOML file or as its folder."""
    return study if study.is_dir() else Path(load_config(study).folder)


def print_answer(answer, as_json) -> int:
    """Print an answer as lines or as JSON."""
    print(json.dumps(answer.as_dict(), indent=2) if as_json else "\n".join(answer.lines()), flush=True)
    return DONE
