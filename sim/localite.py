"""Coil poses out of the XML files of the Localite TMS Navigator.

An ``InstrumentMarkerList`` holds places that were marked (``InstrumentMarker`` > ``Marker`` > ``Matrix4D``), a
``TriggerMarkerList`` the stimuli as they happened (``TriggerMarker`` > ``Matrix4D`` and ``ResponseValues``). The root's
``coordinateSpace`` is RAS or LPS; LPS becomes RAS by diag(-1, -1, 1, 1) from the left. ``data00`` … ``data33`` are
rows and columns of the matrix, mm. Localite's axes become those of SimNIBS as x ← z, y ← -y, z ← x. The value
``valueA`` is the rate of change of the current in A/µs, NaN or 0 where the stimulator did not tell. Where Localite did
not see the coil it writes the identity matrix, perhaps with flipped axes: a translation of exactly zero in any case.

The file is parsed by expat without a document type: a file that declares one, and so could declare entities, is
refused.
"""

from xml.parsers import expat

import numpy as np

from ..errors import PoseError
from .markers import Marker, chosen_section, finite_number
from .quotation import quoted

_SECTION_OF = {"TriggerMarker": "samples", "InstrumentMarker": "targets"}
_ELEMENTS = tuple(f"data{row}{column}" for row in range(4) for column in range(4))
_TO_SIMNIBS = np.array([[0.0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
_TO_RAS = {"RAS": np.eye(4), "LPS": np.diag([-1.0, -1.0, 1.0, 1.0])}
_DEEPEST = 50


def read_localite(path, section=None) -> list[Marker]:
    """Read instrument or trigger markers of the Localite TMS Navigator.

    Parameters
    ----------
    path : Path
    section : {"samples", "targets"}, optional
        Trigger markers or instrument markers. Without it the former, or else the latter.

    Returns
    -------
    list of Marker
        In the order of the file; without a matrix where a marker is not set or the coil was not tracked.

    Raises
    ------
    PoseError
        Naming file and line, where the XML is damaged or declares a document type, the coordinate space is unknown,
        or a marker has no matrix or a damaged number.
    """
    content = _Content(path)
    content.parse()
    if not any(content.found.values()):
        raise PoseError(
            f"reading coil poses from {path}: neither a TriggerMarker nor an InstrumentMarker in <{content.root}>, so "
            "there is nothing to simulate. Give Localite's file of trigger markers or of instrument markers."
        )
    space = content.space.upper()
    if space not in _TO_RAS:
        raise PoseError(
            f"reading coil poses from {path}: the coordinateSpace of <{content.root}> is {quoted(content.space)}, "
            "neither RAS nor LPS, so left and right could be exchanged. Export the markers again, in the "
            "subject's space."
        )
    raw = chosen_section(path, content.found, section)
    return [_marker(path, i, *item, _TO_RAS[space]) for i, item in enumerate(raw)]


class _Content:
    """Root and markers of a file; a marker is a pair (line number, list of (tag, attributes) in it)."""

    def __init__(self, path):
        self.path, self.root, self.space, self.open = path, "", "", []
        self.found = {"samples": [], "targets": []}
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler, self.parser.EndElementHandler = self.start, self.end
        self.parser.StartDoctypeDeclHandler = self.parser.EntityDeclHandler = self.declaration

    def parse(self):
        try:
            self.parser.Parse(self.path.read_bytes(), True)
        except PoseError:
            raise
        except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two: unknown encodings
            raise PoseError(
                f"reading coil poses from {self.path}, line {self.parser.CurrentLineNumber}: damaged XML ({error}), "
                "so markers could be missing. Export the markers again."
            ) from error

    def declaration(self, *_):
        raise PoseError(
            f"reading coil poses from {self.path}, line {self.parser.CurrentLineNumber}: the file declares a document "
            "type or entities, which Localite does not write and which could open other files. Export it again."
        )

    def start(self, tag, attributes):
        if not self.open:
            self.root, self.space = tag[:60], attributes.get("coordinateSpace", "")
        inside = next((name for name in self.open if name in _SECTION_OF), None)
        if len(self.open) >= _DEEPEST or (inside and tag in _SECTION_OF):
            raise PoseError(
                f"reading coil poses from {self.path}, line {self.parser.CurrentLineNumber}: <{tag[:60]}> is nested as "
                "Localite nests nothing, so the file is damaged. Export the markers again."
            )
        self.open.append(tag)
        if tag in _SECTION_OF:
            self.found[_SECTION_OF[tag]].append((self.parser.CurrentLineNumber, []))
            inside = tag
        if inside:
            self.found[_SECTION_OF[inside]][-1][1].append((tag, attributes))

    def end(self, _):
        self.open.pop()


def _marker(path, i, line, elements, to_ras):
    kind = "trigger marker" if elements[0][0] == "TriggerMarker" else "instrument marker"
    names = [attributes["description"] for _, attributes in elements if attributes.get("description")]
    name = names[0] if names else ""
    place = f"{kind} {i} ({quoted(name)}) at line {line}" if name else f"{kind} {i} at line {line}"
    where = f"reading coil poses from {path}, {place}"
    if any(attributes.get("set", "").strip().lower() == "false" for _, attributes in elements):
        return Marker(place, None, name, problem="not set")
    matrices = [attributes for tag, attributes in elements if tag == "Matrix4D"]
    if len(matrices) != 1:
        raise PoseError(f"{where}: found {len(matrices)} elements Matrix4D instead of one. Export the markers again.")
    numbers = [finite_number(matrices[0].get(key), f"{where}, {key}") for key in _ELEMENTS]
    matrix = np.reshape(numbers, (4, 4))
    if np.array_equal(matrix, np.eye(4)):
        return Marker(place, None, name, problem="not tracked (identity matrix)")
    if _is_bare_rotation(matrix):
        return Marker(place, None, name, problem="not tracked (rotation without translation)")
    return Marker(place, to_ras @ matrix @ _TO_SIMNIBS, name, _didt(elements, where))


def _is_bare_rotation(matrix):
    turn = matrix[:3, :3]
    unit = np.abs(turn).max() < 2 and np.allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    return unit and not matrix[:3, 3].any() and np.array_equal(matrix[3], (0, 0, 0, 1))


def _didt(elements, where):
    """dI/dt of the stimulus in A/s, None where the stimulator did not tell."""
    given = [attributes.get("response", "") for tag, attributes in elements if attributes.get("key") == "valueA"]
    if not given or given[0].strip().lower() in ("", "nan"):
        return None
    value = finite_number(given[0], f"{where}, valueA", "it scales the field. Repair it, or write NaN for unknown")
    if value < 0:
        raise PoseError(f"{where}, valueA: found {value:g} A/µs, but a stimulus has a positive one. Repair it.")
    return value * 1e6 if value else None
