"""A page that was written, read for tests."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a page refers to, its text, and its tables by id as rows of cells."""

    def __init__(self, text):
        super().__init__()
        self.references, self.tags, self.words, self.tables, self._table = [], [], [], {}, None
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.references += [attrs[key] for key in ("src", "srcset", "href", "data", "poster") if key in attrs]
        if tag == "div" and attrs.get("class") == "table":
            self._table = self.tables.setdefault(attrs["id"], [])
        if self._table is not None and tag == "tr":
            self._table.append([])
        if self._table is not None and tag in ("td", "th"):
            self._table[-1].append("")

    def handle_data(self, data):
        self.words.append(data)
        if self._table and self._table[-1]:
            self._table[-1][-1] += data.strip().replace("\u200b", "").replace("\u2060", "")

    def handle_endtag(self, tag):
        if tag == "table":
            self._table = None

    def row(self, table, label, number=0):
        """Cells of the row with this label; the n-th of that label."""
        return [row for row in self.tables[table] if row and row[0] == label][number][1:]

    def score(self, label, kind):
        """Cells of a predictor on an input: NRMSE, interval, above the best, standing, parameters, paper."""
        return next(row[2:] for row in self.tables["scores"] if row[:2] == [label, kind])
