"""What the command line adds to a study file for one run, and what a stage answers."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter


def whole_number(kind, tokens):
    """Read an option that is a whole number; cyclopts alone would round 1.5 to 2.

    Parameters
    ----------
    kind : type
    tokens : sequence of cyclopts.Token
        One.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        For anything else, which cyclopts shows with the option's name.
    """
    text = tokens[0].value
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError(f"{text!r} is not a whole number, such as 3")
    return int(text)


WholeNumber = Annotated[int | None, Parameter(converter=whole_number)]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Choices of one call; they change where and how work runs, never the numbers.

    Attributes
    ----------
    executor : str or None
        In place of ``kind`` in [executor].
    workers : int or None
        In place of ``workers`` in [executor].
    retry_failed : bool
        Try again what failed before.
    quiet : bool
        No progress.
    allow_failed : bool
        Exit with 0 though some poses or trainings failed, so that what waits for this begins.

    Examples
    --------
    >>> RunOptions(executor="serial").retry_failed
    False
    """

    executor: Literal["serial", "local", "slurm", "mpi"] | None = None
    workers: WholeNumber = None
    retry_failed: bool = False
    quiet: bool = False
    allow_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What one stage did.

    Attributes
    ----------
    verb : str
        The stage: ``simulate``, ``encode``, ``train``, ``collect``, ``report``.
    unit : str
        What is counted, in the plural: ``poses``, ``trainings``.
    done, skipped, failed : int
        Pieces of work done now, done already before, and failed.
    seconds : float
        Wall time.
    note : str
        Something worth saying, such as the path of the report.
    nothing : str
        Why the stage has nothing to do, where it never has.
    table : tuple of str
        Lines that are printed under it, such as the scores.
    """

    verb: str = ""
    unit: str = ""
    done: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0
    note: str = ""
    nothing: str = ""
    table: tuple[str, ...] = ()

    def line(self) -> str:
        """Return the result as one line.

        Examples
        --------
        >>> StageResult(verb="simulate", unit="poses", done=49, seconds=12.34).line()
        'simulate  49 poses done in 12.3 s'
        >>> StageResult(verb="simulate", unit="poses", skipped=49).line()
        'simulate  nothing to do: all 49 poses are done already'
        """
        unit = f" {self.unit}" if self.unit else ""
        if self.nothing:
            text = f"nothing to do: {self.nothing}"
        elif self.skipped and not (self.done or self.failed):
            what = "it is" if self.skipped == 1 else f"all {self.skipped}{unit} are"
            text = f"nothing to do: {what} done already"
        else:
            text = f"{self.done}{unit} done in {self.seconds:.1f} s"
            text += f", {self.skipped} done before" if self.skipped else ""
            text += f", {self.failed} failed" if self.failed else ""
        return f"{self.verb:<9} {text}" + (f"  ({self.note})" if self.note else "")
