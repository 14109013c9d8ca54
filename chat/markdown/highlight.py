"""Code blocks: Pygments with class names only, because the page's policy allows no inline style."""

from __future__ import annotations

from functools import lru_cache
from html import escape

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

# Beyond this, colours cost seconds and nobody reads that far.
MAX_HIGHLIGHTED_CHARS = 100_000
TOKEN_CLASSES = frozenset(name for name in STANDARD_TYPES.values() if name)

_formatter = HtmlFormatter(nowrap=True)


@lru_cache(maxsize=64)
def _find_lexer(language: str) -> Lexer | None:
    """By name only: guessing is slow and wrong for short snippets."""
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def highlight_code(source: str, language: str) -> str:
    """The inside of a code element, escaped."""
    lexer = _find_lexer(language.lower()) if language and len(source) <= MAX_HIGHLIGHTED_CHARS else None
    return escape(source) if lexer is None else highlight(source, lexer, _formatter)


def render_code(source: str, language: str) -> str:
    """A code block with a header: the language, and a button that copies the code."""
    label = escape(language)
    name = f"{label} code" if label else "Code"
    code = highlight_code(source, language)
    return (
        f'<div class="code-block" data-language="{label}">'
        f'<div class="code-head"><span class="code-language">{label}</span>'
        '<button type="button" class="code-copy" aria-label="Copy code">Copy</button></div>'
        f'<pre tabindex="0" role="region" aria-label="{name}"><code>{code}</code></pre></div>\n'
    )
