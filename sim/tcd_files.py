"""Reader of SimNIBS's own coil format, ``.tcd``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import CoilError
from .coil import Coil
from .coil_grid import FieldGrid
from .tcd_arrays import numbers, transform, triangles, vectors

_FARTHEST_M = 2.0
_Index = Annotated[int, Field(ge=0)]
_Three = Annotated[list[float], Field(min_length=3, max_length=3)]
_Array = list[Any] | str


class _Part(BaseModel):
    """Of a .tcd file. What is not known is refused, because it may change the field."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Element(_Part):
    type: Literal[1, 2, 3]
    name: str = ""
    stimulator: _Index | None = None
    elementCasing: _Index | None = None
    deformations: list[_Index] = []
    points: _Array | None = None
    values: _Array | None = None
    data: _Array | None = None
    affine: list[Any] | None = None


class _Stimulator(_Part):
    name: str | None = None
    brand: str | None = None
    maxdIdt: Annotated[float, Field(gt=0)] | None = None
    waveformList: list[Any] | None = None


class _Range(_Part):
    initial: float
    range: Annotated[list[float], Field(min_length=2, max_length=2)]


class _Deformation(_Part):
    type: Literal["x", "y", "z", "rot2p"]
    deformRange: _Index | None = None
    initial: float | None = None
    range: list[float] | None = None
    point1: _Three | None = None
    point2: _Three | None = None


class _Model(_Part):
    points: _Array
    faces: _Array
    minDistancePoints: _Array | None = None
    intersectPoints: _Array | None = None


class _File(_Part):
    name: str | None = None
    brand: str | None = None
    version: str | None = None
    limits: list[Any] | None = None
    resolution: list[Any] | None = None
    coilCasing: _Index | None = None
    coilElementList: Annotated[list[_Element], Field(min_length=1)]
    stimulatorList: list[_Stimulator] = []
    deformList: list[_Deformation] = []
    deformRangeList: list[_Range] = []
    coilModels: list[_Model] = []
    selfIntersectionTest: list[Any] | None = None


def read_tcd(path) -> Coil:
    """Read a SimNIBS ``.tcd`` file (JSON; lengths in millimetres).

    Elements of type 1 are dipoles: points in mm, values in A·m² per ampere. Type 2 is wire: points and directed lengths
    in mm, or points alone, joined in their order to a closed loop. Type 3 is a sampled field in T·m per ampere with an
    affine in mm. Deformations are applied in the order that an element names them, at their initial values. All
    elements must hang on one stimulator, since there is one rate of change. Casings are kept for drawing; ``limits``,
    ``resolution``, waveforms and what serves SimNIBS's optimisation of positions do not touch the field.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Coil
        Named after the file.

    Raises
    ------
    CoilError
        Naming the element, where something is damaged, missing or not supported.

    Notes
    -----
    SimNIBS's documentation calls the point of a wire element its start; its program puts the element's middle there,
    and so do the files that it writes. Points are read as middles, unless the pieces join end to end only when they are
    read as starts. SimNIBS takes each piece for a current in one point, here it is a straight wire of its length.
    """
    path = Path(path)
    try:
        file = _File.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CoilError(
            f"reading coil {path}: {place}: {first['msg']} ({error.error_count()} such in all), so this is no .tcd "
            "file that gives the field it was made for. Correct the entry, or export the coil again."
        ) from error
    try:
        return _coil(path.stem, file)
    except CoilError as error:
        raise CoilError(f"reading coil {path}: {error}") from error


def _coil(name, file):
    stimulator = _stimulator(file)
    dipoles, wire, grids = [(np.zeros((0, 3)), np.zeros((0, 3)))], [np.zeros((0, 2, 3))], []
    casings = [] if file.coilCasing is None else [(file.coilCasing, np.eye(4), "coilCasing")]
    for index, element in enumerate(file.coilElementList):
        where = f"element {index}" + (f" ({element.name})" if element.name else "")
        matrix = _deformed(file, element, where)
        _check_members(element, where)
        if element.type == 1:
            dipoles.append(_dipoles(element, matrix, where))
        elif element.type == 2:
            wire.append(transform(_wire(element, where), matrix))
        else:
            grids.append(_grid(element, matrix, where))
        if element.elementCasing is not None:
            casings.append((element.elementCasing, matrix, where))
    words = [file.brand, file.name, stimulator and stimulator.name and f"stimulator {stimulator.name}"]
    return Coil(
        name,
        np.concatenate([positions for positions, _ in dipoles]),
        np.concatenate([moments for _, moments in dipoles]),
        segments=np.concatenate(wire),
        grids=grids,
        didt_max=stimulator.maxdIdt if stimulator else None,
        description=", ".join(word for word in words if word),
        casing=_casing(file, casings),
    )


def _stimulator(file):
    """The one stimulator of all elements, or None where the file names none."""
    used = {element.stimulator for element in file.coilElementList}
    if len(used) > 1:
        raise CoilError(
            f"its elements hang on {len(used)} stimulators, whose currents are independent; one rate of change cannot "
            "drive them all. Save the elements of each stimulator to a file of their own, simulate those, and add the "
            "fields with the weights of their currents."
        )
    index = used.pop()
    return None if index is None else _pick(file.stimulatorList, index, "its elements name stimulator")


def _pick(items, index, named):
    if index >= len(items):
        raise CoilError(
            f"{named} {index}, and the file lists {len(items)} of them (the first is 0), so part of the coil is "
            "missing. Get the whole file, or correct the number."
        )
    return items[index]


def _check_members(element, where):
    needed = ("data", "affine") if element.type == 3 else ("points",) if element.type == 2 else ("points", "values")
    allowed = {1: ("points", "values"), 2: ("points", "values"), 3: ("data", "affine")}[element.type]
    for member in ("points", "values", "data", "affine"):
        given = getattr(element, member) is not None
        if (given and member not in allowed) or (not given and member in needed):
            raise CoilError(
                f"{where} is of type {element.type} and {'has' if given else 'lacks'} {member!r}; types 1 (dipoles) "
                "and 2 (wire) have points and values, type 3 (sampled field) has data and affine. Export it again."
            )


def _deformed(file, element, where):
    """The element's deformations at their initial values, as one matrix in metres."""
    total = np.eye(4)
    for index in element.deformations:
        deformation = _pick(file.deformList, index, f"{where} names deformation")
        place = f"deformation {index}"
        limits = deformation
        if deformation.deformRange is not None:
            limits = _pick(file.deformRangeList, deformation.deformRange, f"{place} names range")
        if limits.initial is None or limits.range is None or len(limits.range) != 2:
            raise CoilError(f"{place} has no initial value and range, so where {where} lies is unknown. Add them.")
        if not limits.range[0] <= limits.initial <= limits.range[1]:
            raise CoilError(
                f"{place} begins at {limits.initial:g}, outside its range {limits.range}, so one of them is wrong and "
                f"{where} would be put in the wrong place. Correct the initial value or the range."
            )
        total = _motion(deformation, limits.initial, place) @ total
    return total


def _motion(deformation, value, place):
    """A translation by `value` mm or a rotation by `value` degrees, as a matrix in metres."""
    matrix = np.eye(4)
    if deformation.type != "rot2p":
        matrix["xyz".index(deformation.type), 3] = 1e-3 * value
        return matrix
    if deformation.point1 is None or deformation.point2 is None or deformation.point1 == deformation.point2:
        raise CoilError(f"{place} turns about an axis that needs two different points. Give point1 and point2.")
    first, second = (1e-3 * np.array(point) for point in (deformation.point1, deformation.point2))
    x, y, z = (second - first) / np.linalg.norm(second - first)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(value)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = first - matrix[:3, :3] @ first
    return matrix


def _positions(array, where):
    points = 1e-3 * vectors(array, where, "points")
    if not np.abs(points).max(initial=0) <= _FARTHEST_M:
        raise CoilError(
            f"{where} has a point {np.abs(points).max():.3g} m from the origin, farther than any coil is wide; points "
            "are in millimetres. Correct them."
        )
    return points


def _dipoles(element, matrix, where):
    positions, moments = _positions(element.points, where), vectors(element.values, where, "values")
    _check_pairs(positions, moments, where)
    return transform(positions, matrix), moments @ matrix[:3, :3].T


def _check_pairs(points, values, where):
    if len(points) != len(values):
        raise CoilError(
            f"{where} has {len(points)} points and {len(values)} values, but each point needs one value. The file is "
            "truncated or was edited; get the whole file."
        )


def _wire(element, where):
    """Start and end of each piece (k, 2, 3), m, as the file has them."""
    points = _positions(element.points, where)
    if element.values is None:
        ends = np.roll(points, -1, axis=0)
        pieces = np.stack([points, ends], axis=1)
    else:
        lengths = 1e-3 * vectors(element.values, where, "values")
        _check_pairs(points, lengths, where)
        starts = points if _joins(points, lengths, 0.0) < 0.1 * _joins(points, lengths, 0.5) else points - lengths / 2
        pieces = np.stack([starts, starts + lengths], axis=1)
    pieces = pieces[(pieces[:, 0] != pieces[:, 1]).any(axis=1)]
    if not len(pieces):
        raise CoilError(f"{where} is wire of no length, so it has no field. Give two points at least, or remove it.")
    return pieces


def _joins(points, lengths, share):
    """How far pieces are from joining end to end, if `share` of each lies before its point; a gap counts at most 1."""
    starts = points - share * lengths
    gaps = np.linalg.norm(starts[1:] - starts[:-1] - lengths[:-1], axis=1)
    size = np.maximum(np.linalg.norm(lengths[:-1], axis=1), 1e-12)
    return np.minimum(gaps / size, 1.0).mean() if len(gaps) else 0.0


def _grid(element, matrix, where):
    if isinstance(element.data, str):
        raise CoilError(
            f"{where} is a sampled field stored as a Python pickle, which could run any program when it is opened. "
            "Save the coil in SimNIBS with ascii_mode=True, or as .nii.gz."
        )
    affine, data = numbers(element.affine, where, "affine"), numbers(element.data, where, "data")
    try:
        if affine.shape == (4, 4):
            affine = matrix @ np.concatenate([1e-3 * affine[:3], affine[3:]])
        return FieldGrid(data @ matrix[:3, :3].T if data.shape[-1:] == (3,) else data, affine)
    except CoilError as error:
        raise CoilError(f"{where}: {error}") from error


def _casing(file, casings):
    """Points (n, 3) m and triangles (t, 3) of all casings together."""
    surfaces, offset = [], 0
    for index, matrix, where in casings:
        model = _pick(file.coilModels, index, f"{where} names coil model")
        points = transform(1e-3 * vectors(model.points, f"casing {index}", "points"), matrix)
        surfaces.append((points, offset + triangles(model.faces, len(points), f"casing {index}")))
        offset += len(points)
    return tuple(np.concatenate(part) for part in zip(*surfaces)) if surfaces else None
