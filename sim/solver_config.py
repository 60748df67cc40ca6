"""How the linear systems of a head are solved: the settings of `motorsweep.sim.solve.FieldSolver`."""

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from .linear import KINDS


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How the linear systems are solved.

    Parameters
    ----------
    kind : str
        ``"auto"``, ``"direct"``, ``"iterative"``, or ``"modes"``: volumes from a basis that is made of exact solves at
        the first call (see `motorsweep.sim.modes`); all else is solved exactly, as with ``"auto"``.
    order : int
        2: elements of second order in the solver's region, linear ones elsewhere; 1: linear elements, with the
        gradient recovered tissue by tissue.
    margin_m : float
        How far second order reaches beyond the region, m: what happens beside the region counts in it.
    rtol : float
        Largest true residual ||b - K x|| / ||b|| that is accepted.
    tolerance : float
        Of modes: largest relative L2 error in brain tissue, estimated for each pose; those over it are solved exactly.
        1e-5 to 0.1.
    memory_bytes : float, optional
        What this process may take, for ``"auto"`` (by default what is available) and for the block (by default all
        that the machine has).
    block : int, optional
        Poses that are solved together; by default as many as memory allows, up to 64. Memory does not grow with the
        number of poses beyond that.
    may_fall_back : bool
        Go on with the iterative solver where the direct one, asked for by its name, finds no memory for its factor;
        set where a program chose it. With ``"auto"`` always so.
    ground : int
        Node that is held at 0 V; any will do, since only gradients of the potential are used.

    Raises
    ------
    ConfigError
        If `kind` or `order` is not known, or a figure cannot be used.

    Examples
    --------
    >>> SolverConfig(kind="direct").rtol
    1e-10
    """

    kind: str = "auto"
    order: int = 2
    margin_m: float = 8e-3
    rtol: float = 1e-10
    tolerance: float = 1e-3
    memory_bytes: float | None = None
    block: int | None = None
    may_fall_back: bool = False
    ground: int = 0

    def __post_init__(self):
        if self.kind not in ("auto", "modes", *KINDS):
            raise ConfigError(f"solver kind {self.kind!r} is not known; choose auto, modes, {', '.join(KINDS)}.")
        if self.order not in (1, 2):
            raise ConfigError(f"finite elements of order {self.order!r} are not built; choose 1 or 2.")
        if not (0 <= self.margin_m < np.inf and 0 < self.rtol < 1):
            raise ConfigError(
                f"solver: a margin of {self.margin_m} m and a tolerance of {self.rtol} cannot be used; give a length "
                "from 0, and a number between 0 and 1."
            )
        if not 1e-5 <= self.tolerance <= 0.1:
            raise ConfigError(
                f"solver: a tolerance of {self.tolerance} for fields by modes cannot be used; give 1e-05 to 0.1: dA/dt "
                "of the coil is itself tabulated to 1e-05, and a field that is over a tenth off serves nothing."
            )
        if self.block is not None and self.block < 1:
            raise ConfigError(f"solver: blocks of {self.block} poses cannot be solved; give 1 or more, or none.")
