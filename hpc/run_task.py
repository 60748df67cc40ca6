"""What the tasks that train one run have in common."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunTask:
    """Train one run; plain values, so that it goes to any worker.

    Parameters
    ----------
    study : str
        Study folder.
    run : Run or EmgRun
    device, deterministic
        As in `ExecutorConfig`.
    """

    study: str
    run: object
    device: str = "auto"
    deterministic: bool = False

    @property
    def name(self):
        """What messages call it."""
        return self.run.name

    @property
    def runs(self):
        """The runs that are lost if the task is."""
        return (self.run,)
