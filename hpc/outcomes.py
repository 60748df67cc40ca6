"""How a task ended: its value, or why it failed.

A task that fails for a reason of its own (its solver diverged, its input is bad, its process died) is one failed row
of the study. A failure that every other task would share (a bug, a full disk, a damaged store, a missing package)
stops the run at once: a cluster must not spend a night failing in the same way.
"""

import os
import resource
import sys
import time
import traceback as tracebacks
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError, ConvergenceError, InputError, MissingPackageError, MotorsweepError, StoreError
from ..zarr_store.atomic import is_disk_full

REASONS = ("diverged", "out_of_memory", "bad_input", "disk_full", "crashed")
"""The classes of failure. ``disk_full`` never comes as an outcome, as it stops the run."""

BUGS = (TypeError, AttributeError, NameError, LookupError, AssertionError, NotImplementedError, ImportError)
"""Errors that mean that the program is wrong, not the task."""

_PETSC_OUT_OF_MEMORY = 55


class DiskFullError(StoreError):
    """The disk that holds the study has no room left."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of one task.

    Attributes
    ----------
    value : object
        What the function returned; None when it failed.
    reason : str
        Class of the failure, one of :data:`REASONS`; empty when the task is done.
    message : str
        What happened, in a sentence.
    traceback : str
        Where it happened, as text.
    seconds : float
        Run time where it ran.
    peak_memory_bytes : int
        Highest resident memory so far of the process that ran it; 0 = unknown.
    host : str
        Machine that ran it.
    pid : int
        Process that ran it; 0 = unknown.
    """

    value: object = None
    reason: str = ""
    message: str = ""
    traceback: str = ""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    host: str = field(default_factory=lambda: os.uname().nodename)
    pid: int = field(default_factory=os.getpid)

    @property
    def ok(self) -> bool:
        """Whether the function returned a value."""
        return not self.reason


def task_name(task) -> str:
    """Return what a task is called in messages and events: its ``name``, else its ``id``, else its text."""
    return str(getattr(task, "name", None) or getattr(task, "id", None) or task)


def task_size(task) -> int:
    """Return how many pieces of work (poses, trainings) a task holds: its ``size``, else 1."""
    return int(getattr(task, "size", 1))


def attempt(function, task) -> Outcome:
    """Call ``function(task)`` and turn a failure of the task into an outcome.

    Raises
    ------
    DiskFullError
        No space was left on the device.
    ConfigError, StoreError, MissingPackageError, or one of :data:`BUGS`
        As the function raised it, with the task's name in its notes: every other task would fail alike.
    """
    start = time.perf_counter()
    try:
        ended = {"value": function(task)}
    except Exception as error:
        reason = classify(error)
        if reason == "disk_full":
            raise disk_full_error(task_name(task), error) from error
        if not reason:
            error.add_note(f"in task {task_name(task)}")
            raise
        ended = {"reason": reason, "message": _sentence(error), "traceback": tracebacks.format_exc()}
    return Outcome(seconds=time.perf_counter() - start, peak_memory_bytes=peak_memory_bytes(), **ended)


def classify(error: BaseException) -> str:
    """Return the class of a failure, or the empty string where the whole run must stop.

    Examples
    --------
    >>> classify(ConvergenceError("residual 0.03 after 500 iterations")), classify(TypeError("bug"))
    ('diverged', '')
    """
    if no_space(error):
        return "disk_full"
    if isinstance(error, MemoryError) or _library_out_of_memory(error):
        return "out_of_memory"
    if isinstance(error, ConvergenceError):
        return "diverged"
    if isinstance(error, (ConfigError, StoreError, MissingPackageError, *BUGS)):
        return ""
    return "bad_input" if isinstance(error, InputError) else "crashed"


def no_space(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that the disk or the quota is full."""
    while error is not None:
        if isinstance(error, DiskFullError) or is_disk_full(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full_error(doing: str, error: BaseException) -> DiskFullError:
    """Return the error that tells a person that the disk is full, and that nothing is lost."""
    if isinstance(error, DiskFullError):
        return error
    return DiskFullError(
        f"{doing}: no space is left on the disk of the study ({error}). What was finished before is kept. "
        "Make room, then give the same command again: it goes on from there."
    )


def peak_memory_bytes() -> int:
    """Return the highest resident memory of this process so far, in bytes."""
    with suppress(OSError):
        # Not getrusage on Linux: there a process begins with the peak of the one that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB, macOS in bytes


def _library_out_of_memory(error):
    # PETSc and torch have exceptions of their own for this, both RuntimeError; neither is imported here.
    return (
        getattr(error, "ierr", None) == _PETSC_OUT_OF_MEMORY
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def _sentence(error):
    if isinstance(error, MotorsweepError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
