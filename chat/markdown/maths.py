r"""Formulas as MathML: `$..$`, `$$..$$`, `\(..\)` and `\[..\]`, with prices left alone. What fails shows its source."""

from __future__ import annotations

import re
from html import escape, unescape
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from chat.markdown.lines import opens_math

# Nobody writes a longer formula; a lone delimiter must not make the parser look through the whole text.
MAX_FORMULA_CHARS = 4000
INLINE_DELIMITERS = (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False), ("$", "$", False))

# `$5 and 10$` is money: a number first, then words that are neither a command nor inside one.
_MONEY = re.compile(r"[\d.,]+\s?(?:[kKmMbB]\b|(?![a-zA-Z]))(?:[^\\{}]*?[^\\a-zA-Z{}])?[a-zA-Z]{2,}")
_AFTER = re.compile(r"(?![0-9A-Za-z])|(?:th|st|nd|rd|s)\b")
# The converter knows these environments under another name only.
_ENVIRONMENTS = re.compile(
    r"\\(begin|end)\{(?:aligned|alignedat|gathered|gather\*?|equation\*?|eqnarray\*?|multline\*?)\}"
)


def render_formula(source: str, *, is_display: bool) -> str:
    """MathML, or the source as code when it is half a formula or has a command that is not known."""
    try:
        math = convert_to_element(_normalise(source), display="block" if is_display else "inline")
    except Exception:  # the converter raises whatever it stumbles over; the source is always an answer
        return _render_source(source)
    if any("\\" in (node.text or "") for node in math.iter()):
        return _render_source(source)
    return _serialise(math)


def _normalise(source: str) -> str:
    def rename(found: re.Match[str]) -> str:
        inside = "split" if "equation" not in found[0] and "gather" not in found[0] else "matrix"
        return f"\\{found[1]}{{{inside}}}"

    return _ENVIRONMENTS.sub(rename, source.strip())


def _serialise(math: Element) -> str:
    """The converter writes entities as text and its own `convert` leaves `<` bare; here only real text comes out."""
    for node in math.iter():
        node.text = unescape(node.text) if node.text else node.text
    return tostring(math, encoding="unicode")


def _render_source(source: str) -> str:
    return f'<code class="math-source">{escape(source.strip())}</code>'


def maths_plugin(md: MarkdownIt) -> None:
    md.inline.ruler.before("escape", "maths", _inline_rule)
    md.block.ruler.before("fence", "maths", _block_rule, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    md.add_render_rule("maths_inline", lambda self, tokens, i, options, env: _render_token(tokens[i]))
    md.add_render_rule("maths_block", lambda self, tokens, i, options, env: f"<p>{_render_token(tokens[i])}</p>\n")


def _render_token(token: Token) -> str:
    return render_formula(token.content, is_display=token.meta["is_display"])


def _inline_rule(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    for start, end, is_display in INLINE_DELIMITERS:
        if state.src.startswith(start, state.pos):
            return _take_formula(state, silent, start=start, end=end, is_display=is_display)
    return False


def _take_formula(state: StateInline, silent: bool, *, start: str, end: str, is_display: bool) -> bool:
    begin = state.pos + len(start)
    close = state.src.find(end, begin, min(state.posMax, begin + MAX_FORMULA_CHARS))
    while end == "$" and close > 0 and state.src[close - 1] == "\\":
        close = state.src.find(end, close + 1, min(state.posMax, begin + MAX_FORMULA_CHARS))
    content = state.src[begin:close] if close >= 0 else ""
    if not content.strip() or (start == "$" and not _is_formula(state.src, state.pos, close)):
        return False
    if not silent:
        token = state.push("maths_inline", "math", 0)
        token.content, token.markup, token.meta = content, start, {"is_display": is_display}
    state.pos = close + len(end)
    return True


def _is_formula(text: str, start: int, close: int) -> bool:
    """Whether the text between two single dollars is a formula, and not two prices or two shell variables."""
    content = text[start + 1 : close]
    if content[0].isspace() or content[-1].isspace():
        return False
    if start > 0 and (text[start - 1].isalnum() or text[start - 1] == "\\"):
        return False
    return _AFTER.match(text, close + 1) is not None and not _MONEY.match(content)


def _block_rule(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """A formula on lines of its own. Unclosed before the next blank line, it is a paragraph after all."""
    first = state.src[state.bMarks[start_line] + state.tShift[start_line] : state.eMarks[start_line]]
    end = "" if state.is_code_block(start_line) else opens_math(first)
    if not end or silent:
        return bool(end)
    last = start_line if end in first[2:] else _find_last_line(state, start_line, end_line, end)
    text = state.getLines(start_line, last + 1, state.sCount[start_line], False).strip()
    state.line = last + 1
    content = text[2:].removesuffix(end)
    if text.endswith(end) and content.strip():
        token = state.push("maths_block", "math", 0)
        token.block, token.content, token.markup, token.meta = True, content, text[:2], {"is_display": True}
    else:
        _push_paragraph(state, text, start_line)
    return True


def _find_last_line(state: StateBlock, start_line: int, end_line: int, end: str) -> int:
    for number in range(start_line + 1, end_line):
        line = state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]
        if not line or state.sCount[number] < state.blkIndent:
            return number - 1
        if end in line:
            return number
    return end_line - 1


def _push_paragraph(state: StateBlock, text: str, start_line: int) -> None:
    state.push("paragraph_open", "p", 1).map = [start_line, state.line]
    inline = state.push("inline", "", 0)
    inline.content, inline.map, inline.children = text, [start_line, state.line], []
    state.push("paragraph_close", "p", -1)
