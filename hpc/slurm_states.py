"""What squeue, sacct, scontrol and jobcomp say of jobs, read: pure functions from their text to :class:`JobState`."""

import re
from dataclasses import dataclass, replace
from datetime import datetime

SQUEUE_FIELDS = ("JobArrayID", "State", "Reason", "NodeList", "TimeUsed", "RestartCnt")
SACCT_FIELDS = ("JobID", "State", "ExitCode", "NodeList", "Elapsed", "Reason")
NOT_OVER = frozenset({"queued", "requeued", "running"})

_WORDS = {
    "PENDING": "queued",
    "CONFIGURING": "queued",
    "REQUEUED": "requeued",
    "REQUEUE_FED": "requeued",
    "REQUEUE_HOLD": "requeued",
    "RESV_DEL_HOLD": "queued",
    "SPECIAL_EXIT": "requeued",
    "COMPLETING": "running",
    "RESIZING": "running",
    "RUNNING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "STOPPED": "running",
    "SUSPENDED": "running",
    "COMPLETED": "done",
    "FAILED": "failed",
    "LAUNCH_FAILED": "failed",
    "RECONFIG_FAIL": "failed",
    "DEADLINE": "timed out",
    "TIMEOUT": "timed out",
    "OUT_OF_MEMORY": "out of memory",
    "BOOT_FAIL": "node failed",
    "NODE_FAIL": "node failed",
    "CANCELLED": "cancelled",
    "PREEMPTED": "cancelled",
    "REVOKED": "cancelled",
}
# What slurmd writes into the log of a job that took too much memory, where the kernel's cgroups do not tell SLURM.
_MEMORY = re.compile(r"exceeded (?:job |step )?memory limit|oom[-_ ]kill|Out Of Memory", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class JobState:
    """How a job is.

    Parameters
    ----------
    id : str
        As SLURM writes it: ``"123"``, or ``"123_4"`` for an element of an array.
    state : str
        ``"queued"``, ``"running"``, ``"requeued"`` (queued once more), ``"done"``, ``"failed"`` (it crashed),
        ``"timed out"``, ``"out of memory"``, ``"node failed"``, ``"cancelled"`` or ``"unknown"``.
    reason : str
        SLURM's word for why, such as ``"Priority"``; empty if there is none.
    exit_code : str
        ``"code:signal"``, empty as long as there is none.
    nodes : str
        Where it runs or ran, as SLURM abbreviates it.
    elapsed : str
        ``[days-]hours:minutes:seconds``.
    restarts : int
        How often it was queued again, where SLURM tells.
    """

    id: str
    state: str = "unknown"
    reason: str = ""
    exit_code: str = ""
    nodes: str = ""
    elapsed: str = ""
    restarts: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the job has ended; of one that SLURM does not know any more that is so, too."""
        return self.state not in NOT_OVER


def parse_squeue(text: str) -> dict:
    r"""Read ``squeue --noheader --array --Format=...`` with the fields of `SQUEUE_FIELDS`, divided by ``|``.

    Parameters
    ----------
    text : str

    Returns
    -------
    dict
        Id to JobState.

    Examples
    --------
    >>> parse_squeue("12_3|PENDING|Resources||0:00|1|\n")["12_3"].state
    'requeued'
    """
    states = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) >= len(SQUEUE_FIELDS):
            job, word, reason, nodes, elapsed, restarts = cells[: len(SQUEUE_FIELDS)]
            read = _state(job, word, reason=reason, nodes=nodes, elapsed=elapsed, restarts=_count(restarts))
            states |= dict.fromkeys(_elements(job), read)
    return _each_with_its_id(states)


def parse_sacct(text: str) -> dict:
    r"""Read ``sacct --noheader --parsable2`` with the fields of `SACCT_FIELDS`; as `parse_squeue`.

    Lines of steps (``12.batch``) say only whether memory was the cause.

    Examples
    --------
    >>> parse_sacct("12|CANCELLED by 1000|0:15|n1|00:01:00|None\n12.batch|CANCELLED|0:15|n1|00:01:00|\n")["12"].state
    'cancelled'
    """
    states = {}
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) < len(SACCT_FIELDS):
            continue
        job, word, exit_code, nodes, elapsed, reason = cells[: len(SACCT_FIELDS)]
        job, is_step, _ = job.partition(".")
        if is_step:
            if word.startswith("OUT_OF_ME") and job in states and states[job].state == "failed":
                states[job] = replace(states[job], state="out of memory")
            continue
        read = _state(job, word, reason=reason, exit_code=exit_code, nodes=nodes, elapsed=elapsed)
        states |= dict.fromkeys(_elements(job), read)
    return _each_with_its_id(states)


def parse_scontrol(text: str) -> dict:
    """Read ``scontrol --oneliner show job``; as `parse_squeue`.

    Examples
    --------
    >>> parse_scontrol("JobId=7 JobName=a UserId=ada(1) JobState=TIMEOUT Reason=TimeLimit Restarts=2")["7"].restarts
    2
    """
    return _parse_records(text)


def parse_jobcomp(text: str) -> dict:
    """Read a file of SLURM's jobcomp/filetxt, a line a job that has ended, in the order of their ends."""
    return _parse_records(text)


def with_log(state: JobState, log: str) -> JobState:
    """Return the state with what the end of a job's log adds: whether memory was why it failed.

    Examples
    --------
    >>> failed = JobState(id="7", state="failed", exit_code="0:9")
    >>> with_log(failed, "slurmstepd: error: Exceeded job memory limit").state
    'out of memory'
    """
    return replace(state, state="out of memory") if state.state == "failed" and _MEMORY.search(log) else state


def _parse_records(text):
    states = {}
    for line in text.splitlines():
        if not line.startswith("JobId="):
            continue  # of a path with a line break in it
        # Names are free text; what is read here stands before or after them.
        line = re.sub(r" JobName=.*?(?= UserId=)| Name=.*?(?= JobState=)", "", line)
        found = {}
        for key, value in re.findall(r"(?:^| )(\w+)=(\S*)", line):
            found.setdefault(key, value)
        job = found["JobId"]
        if "ArrayJobId" in found and "ArrayTaskId" in found:
            element = found["ArrayTaskId"]
            job = f"{found['ArrayJobId']}_{element if element.isdigit() else f'[{element}]'}"
        read = _state(
            job,
            found.get("JobState", ""),
            reason=found.get("Reason", ""),
            exit_code=found.get("ExitCode", ""),
            nodes=found.get("NodeList", ""),
            elapsed=found.get("RunTime") or _between(found.get("StartTime", ""), found.get("EndTime", "")),
            restarts=_count(found.get("Restarts", "")),
        )
        states |= dict.fromkeys(_elements(job), read)
    return _each_with_its_id(states)


def _state(job, word, *, exit_code="", restarts=0, **texts):
    """SLURM's words as ours; ``CANCELLED by 1000`` and an abbreviated ``OUT_OF_ME+`` are met, too."""
    name = word.split(" ")[0].rstrip("+")
    known = name if name in _WORDS else next((each for each in _WORDS if name and each.startswith(name)), "")
    state = _WORDS.get(known, "unknown")
    if state == "queued" and restarts:
        state = "requeued"
    texts = {key: "" if text in ("None", "(null)", "N/A", "None assigned") else text for key, text in texts.items()}
    if state == "cancelled" and texts.get("reason") != "DependencyNeverSatisfied":
        # Else it tells why the job was still waiting when it was cancelled.
        texts["reason"] = "preempted" if known == "PREEMPTED" else ""
    over = state not in NOT_OVER
    return JobState(id=job, state=state, exit_code=exit_code if over else "", restarts=restarts, **texts)


def _elements(job):
    """Ids of ``12_[0-2,5%2]``: 12_0, 12_1, 12_2, 12_5; an id of one job is itself."""
    found = re.fullmatch(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]", job)
    if found is None:
        return [job]
    numbers = []
    for part in found[2].split(","):
        low, _, high = part.partition("-")
        high, _, step = high.partition(":")
        numbers += range(int(low), int(high or low) + 1, int(step or 1))
    return [f"{found[1]}_{number}" for number in numbers]


def _each_with_its_id(states):
    return {job: state if state.id == job else replace(state, id=job) for job, state in states.items()}


def _count(text):
    return int(text) if text.isdigit() else 0


def _between(start, end):
    try:
        seconds = int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
    except ValueError:
        return ""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
