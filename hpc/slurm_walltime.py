"""What a job's script does when its walltime is near: tell the command, wait for it, and queue the job again."""

from .slurm_config import walltime_seconds

REQUEUE = 75  # EX_TEMPFAIL: stopped for the walltime, and the same command goes on

_WALLTIME = """\
# SLURM sends USR1 before the walltime. The command is told, keeps what it has and ends; the job is then queued again,
# and the same command goes on. A command that does not end in time is ended: what it has finished is kept.
patience={patience} requeues={requeues}
met= command=
trap 'met=yes; tell' USR1

queue_again() {{
    if [ "${{SLURM_RESTART_COUNT:-0}}" -ge "$requeues" ]; then
        echo "motorsweep: the walltime came once more, after $requeues requeues; motorsweep submit goes on" >&2
    else
        echo "motorsweep: the walltime is near; the job is queued again and goes on" >&2
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit {requeue}
}}

run() {{
    local code=0 left=$patience
    if [ -n "$met" ]; then queue_again; fi
    "$@" &
    command=$!
    wait "$command" || code=$?
    while [ -n "$met" ] && kill -0 "$command" 2>/dev/null; do  # a signal ends `wait` before the command has ended
        if [ "$left" = 0 ]; then queue_again; fi
        left=$((left - 1))
        sleep 1
    done
    if [ -n "$met" ]; then
        code=0
        wait "$command" || code=$?
    fi
    command=
    if [ "$code" = {requeue} ] || {{ [ -n "$met" ] && [ "$code" != 0 ]; }}; then queue_again; fi
    return "$code"
}}"""

_TELL = """\
tell() {
    if [ -n "$command" ]; then kill -USR1 "$command" || true; fi
}"""

_TELL_UNDER = """\
# horovodrun passes no signal on and would end at this one: it is started deaf to it, and what runs under it is told.
tell() {
    if [ -n "$command" ]; then tell_under "$command"; fi
}

tell_under() {
    local child
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        tell_under "$child"
        kill -USR1 "$child" 2>/dev/null || true
    done
}

deaf() {
    trap '' USR1
    exec "$@"
}"""


def on_walltime(walltime: str, requeues: int, passes_signals: bool = True) -> str:
    """Return the lines of shell that make ``run COMMAND`` one that outlives the walltime.

    Parameters
    ----------
    walltime : str
    requeues : int
        How often the job is queued again, at most.
    passes_signals : bool
        Whether the command passes signals on to what it starts, as srun and mpirun do.

    Returns
    -------
    str
    """
    # What is left of the notice is for SLURM to queue the job again.
    patience = signal_seconds(walltime) * 3 // 4
    run = _WALLTIME.format(patience=patience, requeues=requeues, requeue=REQUEUE)
    return f"{run}\n\n{_TELL if passes_signals else _TELL_UNDER}"


def signal_seconds(walltime: str) -> int:
    """Return how long before its walltime a job is told: two minutes, or a third of a short one.

    Examples
    --------
    >>> signal_seconds("4:00:00"), signal_seconds("0:01:00")
    (120, 20)
    """
    return min(120, max(1, walltime_seconds(walltime) // 3))
