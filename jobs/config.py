"""Reads a study file: TOML to frozen values, strictly. A key that is not known is an error that names those that are.

The only file that knows pydantic. Paths in a study file may use ``$VARIABLES`` and ``~``; relative ones start at the
file's folder, so that a study can be moved with its data.
"""

import json
import os
import re
import tomllib
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import ConfigError
from ..sim.tissues import ONE_NUMBER
from .eeg_tables import PLANTED, EegTables
from .tables import BUILTIN_COILS, BUILTIN_HEADS, StudyTables, did_you_mean


@dataclass(frozen=True, kw_only=True)
class StudyConfig(StudyTables):
    """A study file, checked, with absolute paths.

    Attributes
    ----------
    name, seed, head, coil, poses, ...
        As in :class:`.tables.StudyTables`; ``folder`` is absolute.
    path : str
        The file.
    text : str
        Its text as given, for the copy in the study's folder.
    """

    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class EegConfig(EegTables):
    """A study file of the kind ``"eeg"``, checked; as :class:`StudyConfig`, with :class:`.eeg_tables.EegTables`."""

    path: str
    text: str


_CONFIGS = {StudyTables: StudyConfig, EegTables: EegConfig}


def load_study_config(path) -> StudyConfig | EegConfig:
    """Read and check a study file.

    Parameters
    ----------
    path : path-like
        A TOML file.

    Returns
    -------
    StudyConfig, or EegConfig where its ``kind`` is ``"eeg"``

    Raises
    ------
    ConfigError
        One sentence per fault: the file cannot be read, is not TOML, has unknown keys, or values out of range.

    Examples
    --------
    >>> config = load_study_config("examples/quick.toml")      # doctest: +SKIP
    >>> config.volume.n, config.folder                         # doctest: +SKIP
    (64, '/home/ada/studies/quick')
    """
    path = Path(path)
    text = _read(path)
    tables = parse_study(text, path.name)
    try:
        tables = _with_paths(tables, path.resolve().parent)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    values = {each.name: getattr(tables, each.name) for each in fields(tables)}
    return _CONFIGS[type(tables)](**values, path=str(path.resolve()), text=text)


def parse_study(text: str, name: str = "study.toml") -> StudyTables | EegTables:
    r"""Check the text of a study file; its paths are left as they are.

    Parameters
    ----------
    text : str
        TOML.
    name : str
        What messages call it.

    Raises
    ------
    ConfigError
        As in :func:`load_study_config`.

    Examples
    --------
    >>> parse_study('name = "a"\n[solver]\nknd = "direct"')
    Traceback (most recent call last):
      ...
    motorsweep.errors.ConfigError: study.toml: [solver] knd is not a key; did you mean kind? valid keys: kind, ...
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: this is not TOML: {error}") from None
    root = EegTables if raw.get("kind") == "eeg" else StudyTables
    # By way of JSON, as pydantic in strict mode takes lists for tuples only there. Dates become text, and are refused.
    try:
        return TypeAdapter(root).validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        places = [fault["loc"] for fault in faults]
        # A list with a bad item is also "too short" for pydantic: the item says it all.
        told = [f for f in faults if not any(f["loc"] == place[: len(f["loc"])] != place for place in places)]
        raise ConfigError("\n".join(f"{name}: {_printable(_sentence(fault, root))}" for fault in told)) from None


def to_plain(section) -> Any:
    """Return a table as nested plain values (dict, list, str, numbers), ready to be hashed or written as JSON.

    Examples
    --------
    >>> to_plain(SolverTable(kind="direct"))["kind"]
    'direct'
    """
    return json.loads(json.dumps(asdict(section)))


def _read(path):
    try:
        return path.read_bytes().decode("utf-8-sig")  # Windows editors put a mark at the start
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file (looked in {Path.cwd()})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is not UTF-8 text (byte {error.start}), so it cannot be TOML") from None
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read ({error.strerror})") from None


# ---- sentences ------------------------------------------------------------------------------------------------------


def _sentence(fault, root):
    """Turn one of pydantic's findings into a sentence that a person can act on."""
    place, kind = fault["loc"], fault["type"]
    if kind == "value_error":
        return f"{_table_of(place)}{fault['ctx']['error']}"
    table, key = _split(place)
    where = f"{_table_of(table)}{key}"
    if kind == "unexpected_keyword_argument":
        valid = _keys_of(root, table)
        if not table and (other := _kind_with(place[-1])):
            return f'{_table_of(place)}is of studies of the kind "{other}"; for one, set kind = "{other}" at the top'
        if isinstance(fault["input"], dict):
            return (
                f"[{'.'.join(place)}] is not a table{did_you_mean(place[-1], valid) or ';'} valid: {', '.join(valid)}"
            )
        return f"{where} is not a key{did_you_mean(place[-1], valid) or ';'} valid keys: {', '.join(valid)}"
    if kind == "missing":
        if isinstance(place[-1], int):
            return f"{_table_of(table)}{place[-2]} has too few numbers; it must be {_SHORT.get(place[-2], 'longer')}"
        return f"{where} is missing; every study needs it"
    if kind == "dataclass_type":
        return f"[{'.'.join(place)}] is {_shown(fault['input'])}; it must be a table"
    if kind == "float_type" and place[:2] == ("head", "conductivities"):
        return f"{where} is {_shown(fault['input'])}; {ONE_NUMBER}"
    must = _must_be(fault)
    return f"{where} is {_shown(fault['input'])}; it must be {must}"


def _printable(text):
    # A message is one line, and what stands in a file may not steer the terminal.
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


_SHORT = dict.fromkeys(("hand_knob_mm", "centre_mm", "align_centre_mm"), "x, y, z")
_SHORT |= dict.fromkeys(("angle_deg", "distance_mm"), "low, high")

_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "string_too_short": "text that is not empty",
    "too_long": "shorter",
    "too_short": "a list that is not empty",
}


def _must_be(fault):
    if fault["type"] == "literal_error":
        valid = re.findall(r"'([^']*)'|(\d+)", fault["ctx"]["expected"])
        words = [word or number for word, number in valid]
        hint = did_you_mean(fault["input"], words) if isinstance(fault["input"], str) else ""
        return fault["ctx"]["expected"] + hint
    if fault["type"] == "too_long" and fault["loc"][-1] in _SHORT:
        return _SHORT[fault["loc"][-1]]
    return _KINDS.get(fault["type"]) or fault["msg"].removeprefix("Input should be ")


def _split(place):
    """Split a place into the table and the key, with places in a list as in ``trials[2]``."""
    names = [str(part) for part in place if isinstance(part, str)]
    indices = "".join(f"[{part}]" for part in place if isinstance(part, int))
    table = tuple(names[:-1])
    return table, names[-1] + indices


def _table_of(place):
    names = [str(part) for part in place]
    return f"[{'.'.join(names)}] " if names else ""


def _shown(value):
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind_with(key):
    """Return the kind of study that knows a top key, "" for none; only asked of keys that the study's own has not."""
    return next((kind.kind for kind in _CONFIGS if key in _keys_of(kind, ())), "")


@cache
def _keys_of(kind, table):
    """Return the valid keys of a table of a study of some kind, by its path."""
    for name in table:
        kind = next(each.type for each in fields(kind) if each.name == name)
    return tuple(each.name for each in fields(kind)) if is_dataclass(kind) else ()


# ---- paths ----------------------------------------------------------------------------------------------------------


_PATHS = {
    StudyTables: (
        ("head", "source", BUILTIN_HEADS),
        ("coil", "source", BUILTIN_COILS),
        ("poses", "file", ()),
        ("volume", "mask_file", ()),
        ("solver", "bases", ()),
        ("solver", "basis", ()),
        ("responses", "file", ()),
    ),
    EegTables: (("records", "source", (PLANTED,)),),
}


def _with_paths(tables, home):
    """Make every path of the study absolute; the study's own folder, where it is not given, is in the current one."""
    changed = {}
    for table, key, builtin in _PATHS[type(tables)]:
        held = changed.get(table, getattr(tables, table))
        value = getattr(held, key)
        if value and value not in builtin:
            changed[table] = replace(held, **{key: _absolute(value, home, f"[{table}] {key}")})
    if tables.folder:
        folder = _absolute(tables.folder, home, "folder")
    else:
        folder = str(Path.cwd() / "studies" / tables.name)
    return replace(tables, folder=folder, **changed)


def _absolute(text, home, key):
    def value_of(match):
        name = match[1] or match[2]
        if name not in os.environ:
            raise ConfigError(
                f"{key} is {text!r}, but the environment has no variable {name}; set it, or write the path"
            )
        return os.environ[name]

    expanded = Path(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value_of, text)).expanduser()
    return os.path.normpath(home / expanded)
