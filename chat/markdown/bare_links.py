"""Turns a bare `https://` address into a link. Nothing without its scheme is guessed."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

_ADDRESS = re.compile(r"\bhttps?://[^\s<>\"'`]{1,2000}", re.IGNORECASE)
_TRAILING = ".,;:!?*_~"
_BRACKETS = {")": "(", "]": "["}


def bare_links_plugin(md: MarkdownIt) -> None:
    md.core.ruler.after("text_join", "bare_links", _rule)


def _rule(state: StateCore) -> None:
    for token in state.tokens:
        if token.type == "inline" and token.children and "://" in token.content:
            token.children = _link_children(token.children)


def _link_children(children: list[Token]) -> list[Token]:
    linked: list[Token] = []
    depth = 0
    for child in children:
        depth += {"link_open": 1, "link_close": -1}.get(child.type, 0)
        linked += _split(child) if child.type == "text" and depth == 0 else [child]
    return linked


def _split(token: Token) -> list[Token]:
    pieces: list[Token] = []
    end = 0
    for found in _ADDRESS.finditer(token.content):
        address = _trim(found[0])
        pieces += [_text(token.content[end : found.start()]), *_link(address)]
        end = found.start() + len(address)
    return [*pieces, _text(token.content[end:])] if pieces else [token]


def _trim(address: str) -> str:
    """The sentence's own full stop and closing bracket are not part of it."""
    address = address.rstrip(_TRAILING)
    while address[-1:] in _BRACKETS and address.count(address[-1]) > address.count(_BRACKETS[address[-1]]):
        address = address[:-1].rstrip(_TRAILING)
    return address


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _link(address: str) -> list[Token]:
    return [Token("link_open", "a", 1, attrs={"href": address}), _text(address), Token("link_close", "a", -1)]
