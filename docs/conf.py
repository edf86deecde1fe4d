"""The documentation as a site: sphinx-build -W docs site."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs.generate import pages  # noqa: E402
from fishr import __version__  # noqa: E402

project = "fishr"
highlight_language = "none"
smartquotes_action = "D"  # dashes alone
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generate"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the outputs are kept; tests/test_notebooks.py runs the notebooks
napoleon_custom_sections = ["Source"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False
maximum_signature_line_length = 80
html_theme = "furo"
html_title = f"fishr {version}"
html_theme_options = {"light_css_variables": {"code-font-size": "78%", "api-font-size": "78%"}}
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False


def write(*_: object) -> None:
    """Write the generated pages to docs/reference, and remove those of earlier versions."""
    folder = Path(__file__).parent / "reference"
    texts = {folder / f"{name}.md": text for name, text in pages().items()}
    for page in set(folder.rglob("*.md")) - set(texts):
        page.unlink()
    for page, text in texts.items():
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def literal(_app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Escape signs of mathematics that reStructuredText would read as markup: \\|x\\|, x*, x_."""
    if what == "property":
        # Napoleon reads what is before a colon as a type.
        lines[0] = lines[0].replace(": ", " -- ")
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(``.*?``|:\w+:`.*?`)", line)
            parts[::2] = [re.sub(r"[|*]|_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
            lines[number] = "".join(parts)


def setup(app: Any) -> None:
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", literal, priority=100)
