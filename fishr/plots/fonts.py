"""Characters that matplotlib's font lacks, such as those of Japanese names: from other installed fonts, or escaped."""

import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text


def drawable(text: str) -> str:
    r"""Return a text in which a character that no installed font has is escaped, such as \u6771; warn of it."""
    return text.translate(_escapes(_foreign(text)))


def add_fonts(figure: Figure) -> None:
    """Let the texts of a figure take characters that their font lacks from other installed fonts."""
    for axes in figure.axes:
        # Else tick labels have no text yet.
        axes.get_xticklabels()
        axes.get_yticklabels()
    texts = figure.findobj(Text)
    families, _ = _fonts_with(_foreign("".join(text.get_text() for text in texts)))
    for text in texts if families else ():
        text.set_fontfamily([*text.get_fontfamily(), *families])


def _foreign(text: str) -> str:
    return _lacking(font_manager.findfont(FontProperties()), "".join(sorted({*text})))


@cache
def _escapes(characters: str) -> dict[int, str]:
    _, rest = _fonts_with(characters)
    if rest:
        warnings.warn(
            f"no installed font has {rest}, so figures show codes; install one, such as Noto Sans CJK", stacklevel=3
        )
    return {ord(one): one.encode("unicode_escape").decode() for one in rest}


@cache
def _fonts_with(characters: str) -> tuple[tuple[str, ...], str]:
    """Return families that have characters, those with most of them first, and the characters that none has."""
    families, rest = list[str](), characters
    while rest and (path := _best(_files(), rest)):
        font_manager.fontManager.addfont(path)
        families.append(FontProperties(fname=Path(path)).get_name())
        rest = _lacking(path, rest)
    return tuple(families), rest


def _files() -> list[str]:
    # Apple's font of last resort has boxes for all characters.
    return sorted(path for path in font_manager.findSystemFonts() if "LastResort" not in path)


def _best(paths: Iterable[str], characters: str) -> str:
    """Return the first font file that has most of some characters; empty if none has one."""
    counts = {path: len(_lacking(path, characters)) for path in paths}
    path = min(counts, key=counts.__getitem__, default="")
    return path if counts.get(path, len(characters)) < len(characters) else ""


@cache
def _lacking(path: str, characters: str) -> str:
    """Return those of some characters that a font file lacks."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # a file that FreeType cannot read
        return characters
    return "".join(one for one in characters if not one.isspace() and not font.get_char_index(ord(one)))
