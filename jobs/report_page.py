"""The page of a report: sections in, one HTML file that needs nothing else out, and its pictures beside it."""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from ..zarr_store.study import atomic_write_bytes, atomic_write_text


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    id, title : str
    paragraphs : list of str
        Text; escaped by the template.
    tables : list of Markup
    pictures : list of Picture
    columns : int
        Pictures side by side on a wide page.
    notes : list of str
        Small print below, such as what is missing.
    style : str
        ``"dense"``: small tables; ``"box"``: the paragraphs as a list in a frame.
    """

    id: str
    title: str
    paragraphs: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    pictures: list = field(default_factory=list)
    columns: int = 1
    notes: list = field(default_factory=list)
    style: str = ""


def write_page(evidence, sections, *, summary, kicker="motorsweep report") -> Path:
    """Write ``report/index.html`` of a study, and every picture as PNG beside it.

    The page is one file without scripts or links to elsewhere, for light and dark screens, wide and narrow. A new one
    takes the place of the old one only when it is whole.

    Parameters
    ----------
    evidence : Evidence or EegEvidence
        Gives study, name and results.
    sections : list of Section or None
        In the order of the page; those that are None are left out.
    summary : list of str
        Sentences at the top, the first one large.
    kicker : str
        The line above the name.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    StoreError
        Where the disk refuses.

    Examples
    --------
    >>> write_page(evidence, [scores, runs], summary=["Direct is the best."])        # doctest: +SKIP
    PosixPath('.../studies/quick/report/index.html')
    """
    sections = [section for section in sections if section is not None]
    page = evidence.study.report / "index.html"
    for section in sections:
        for picture in section.pictures:
            atomic_write_bytes(page.with_name(f"{picture.name}.png"), picture.light)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = lambda data: "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    text = environment.get_template("report.html").render(
        name=evidence.name, kicker=kicker, summary=summary, sections=sections,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        source=evidence.results.attrs.get("source", "motorsweep"),
    )  # fmt: skip
    atomic_write_text(page, text)
    return page
