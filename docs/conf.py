"""The site: the pages of this folder, the notebooks, and the reference from docstrings. Built by `./tour docs`."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import jaxopt_tour

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "jaxopt_tour"
author = "the authors of jaxopt_tour"
copyright = f"2026, {author}. Apache-2.0"
release = jaxopt_tour.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_nb", "sphinx_design"]
exclude_patterns = ["_build"]
suppress_warnings = ["config.cache"]

html_theme = "sphinx_book_theme"
html_title = f"jaxopt_tour {release}"
html_theme_options = {"show_toc_level": 2, "use_download_button": False, "use_fullscreen_button": False}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Outputs are cached by the text of the cells: a second build executes what has changed.
nb_execution_mode = os.environ.get("JAXOPT_TOUR_NOTEBOOKS", "cache")
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "none"  # `Args` says types, units and defaults; a signature stays on a few lines.
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]
napoleon_use_rtype = False
napoleon_use_ivar = True


def copy_notebooks(app: Any) -> None:
    """Copy the notebooks, which are stored beside this folder, to where Sphinx reads them."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb")}
    for copy in (HERE / "notebooks").glob("*.ipynb"):
        if copy.name not in sources:
            copy.unlink()
    for name, text in sources.items():
        copy = HERE / "notebooks" / name
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")


def lead_to_the_site(app: Any, name: str, source: list[str]) -> None:
    """Let links to notebooks lead to their pages. Links to other files outside this folder become plain text."""
    up = "../" * name.count("/")
    text = source[0].replace(f"]({up}../notebooks/", f"]({up}notebooks/")
    text = text.replace(f"]({up}../CHANGELOG.md)", f"]({up}changelog.md)")
    source[0] = re.sub(rf"(?<!!)\[([^\]]+)\]\({re.escape(up)}\.\./[^)]+\)", r"\1", text)


def as_restructured_text(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring's Markdown as autodoc wants it: fences, tables, code in backticks, mathematics in dollars."""
    parts = re.split(r"^( *)```(\w*)\n(.*?)^ *```$", "\n".join(lines), flags=re.M | re.S)
    text = _prose(parts[0])
    for indent, language, code, prose in zip(parts[1::4], parts[2::4], parts[3::4], parts[4::4], strict=True):
        text += (
            f"{indent}.. code-block:: {language or 'text'}\n\n" + textwrap.indent(code, "   ") + "\n" + _prose(prose)
        )
    lines[:] = text.split("\n")


#: Of one line or two: what is restructured text already, mathematics, code.
_INLINE = re.compile(
    r"(?P<kept>``[^`]+``|:[\w:]+:`[^`]+`)|(?<![\\$])\$(?P<math>[^$\n]+(?:\n[^$\n]+)?)\$|"
    r"`(?P<code>[^`\n]+(?:\n[^`\n]+)?)`(?![`_])"
)


def _inline(match: re.Match[str]) -> str:
    if match["kept"]:
        return match["kept"]
    text = " ".join((match["math"] or match["code"]).split())
    return f":math:`{text}`" if match["math"] else f"``{text}``"


def _prose(text: str) -> str:
    text = re.sub(r"^( *)\$\$(.*?)\$\$$", _block, text, flags=re.M | re.S)
    text = _INLINE.sub(_inline, text)
    return re.sub(r"(?:^ *\|.*\|$\n?){2,}", _table, text, flags=re.M)


def _block(match: re.Match[str]) -> str:
    body = "\n".join(f"{match[1]}   {line.strip()}" for line in match[2].strip().splitlines())
    return f"\n{match[1]}.. math::\n\n{body}\n"


def _table(match: re.Match[str]) -> str:
    first, _, *rows = (line.strip().strip("|").split("|") for line in match[0].strip().splitlines())
    cells = ["* - " + "\n  - ".join(cell.strip() for cell in row) for row in (first, *rows)]
    text = ".. list-table::\n   :header-rows: 1\n\n" + textwrap.indent("\n".join(cells), "   ")
    return textwrap.indent(text, match[0][: len(match[0]) - len(match[0].lstrip())]) + "\n\n"


def visit_math(self: Any, node: nodes.Element) -> None:
    """Write MathML, which browsers draw themselves: the pages fetch nothing."""
    text = re.sub(r"\\[bB]ig[glr]?(?![a-zA-Z])", "", node.astext())  # MathML stretches brackets by itself.
    text = text.replace("\\iff", "\\Longleftrightarrow").replace("\\dots", "\\ldots")
    self.body.append(tex2mathml(text, as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Connect the hooks above."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", lead_to_the_site)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
