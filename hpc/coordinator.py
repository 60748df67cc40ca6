"""Who coordinates a study now: read from what the holder of its lock has left, without touching the lock."""

import json
import os
import socket


def coordinator(study) -> dict | None:
    """Return ``{"host", "pid", "since"}`` of the process that coordinates the study now, or None where there is none.

    Of a process on another host only its own word is known: one that was killed there seems to be at work still.
    """
    try:
        found = json.loads(study.owner.read_text())
        owner = {"host": str(found["host"]), "pid": int(found["pid"]), "since": os.stat(study.owner).st_mtime}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return owner if owner["host"] != socket.gethostname() or is_alive(owner["pid"]) else None


def is_alive(pid: int) -> bool:
    """Whether a process of this machine lives.

    Examples
    --------
    >>> is_alive(os.getpid())
    True
    """
    if pid <= 0:
        return False  # 0 and less name groups of processes
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
