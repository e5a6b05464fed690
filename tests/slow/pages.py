"""An offline page as its tests see it."""

from __future__ import annotations

import html.parser
import json


class Page(html.parser.HTMLParser):
    """The elements of a page, its visible text, and the text of its scripts and styles apart."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.raw, self.open = [], "", {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self.open.append(dict(attributes).get("type", tag))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.raw[self.open[-1]] = self.raw.get(self.open[-1], "") + data
        else:
            self.text += data

    def data(self):
        return json.loads(self.raw["application/json"])
