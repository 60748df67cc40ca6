"""Commands for a cluster: ``submit``."""

from pathlib import Path
from typing import Literal

from .app import app, cluster, load_config, load_pipeline, print_answer


@app.command(group=cluster, sort_key=1)
def submit(
    study: Path,
    *more: Path,
    dry_run: bool = False,
    only: Literal["simulate", "train", "collect"] | None = None,
    json: bool = False,
) -> int:
    """Send the study to SLURM: three jobs, each of which waits for the one before and does only what is missing.

    Example: `motorsweep submit study.toml --dry-run`

    Parameters
    ----------
    study
        The study's TOML file.
    more
        Further studies, that run beside it as elements of job arrays.
    dry_run
        Show plan and scripts; submit nothing.
    only
        Send only this one of the three jobs.
    json
        Print JSON, for scripts.
    """
    configs = [load_config(each) for each in (study, *more)]
    return print_answer(load_pipeline().submit(configs, only=only, dry_run=dry_run), json)
