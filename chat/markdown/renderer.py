"""One Markdown parser for all, set up once, and the two ways to use it. Raw HTML is shown as text."""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape

import structlog
from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline

from chat.markdown.bare_links import bare_links_plugin
from chat.markdown.blocks import BlockStream
from chat.markdown.highlight import render_code
from chat.markdown.lines import language_of
from chat.markdown.maths import maths_plugin
from chat.markdown.sanitize import sanitize

# Deeper lists and quotes would be left out by the parser without a word.
MAX_NESTING = 60

logger = structlog.get_logger(__name__)

_ALLOWED_LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
# Models write these in tables and formulas; they take no attributes, and the sanitizer closes what is left open.
_SIMPLE_TAG = re.compile(r"<(/?)(br|sub|sup|kbd|mark|u)\s*/?>", re.IGNORECASE)


class Renderer(RendererHTML):
    """Differs from markdown-it where the page needs it: copyable code, tables that scroll, images that never load."""

    def fence(self, tokens, idx, options, env) -> str:
        return render_code(tokens[idx].content, language_of(unescapeAll(tokens[idx].info)))

    def code_block(self, tokens, idx, options, env) -> str:
        return render_code(tokens[idx].content, "")

    def table_open(self, tokens, idx, options, env) -> str:
        return '<div class="table-scroll" role="region" aria-label="Table" tabindex="0"><table>\n'

    def table_close(self, tokens, idx, options, env) -> str:
        return "</table></div>\n"

    def th_open(self, tokens, idx, options, env) -> str:
        return self._cell(tokens[idx])

    def td_open(self, tokens, idx, options, env) -> str:
        return self._cell(tokens[idx])

    def image(self, tokens, idx, options, env) -> str:
        """A link: loading it would tell its server who reads, and carry out what the address holds."""
        token = tokens[idx]
        address = str(token.attrs["src"])
        text = self.renderInlineAsText(token.children, options, env) or address
        return f'<a class="image-link" href="{escape(address)}">{escape(text)}</a>'

    def _cell(self, token) -> str:
        alignment = str(token.attrs.get("style", "")).removeprefix("text-align:")
        return f'<{token.tag} class="align-{alignment}">' if alignment else f"<{token.tag}>"


def _simple_tag_rule(state: StateInline, silent: bool) -> bool:
    found = _SIMPLE_TAG.match(state.src, state.pos) if state.src[state.pos] == "<" else None
    if not found:
        return False
    if not silent:
        state.push("html_inline", "", 0).content = f"<{found[1]}{found[2].lower()}>"
    state.pos = found.end()
    return True


@lru_cache(maxsize=1)
def _get_parser() -> MarkdownIt:
    options = {"html": False, "tasklists": True, "maxNesting": MAX_NESTING}
    md = MarkdownIt("commonmark", options, renderer_cls=Renderer)
    md.enable(["table", "strikethrough"])
    # A definition and its use may stand in different blocks; shown as text, its address is not lost.
    md.disable("reference")
    md.validateLink = lambda url: _ALLOWED_LINK.match(url.strip()) is not None
    md.inline.ruler.before("autolink", "simple_tag", _simple_tag_rule)
    md.use(maths_plugin).use(bare_links_plugin)
    return md


def render_block(source: str) -> str:
    """Safe HTML of one block. May take milliseconds (colours): call it in a thread. Never raises."""
    try:
        return sanitize(_render(source))
    except Exception as error:  # an answer must be shown, whatever a parser stumbles over
        logger.error("markdown_failed", error=type(error).__name__, length=len(source))
        return sanitize(_render_plain(source))


def _render(source: str) -> str:
    md, env = _get_parser(), {}
    tokens = md.parse(source, env)
    if any(token.level >= MAX_NESTING - 1 for token in tokens):
        return _render_plain(source)
    return md.renderer.render(tokens, md.options, env)


def _render_plain(source: str) -> str:
    return f"<pre><code>{escape(source)}</code></pre>\n"


def render(text: str) -> str:
    """The same HTML as the streamed blocks joined."""
    stream = BlockStream()
    return "".join(render_block(block.source) for block in [*stream.feed(text), *stream.finish()])
