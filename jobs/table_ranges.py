"""What the tables of a study file have in common: their base, and the ranges of their keys."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]
CountOrNone = Annotated[int, Ge(0)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Share = Annotated[float, Ge(0), Le(1)]
Dropout = Annotated[float, Ge(0), Lt(1)]
Decay = Annotated[float, Gt(0), Le(1)]
Point = tuple[float, float, float]
Range = tuple[float, float]


class Table:
    """What all tables share: no key but those named, no text where a number belongs, no NaN."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012
