"""The errors that motorsweep raises for what a user can mend.

Every message says four things: what was being done (with its id), what was found, why that matters, what to do.
Each class is also a builtin, so that ``except ValueError`` keeps working.
"""


class MotorsweepError(Exception):
    """Base of all errors that motorsweep raises on purpose."""


class ConfigError(MotorsweepError, ValueError):
    """The study file holds something that cannot be run."""


class InputError(MotorsweepError, ValueError):
    """A file or array that the user gave cannot be used."""


class MeshError(InputError):
    """A head mesh is damaged, untagged or otherwise unusable."""


class PoseError(InputError):
    """A coil pose is not a rigid transform, or puts the coil where it cannot be."""


class CoilError(InputError):
    """A coil file cannot be read or means nothing."""


class ConvergenceError(MotorsweepError, ArithmeticError):
    """A solver or a training did not reach what was asked of it."""


class StoreError(MotorsweepError, RuntimeError):
    """A store of the study is damaged, locked, or belongs to another study."""


class GridMismatchError(StoreError, ValueError):
    """Volumes of two grids were about to be mixed."""


class MissingPackageError(MotorsweepError, ImportError):
    """Something optional is needed here and is not installed."""
