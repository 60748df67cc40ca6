"""Tables of the report, typeset by great-tables, in the page's colours, light or dark."""

import re
from math import isfinite

# Each ends with a semicolon: a cell that wears several has them strung together.
QUIET_CELL = "color: var(--quiet);"
BEST_CELL = "background: var(--best); font-weight: 600;"
CLOSE_CELL = "background: var(--best);"
ALERT_CELL = "color: var(--alert);"


def table_of(rows, *, name, stub, words=(), short=(), quiet=(), spanners=(), marks=()):
    """Typeset rows as HTML without a style sheet of its own.

    Parameters
    ----------
    rows : list of dict of str to str
        The keys are column headings; ``"_group"`` holds the heading of a group of rows.
    name : str
        The id of the table in the page.
    stub : str
        The column of row labels.
    words : sequence of str
        Columns of text, which are aligned to the left and may wrap; the others hold numbers.
    short : sequence of str
        Columns of a few words, which are aligned to the left and do not wrap.
    quiet : sequence of str
        Columns in grey.
    spanners : sequence of (str, list of str)
        Heading over several columns.
    marks : sequence of (int, str, str)
        Row, column, CSS of single cells.

    Returns
    -------
    Markup
        Text of the cells is escaped.

    Examples
    --------
    >>> "&lt;b&gt;" in table_of([{"Stage": "<b>", "Pieces": "1"}], name="t", stub="Stage")
    True
    """
    import pandas as pd  # here, so that `score_lines` does not wait for the typesetter
    from great_tables import GT, loc, style
    from markupsafe import Markup

    frame = pd.DataFrame(rows, dtype=object)
    grouped = "_group" in frame.columns
    table = GT(frame, id=name, rowname_col=stub, groupname_col="_group" if grouped else None).tab_stubhead(stub)
    values = [column for column in frame.columns if column not in (stub, "_group")]
    table = table.cols_align("right", columns=values).cols_align("left", columns=[*words, *short])
    for column in short:
        table = table.tab_style(style.css("min-width: 0; white-space: nowrap;"), loc.body(column))
    for heading, columns in spanners:
        table = table.tab_spanner(heading, columns=columns)
    for column in quiet:
        table = table.tab_style(style.css(QUIET_CELL), [loc.body(column), loc.column_labels(column)])
    for row, column, css in marks:
        table = table.tab_style(style.css(css), loc.body(column, [row]))
    html = re.sub(r"<style>.*?</style>", "", table.as_raw_html(), flags=re.DOTALL)
    html = re.sub(r'(<div id="[^"]*") style="[^"]*"', r'\1 class="table"', html, count=1)
    return Markup(html)


def number_text(value: float, form: str = ".3f") -> str:
    """Write a number with a true minus sign; "–" where there is none.

    Examples
    --------
    >>> number_text(-0.5), number_text(float("nan"))
    ('−0.500', '–')
    """
    return f"{value:{form}}".replace("-", "−") if isfinite(value) else "–"
