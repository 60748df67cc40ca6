"""Sends studies to SLURM: writes the scripts, submits them one after the other, and notes the jobs in the studies."""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..errors import ConfigError, InputError, MissingPackageError, MotorsweepError
from ..hpc.slurm_jobs import job_states, note_job, read_jobs, submit_script
from ..hpc.slurm_scripts import ARRAY_LOGS, VERBS, SubmittedStudy, log_name, sbatch_words, script_name, scripts_of
from ..zarr_store.atomic import atomic_write_text, disk_errors
from ..zarr_store.study import Study


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What was sent to SLURM, or would be.

    Parameters
    ----------
    studies : tuple of SubmittedStudy
    plans : tuple of Plan
    scripts : dict
        Path to text of every script.
    commands : tuple of list of str
        Command lines of sbatch.
    jobs : tuple of dict
        ``study``, ``verb``, ``job``, ``log`` of every job that was sent; empty in a dry run.
    """

    studies: tuple
    plans: tuple
    scripts: dict
    commands: tuple
    jobs: tuple = ()

    def lines(self):
        """Lines for people."""
        return self._sent() if self.jobs else self._dry()

    def as_dict(self):
        """Plain values for scripts."""
        studies = [{"name": each.name, "path": each.path, "folder": each.folder} for each in self.studies]
        return {
            "studies": studies,
            "plans": [plan.as_dict() for plan in self.plans],
            "scripts": self.scripts,
            "commands": list(self.commands),
            "jobs": list(self.jobs),
        }

    def _dry(self):
        lines = []
        for plan in self.plans:
            lines += [*plan.lines()[:-1], ""]
        for path, text in self.scripts.items():
            lines += [f"---- {path}", *text.splitlines(), ""]
        lines.append("---- nothing was submitted; without --dry-run:")
        return lines + [shlex.join(words) for words in self.commands]

    def _sent(self):
        lines = []
        for study in self.studies:
            lines.append(f"study     {study.name}   ({study.folder})")
            for job in self.jobs:
                if job["study"] == study.name:
                    lines.append(f"{job['verb']:<9} job {job['job']}, log {job['log']}")
        for at, study in enumerate(self.studies):
            file = shlex.quote(os.path.relpath(study.path))
            lines.append(f"{'' if at else 'watch':<9} motorsweep status {file}; motorsweep dashboard {file}")
        if any(job["verb"] == "simulate" for job in self.jobs):
            lines.append(f"{'':<9} the log of simulate has the dashboard's address and a ready ssh line, once it runs")
        ids = dict.fromkeys(map(_array_of, self.jobs))
        return [*lines, f"stop      scancel {' '.join(ids)}"]


def submit_studies(configs, only=None, dry_run=False) -> Submission:
    """Send one study as three jobs, or several as three job arrays: simulate, train, collect.

    Each job does only what is missing, and begins when the one before it has ended well.

    Parameters
    ----------
    configs : sequence of StudyConfig
        Their [slurm] tables must be the same.
    only : str, optional
        The one job to send: ``"simulate"``, ``"train"`` or ``"collect"``.
    dry_run : bool
        Write and send nothing.

    Returns
    -------
    Submission

    Raises
    ------
    ConfigError
        If the studies cannot be sent together.
    InputError
        If jobs of a study are still queued or running.
    MissingPackageError
        If there is no sbatch.
    MotorsweepError
        If sbatch refuses; what was sent before is named.
    """
    from .plan import make_plan  # with torch: a typo must not wait for it

    studies = tuple(_submitted(config) for config in configs)
    _check_together(configs, studies)
    if not dry_run:
        _check_can_submit(studies)
    verbs = VERBS if only is None else (only,)
    texts = scripts_of(configs[0].slurm, studies, configs[0].slurm.python or sys.executable)
    needed = {script_name(verb, studies) for verb in verbs} | ({"hosts.sh"} if "train" in verbs else set())
    folder = studies[0].folder
    scripts = {f"{folder}/slurm/{name}": text for name, text in texts.items() if name in needed}
    # Also where nothing is printed: faults come before the jobs.
    plans = tuple(make_plan(_on_slurm(config)) for config in configs)
    if not dry_run:
        _write(studies, scripts)
    commands, jobs, after = [], [], ""
    for verb in verbs:
        script = f"{folder}/slurm/{script_name(verb, studies)}"
        commands.append(sbatch_words(script, folder, after, several=len(studies) > 1))
        if dry_run:
            after = f"JOB_OF_{verb.upper()}"
        else:
            jobs += _send(studies, verb, commands[-1], jobs)
            after = _array_of(jobs[-1])
    return Submission(studies=studies, plans=plans, scripts=scripts, commands=tuple(commands), jobs=tuple(jobs))


def _submitted(config):
    return SubmittedStudy(name=config.name, path=config.path, folder=str(Study(config.folder).folder), cwd=os.getcwd())


def _on_slurm(config):
    """The study as its jobs run it, whatever executor its file names."""
    return replace(config, executor=replace(config.executor, kind="slurm"))


def _check_together(configs, studies):
    for study in studies:
        if "%" in study.folder or "\\" in study.folder:
            raise ConfigError(
                f"submit: the study's folder is {study.folder}, and SLURM reads % and \\ as signs of its own in the "
                "path of a log; set `folder` in the study file to another place."
            )
    first = configs[0].slurm
    for at, (config, study) in enumerate(zip(configs, studies)):
        same = [each.path for each in studies[:at] if study.folder == each.folder or study.name == each.name]
        if same:
            raise ConfigError(
                f"submit: {study.path} and {same[0]} have the same name or folder ({study.name}, {study.folder}); each "
                "study needs its own."
            )
        other = [each.name for each in fields(first) if getattr(first, each.name) != getattr(config.slurm, each.name)]
        if other:
            raise ConfigError(
                f"submit: [slurm] of {study.path} differs from that of {studies[0].path} ({', '.join(other)}); studies "
                "that are submitted together share one job array and need the same table. Submit them one by one."
            )


def _check_can_submit(studies):
    if shutil.which("sbatch") is None:
        raise MissingPackageError(
            "submit: there is no sbatch here. Submit from the login node of a cluster with SLURM; --dry-run works "
            "anywhere, and without SLURM there is `motorsweep run`."
        )
    noted = {study.path: read_jobs(Study(study.folder)) for study in studies}
    # Workers that have lost their driver end by themselves.
    noted = {path: [job for job in jobs if job["role"] == "driver"] for path, jobs in noted.items()}
    states = job_states(job["job"] for jobs in noted.values() for job in jobs)
    for path, jobs in noted.items():
        live = [job for job in jobs if not states[job["job"]].is_over]
        if live:
            what = ", ".join(f"{job['verb']} {job['job']} ({states[job['job']].state})" for job in live)
            raise InputError(
                f"submit: jobs of {path} are not over: {what}. Two submissions would do the same work twice. Wait for "
                f"them (motorsweep status), or cancel them: scancel {' '.join(job['job'] for job in live)}"
            )


def _array_of(job):
    return job["job"].partition("_")[0]


def _write(studies, scripts):
    for path, text in scripts.items():
        atomic_write_text(path, text)
        mode = os.stat(path).st_mode
        os.chmod(path, mode | (mode & 0o444) >> 2)  # who may read it may run it
    for study in studies:
        logs = Study(study.folder).logs
        with disk_errors("making the folder of logs", logs):
            logs.mkdir(parents=True, exist_ok=True)  # SLURM makes none, and a job without it fails without a word
    if len(studies) > 1:
        _link_logs(studies)


def _link_logs(studies):
    """Links by which each element of an array finds its own study's logs."""
    links = Path(studies[0].folder, ARRAY_LOGS)
    with disk_errors("making links to the logs", links):
        links.mkdir(parents=True, exist_ok=True)
        for element, study in enumerate(studies):
            (links / str(element)).unlink(missing_ok=True)
            (links / str(element)).symlink_to(Study(study.folder).logs, target_is_directory=True)


def _send(studies, verb, words, before):
    try:
        job = submit_script(words)
    except MotorsweepError as error:
        sent = {_array_of(each): each["verb"] for each in before}
        if not sent:
            raise
        which = ", ".join(f"{verb} {job}" for job, verb in sent.items())
        raise MotorsweepError(
            f"{error} Submitted before it: {which}. To take that back: scancel {' '.join(sent)}"
        ) from None
    jobs = []
    for element, study in enumerate(studies):
        own = f"{job}_{element}" if len(studies) > 1 else job
        log = str(Study(study.folder).logs / log_name(verb, own))
        note_job(Study(study.folder), job=own, verb=verb, role="driver", name=f"{study.name}-{verb}", log=log)
        jobs.append({"study": study.name, "verb": verb, "job": own, "log": log})
    return jobs
