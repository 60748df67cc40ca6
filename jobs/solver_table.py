"""The table [solver] of a study file, with [solver.region]; see :mod:`.tables`."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from .table_ranges import Count, Fraction, NotNegative, Range, Table


@dataclass(frozen=True, kw_only=True)
class RegionTable(Table):
    """[solver.region]: where the poses of a basis are drawn; no figure stands for the region of the study's poses."""

    radius_mm: Annotated[float, Gt(0), Le(80)] | None = None
    angle_deg: Range | None = None
    distance_mm: Range | None = None
    tilt_deg: Annotated[float, Ge(0), Le(45)] | None = None

    def __post_init__(self):
        figures = {each.name: getattr(self, each.name) for each in fields(self)}
        missing = [name for name, figure in figures.items() if figure is None]
        if missing and len(missing) < len(figures):
            raise ValueError(f"{', '.join(missing)} is missing; a region needs all of {', '.join(figures)}, or none")
        if missing:
            return
        if not 0 <= self.angle_deg[1] - self.angle_deg[0] <= 360:
            raise ValueError(f"angle_deg is {list(self.angle_deg)}; it must ascend, by 360 at most")
        if not 0 <= self.distance_mm[0] <= self.distance_mm[1] <= 100:
            raise ValueError(
                f"distance_mm is {list(self.distance_mm)}; it must ascend from 0 or more to 100 at most, as the coil "
                "would reach into the head, or be out of its reach"
            )

    @property
    def given(self) -> bool:
        """Whether the study names a region of its own."""
        return self.radius_mm is not None


@dataclass(frozen=True, kw_only=True)
class SolverTable(Table):
    """[solver]: how the field is solved, and how many poses one task holds."""

    kind: Literal["auto", "direct", "iterative", "modes"] = "auto"
    order: Literal[1, 2] = 2
    margin_mm: NotNegative = 8.0
    rtol: Fraction = 1e-10
    poses_per_shard: Count = 32
    tolerance: float = 1e-3
    bases: str = ""
    basis: str = ""
    region: RegionTable = RegionTable()

    def __post_init__(self):
        if not 1e-5 <= self.tolerance <= 0.1:
            raise ValueError(
                f"tolerance is {self.tolerance:g}; it must be 1e-05 to 0.1, as dA/dt of the coil is itself tabulated "
                "to 1e-05, and a field that is over a tenth off serves nothing"
            )
        unused = [key for key in ("basis", "region") if getattr(self, key) not in ("", RegionTable())]
        if unused and self.kind in ("direct", "iterative"):
            raise ValueError(f'{unused[0]} is given, but kind "{self.kind}" uses none; leave one of them out')
