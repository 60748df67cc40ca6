"""Decimal commas, as spreadsheets write them in much of Europe."""

import re

DECIMAL_COMMA_BESIDE = (";", "\t")
"""Delimiters that leave the comma free for decimals."""

_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")


def with_points(rows):
    """Decimal commas of a table become points, unless it has decimal points too.

    In a table with both a comma may separate thousands. It is left in place then, where reading the number fails.

    Parameters
    ----------
    rows : list of (int, list of str)
        Line number and fields.

    Returns
    -------
    list of (int, list of str)

    Examples
    --------
    >>> with_points([(2, ["FDI", "0,5"])])
    [(2, ['FDI', '0.5'])]
    """
    if any(_POINT.fullmatch(field) for _, fields in rows for field in fields):
        return rows
    return [
        (number, [field.replace(",", ".") if _COMMA.fullmatch(field) else field for field in fields])
        for number, fields in rows
    ]
