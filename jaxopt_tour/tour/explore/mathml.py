"""Equations written as text, such as `m̂ = m / (1 − β₁ᵗ)`, as MathML.

The notation is what one writes in a comment: juxtaposition is a product, `a / b` a fraction of its two neighbors, `√` a
root of what follows, subscripts and superscripts are Unicode's, and `{term:...}` marks a part by name.
"""

from __future__ import annotations

import re
import unicodedata
from html import escape
from typing import Final

_SUPERSCRIPTS: Final = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᐟᵗᵀ*", "0123456789+−/tT*", strict=True))
_SUBSCRIPTS: Final = dict(zip("₀₁₂₃₄₅₆₇₈₉ᵢⱼ", "0123456789ij", strict=True))
_TOKEN: Final = re.compile(
    rf"""\s*(?:
    (?P<open>\{{\w+:|\(|\[) | (?P<close>[}})\]]) | (?P<number>\d[\d.,]*\d|\d|½|¼) | (?P<root>√) | (?P<over>/)
    | (?P<name>x(?=y)|[A-Za-z]{{2,}}|[^\W\d_{"".join(_SUPERSCRIPTS)}{"".join(_SUBSCRIPTS)}]\u0302?)
    | (?P<up>[{"".join(_SUPERSCRIPTS)}]+) | (?P<down>[{"".join(_SUBSCRIPTS)}]+) | (?P<operator>\S)
    )""",
    re.VERBOSE,
)


def mathml(text: str) -> str:
    """The equation as a MathML element."""
    return f'<math displaystyle="true">{_Parser(text).row(None)}</math>'


class _Parser:
    """Recursive descent over the tokens of one line."""

    def __init__(self, text: str) -> None:
        self.tokens = [(str(found.lastgroup), found.group().strip()) for found in _TOKEN.finditer(text.strip())]
        self.at = 0

    def next_kind(self) -> str | None:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else None

    def take(self) -> tuple[str, str]:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def row(self, close: str | None) -> str:
        """Everything up to the closing token, which is taken; None: up to the end."""
        parts: list[str] = []
        while self.at < len(self.tokens):
            kind, text = self.tokens[self.at]
            if kind == "close" and close is not None:
                self.at += 1
                if text != close:
                    raise ValueError(f"expected {close!r} in an equation, got {text!r}")
                return "".join(parts)
            if kind == "over":
                self.at += 1
                if not parts:
                    raise ValueError("a fraction in an equation needs something above it")
                parts.append(f"<mfrac>{parts.pop()}{self.factor(bare=True)}</mfrac>")
            else:
                parts.append(self.factor())
        if close is not None:
            raise ValueError(f"an equation ends before {close!r}")
        return "".join(parts)

    def factor(self, bare: bool = False) -> str:
        """One factor with its subscript and superscript; `bare` leaves out parentheses, as below a fraction's bar."""
        kind, text = self.take()
        if kind == "open" and text.startswith("{"):
            inside = self.row("}")
            if bare:
                inside = re.sub(r"^<mrow><mo[^>]*>\(</mo>(.*)<mo[^>]*>\)</mo></mrow>$", r"\1", inside)
            base = f'<mrow class="term" data-term="{escape(text[1:-1])}">{inside}</mrow>'
        elif kind == "open":
            close = {"(": ")", "[": "]"}[text]
            inside = self.row(close)
            bracket = '<mo stretchy="false">'
            base = (
                f"<mrow>{inside}</mrow>" if bare else f"<mrow>{bracket}{text}</mo>{inside}{bracket}{close}</mo></mrow>"
            )
        elif kind == "root":
            base = f"<msqrt>{self.factor(bare=True)}</msqrt>"
        elif kind == "number":
            base = f"<mn>{escape(text)}</mn>"
        elif kind == "name":
            base = _name(text)
        else:
            base = f"<mo>{escape(text)}</mo>"
        return self.scripts(base)

    def scripts(self, base: str) -> str:
        found = {"down": "", "up": ""}
        while (kind := self.next_kind()) in found:
            table = _SUBSCRIPTS if kind == "down" else _SUPERSCRIPTS
            found[str(kind)] = _script("".join(table[each] for each in self.take()[1]))
        if found["down"] and found["up"]:
            return f"<msubsup>{base}{found['down']}{found['up']}</msubsup>"
        if found["down"] or found["up"]:
            element = "msub" if found["down"] else "msup"
            return f"<{element}>{base}{found['down'] or found['up']}</{element}>"
        return base


def _name(text: str) -> str:
    """A symbol, with its hat; words are set as text."""
    letters = unicodedata.normalize("NFD", text)
    if letters.endswith("\u0302"):
        return f'<mover accent="true"><mi>{escape(letters[:-1])}</mi><mo stretchy="false">^</mo></mover>'
    if text in ("Σ", "∇"):
        return f"<mo>{text}</mo>"
    return f"<mi>{escape(text)}</mi>" if len(text) == 1 else f"<mtext>&#8201;{escape(text)}&#8201;</mtext>"


def _script(text: str) -> str:
    parts = re.findall(r"\d+|\D", text)
    inside = "".join(
        f"<mn>{part}</mn>" if part.isdigit() else f"<mi>{part}</mi>" if part.isalpha() else f"<mo>{part}</mo>"
        for part in parts
    )
    return inside if len(parts) == 1 else f"<mrow>{inside}</mrow>"
