"""How messages show a file's text."""

_LONGEST = 60


def quoted(value) -> str:
    """Show a field or a name, cut short: a damaged one can be as long as its file.

    Examples
    --------
    >>> quoted("FDI")
    "'FDI'"
    """
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
