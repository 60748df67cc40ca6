"""Scripts for sbatch: pure functions from a study's [slurm] table to text; no other place knows sbatch's flags.

A study is sent as three jobs: ``simulate`` (the driver of Dask's workers), ``train`` (the ranks) and ``collect``.
Several studies are sent as three job arrays, element k of each is study k. The scripts stand for themselves: what they
say is what runs. They are sent from the (first) study's folder, which their logs are relative to.
"""

import math
import re
import shlex
from dataclasses import dataclass

from .slurm_config import SlurmConfig
from .slurm_walltime import on_walltime, signal_seconds

VERBS = ("simulate", "train", "collect")
ARRAY_LOGS = "slurm/array"  # one link a study to its logs, as sbatch can name logs only by an element's number

_PLAIN = re.compile(r"[\w@%+:,./-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class SubmittedStudy:
    """What scripts and jobs need to know of a study.

    Parameters
    ----------
    name : str
    path : str
        Its TOML file, absolute.
    folder : str
        Its folder, absolute.
    cwd : str
        The directory that it was submitted from; a study file that names no folder means one below it.
    """

    name: str
    path: str
    folder: str
    cwd: str


def simulate_script(slurm: SlurmConfig, studies, python: str) -> str:
    r"""Return the script of the job that solves the poses: it hosts Dask's scheduler and asks for worker jobs.

    Parameters
    ----------
    slurm : SlurmConfig
    studies : sequence of SubmittedStudy
        One, or the elements of a job array.
    python : str
        Interpreter of the jobs.

    Returns
    -------
    str

    Examples
    --------
    >>> study = SubmittedStudy(name="a", path="/home/ada/a.toml", folder="/home/ada/studies/a", cwd="/home/ada")
    >>> text = simulate_script(SlurmConfig(partition="long"), [study], "/usr/bin/python3")
    >>> "#SBATCH --partition=long\n" in text, "study=/home/ada/a.toml\n" in text
    (True, True)
    """
    driver = slurm.driver
    return _script(
        "Solves the poses: hosts Dask's scheduler, which asks for worker jobs of its own.",
        _directives(slurm, studies, "simulate", driver, nodes=1, ntasks=1, cpus_per_task=driver.cpus),
        environment_lines(slurm, driver.cpus),
        _of_which_study(studies, python),
        on_walltime(driver.walltime, slurm.requeue),
        _line("simulate", "--executor slurm --allow-failed"),
    )


def train_script(slurm: SlurmConfig, studies, python: str) -> str:
    """Return the script of the job whose ranks train the autoencoders, then the mappers; as `simulate_script`."""
    train = slurm.train
    gpus = {"gpus_per_node": train.gpus_per_node} if train.gpus_per_node else {}
    survives = {"no_kill": None} if train.elastic else {}  # of a node that dies
    shape = {"nodes": train.nodes, "ntasks_per_node": train.ranks_per_node, "cpus_per_task": train.cpus_per_rank}
    ranks = {"MOTORSWEEP_BACKEND": train.backend, "MOTORSWEEP_INTERFACE": slurm.interface}
    return _script(
        f"Trains autoencoders, then mappers, on {train.ranks} ranks of {train.launcher}.",
        _directives(slurm, studies, "train", train, **shape, **gpus, **survives),
        environment_lines(slurm, train.cpus_per_rank, **ranks),
        _of_which_study(studies, python),
        on_walltime(train.walltime, slurm.requeue, passes_signals=train.launcher != "horovodrun"),
        "\n".join(_launcher(slurm, studies)),
        _line("encode", "--allow-failed", '"${ranks[@]}" ') + "\n" + _line("train", "--allow-failed", '"${ranks[@]}" '),
    )


def collect_script(slurm: SlurmConfig, studies, python: str) -> str:
    """Return the script of the job that gathers the results and writes the report; as `simulate_script`."""
    driver = slurm.driver
    return _script(
        "Gathers the results and writes the report.",
        _directives(slurm, studies, "collect", driver, nodes=1, ntasks=1, cpus_per_task=driver.cpus),
        environment_lines(slurm, driver.cpus),
        _of_which_study(studies, python),
        on_walltime(driver.walltime, slurm.requeue),
        _line("collect", "--allow-failed") + "\n" + _line("report"),
    )


def scripts_of(slurm: SlurmConfig, studies, python: str) -> dict:
    """Return the text of each file that a submission needs in the first study's folder ``slurm``, by file name.

    Parameters
    ----------
    slurm : SlurmConfig
    studies : sequence of SubmittedStudy
    python : str

    Returns
    -------
    dict
    """
    makers = {"simulate": simulate_script, "train": train_script, "collect": collect_script}
    scripts = {script_name(verb, studies): makers[verb](slurm, studies, python) for verb in VERBS}
    if slurm.train.elastic:
        scripts["hosts.sh"] = hosts_script(slurm)
    return scripts


def script_name(verb: str, studies) -> str:
    """Return the file name of a script; an array's has one of its own beside that of the study alone.

    Examples
    --------
    >>> script_name("train", ["one"]), script_name("train", ["one", "two"])
    ('train.sh', 'train-array.sh')
    """
    return f"{verb}.sh" if len(studies) == 1 else f"{verb}-array.sh"


def hosts_script(slurm: SlurmConfig) -> str:
    """Return the script that tells elastic Horovod which hosts there are: the job's nodes that answer."""
    ranks = slurm.train.ranks_per_node
    if slurm.train.nodes == 1:
        # Two names of one host: Horovod takes no host again on which a rank has died, and there is no other.
        names = [("localhost", ranks - ranks // 2), ("127.0.0.1", ranks // 2)]
        return "#!/bin/bash\n" + "".join(f"echo {name}:{slots}\n" for name, slots in names if slots)
    return f"""#!/bin/bash
# Nodes of the job that answer, with the ranks that each takes.
set -euo pipefail
sinfo --noheader --responding --Node --nodes="$SLURM_JOB_NODELIST" --format=%N | sort -u | sed 's/$/:{ranks}/'
"""


def sbatch_words(script: str, folder: str, after: str = "", several: bool = False) -> list:
    """Return sbatch's command line for a script.

    Parameters
    ----------
    script : str
        Path of the script.
    folder : str
        The study's folder; its logs are named relative to it.
    after : str
        Id of the job that must have ended well before; empty: none.
    several : bool
        Of job arrays: element k waits for element k.

    Returns
    -------
    list of str

    Examples
    --------
    >>> sbatch_words("/home/ada/q/slurm/train.sh", "/home/ada/q", after="12")[2:4]
    ['--dependency=afterok:12', '--kill-on-invalid-dep=yes']
    """
    words = ["sbatch", "--parsable"]
    if after:
        words += [f"--dependency={'aftercorr' if several else 'afterok'}:{after}", "--kill-on-invalid-dep=yes"]
    return [*words, f"--chdir={folder}", script]


def log_name(verb: str, job: str) -> str:
    """Return a job's log, relative to the logs of its study.

    Examples
    --------
    >>> log_name("train", "17"), log_name("train", "17_2")
    ('train-17.log', 'train-17_2.log')
    """
    return f"{verb}-{job}.log"


def memory_text(gigabytes: float) -> str:
    """Return memory as sbatch takes it; whole, since sbatch knows no fractions.

    Examples
    --------
    >>> memory_text(4.0), memory_text(1.5)
    ('4G', '1536M')
    """
    whole = math.ceil(gigabytes)
    return f"{whole}G" if whole == gigabytes else f"{math.ceil(gigabytes * 1024)}M"


def directive(option: str, value=None) -> str:
    r"""Return one ``#SBATCH`` line; sbatch reads double quotes and backslashes in it much as a shell does.

    Examples
    --------
    >>> directive("constraint", "a&b")
    '#SBATCH --constraint="a&b"'
    """
    if value is None:
        return f"#SBATCH --{option}"
    text = str(value)
    if not _PLAIN.fullmatch(text):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"#SBATCH --{option}={text}"


def _script(what, directives, environment, *parts):
    head = "\n".join(["#!/bin/bash", *directives, "", f"# {what}", "# Written by motorsweep submit.", *environment])
    return "\n\n".join([head, *parts]) + "\n"


def _directives(slurm, studies, verb, job, **shape):
    several = len(studies) > 1
    name = f"{studies[0].name}-and-{len(studies) - 1}-more" if several else studies[0].name
    at_once = f"%{slurm.at_once}" if slurm.at_once else ""
    values = {
        "job-name": f"{name}-{verb}",
        "array": f"0-{len(studies) - 1}{at_once}" if several else "",
        "output": f"{ARRAY_LOGS}/%a/{log_name(verb, '%A_%a')}" if several else f"logs/{log_name(verb, '%j')}",
        "open-mode": "append",  # of a job that is queued again
        "partition": job.partition or slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        **{key.replace("_", "-"): value for key, value in shape.items()},
        "mem": memory_text(job.memory_gb),
        "time": job.walltime,
        "signal": f"B:USR1@{signal_seconds(job.walltime)}",
        "requeue": None,
    }
    lines = [directive(option, value) for option, value in values.items() if value != ""]
    return lines + [f"#SBATCH {option}" for option in slurm.extra]


def environment_lines(slurm: SlurmConfig, threads: int, **variables) -> list:
    """Return the lines of shell that make a job's environment: modules, prologue, threads of the numerics.

    Parameters
    ----------
    slurm : SlurmConfig
    threads : int
        Of each process.
    **variables : str
        Further variables to export.

    Returns
    -------
    list of str

    Examples
    --------
    >>> environment_lines(SlurmConfig(), 2)[-1]
    'export OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 MKL_NUM_THREADS=2'
    """
    lines = [f"module load {shlex.quote(each)}" for each in slurm.modules]
    if lines:
        lines.insert(0, "type module >/dev/null 2>&1 || source /etc/profile")
    lines += slurm.prologue
    # Modules and environments of clusters read variables that are not set: -u only after them.
    lines = ["set -eo pipefail", *lines, "set -u"] if lines else ["set -euo pipefail"]
    counts = " ".join(f"{name}_NUM_THREADS={threads}" for name in ("OMP", "OPENBLAS", "MKL"))
    lines.append(f"export {counts}")
    if variables:
        lines.append("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items()))
    return lines


def _of_which_study(studies, python):
    chosen = f"study={shlex.quote(studies[0].path)}"
    if len(studies) > 1:
        paths = "\n".join(f"    {shlex.quote(study.path)}" for study in studies)
        chosen = f"studies=(\n{paths}\n)\nstudy=${{studies[$SLURM_ARRAY_TASK_ID]}}"
    return f"python={shlex.quote(python)}\n{chosen}\ncd -- {shlex.quote(studies[0].cwd)}"


def _line(verb, options="", launcher=""):
    return f'run {launcher}"$python" -m motorsweep.jobs.cli {verb} "$study" {options}'.rstrip()


def _launcher(slurm, studies):
    train = slurm.train
    if train.launcher == "srun":
        # Ranks meet by themselves; a plugin for MPI would only be in the way.
        shape = f"--ntasks={train.ranks} --ntasks-per-node={train.ranks_per_node} --cpus-per-task={train.cpus_per_rank}"
        return [f"ranks=(srun --mpi=none --kill-on-bad-exit=1 {shape})"]
    if train.launcher == "mpirun":
        return [f"ranks=(mpirun -n {train.ranks} --bind-to none)"]
    words = ['deaf "$python" -m horovod.runner.launch --gloo']
    lines = []
    if train.elastic:
        # horovodrun gives it to a shell.
        hosts = shlex.quote(shlex.quote(f"{studies[0].folder}/slurm/hosts.sh"))
        words.append(f"-np {train.ranks} --min-np {train.min_ranks} --max-np {train.ranks}")
        words.append(f"--host-discovery-script {hosts} --blacklist-cooldown-range 5 30")
    else:
        lines.append(_hosts(train))
        words.append(f'-np {train.ranks} -H "$hosts"')
    if slurm.interface:
        words.append(f"--network-interfaces {shlex.quote(slurm.interface)}")
    return [*lines, f"ranks=({' '.join(words)})"]


def _hosts(train):
    if train.nodes == 1:
        return f"hosts=localhost:{train.ranks_per_node}"
    listed = 'scontrol show hostnames "$SLURM_JOB_NODELIST"'
    return f"hosts=$({listed} | sed 's/$/:{train.ranks_per_node}/' | paste -sd,)"
