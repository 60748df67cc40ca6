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


def unique(key, values):
    """Refuse a list that names a value twice."""
    if len(set(values)) != len(values):
        raise ValueError(f"{key} holds {_first_twice(values)!r} twice; name each once")


def _first_twice(values):
    return next(value for place, value in enumerate(values) if value in values[:place])
