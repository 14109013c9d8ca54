"""Markdown to safe HTML, whole or block by block while it is still being written. Knows no socket, no database."""

from chat.markdown.blocks import Block, BlockStream, Tail
from chat.markdown.renderer import render, render_block

__all__ = ["Block", "BlockStream", "Tail", "render", "render_block"]
