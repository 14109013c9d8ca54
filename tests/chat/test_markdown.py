"""Markdown: what it shows, what it never lets through, and that streamed blocks are the whole text."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from chat.markdown import Block, BlockStream, render
from chat.markdown.renderer import _render
from chat.markdown.sanitize import sanitize

LINES = [
    *(
        "",
        "",
        "",
        " ",
        "word",
        "two *words*",
        "a | b",
        "a | b | c",
        "--- | ---",
        "| x |",
        "|:-|-:|",
        "    indented",
        "\tx",
    ),
    *(
        "- a",
        "- b",
        "* c",
        "+",
        "-",
        "-   wide",
        "  under",
        "   under",
        "1. one",
        "2. two",
        "10. ten",
        "3) three",
        " - off",
    ),
    *(
        "  - nested",
        "    - deep",
        "> quote",
        ">",
        "> - item",
        "```",
        "```python",
        "````",
        "~~~",
        "  ```",
        "   ```",
    ),
    *(
        "# title",
        "## two",
        "---",
        "===",
        "***",
        "- - -",
        "_ _ _",
        "--",
        "$$",
        "$$x$$",
        "$$x$$ y",
        "\\[",
        "\\]",
        "x $$",
        "  $$",
    ),
    *(
        "[a]: http://b.c",
        "<div>",
        "</div>",
        "<script>",
        "- > q",
        "- ```",
        "- # h",
        "> # h",
        "> ```",
        "1. ```",
        "`",
        "**",
        "$5 and $10",
    ),
]
documents = st.lists(st.sampled_from(LINES), max_size=12).map("\n".join)
any_text = st.one_of(
    documents, st.text(max_size=80), st.text(alphabet="*_`~#>-+1. \n\t\r|$\\()[]{}<>!&;:/ab\"'=", max_size=120)
)


def stream(text: str, cuts: list[int]) -> list[Block]:
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    blocks = BlockStream()
    finished: list[Block] = []
    for start, end in pairwise(borders):
        finished += blocks.feed(text[start:end])
    return finished + blocks.finish()


class Elements(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


@settings(max_examples=400, deadline=None)
@given(any_text, st.lists(st.integers(0, 200), max_size=20))
def test_blocks_are_the_text_however_it_was_cut(text: str, cuts: list[int]) -> None:
    blocks = stream(text, cuts)
    assert "".join(block.source for block in blocks) == text
    assert [block.index for block in blocks] == list(range(len(blocks)))
    assert [block.length for block in blocks] == [
        sum(len(b.source) for b in blocks[: i + 1]) for i in range(len(blocks))
    ]
    assert blocks == stream(text, []) == stream(text, list(range(len(text))))


@settings(max_examples=600, deadline=None)
@given(documents)
def test_blocks_rendered_apart_look_like_the_whole(text: str) -> None:
    assert render(text) == sanitize(_render(text))


@settings(max_examples=400, deadline=None)
@given(any_text)
def test_output_is_safe_and_already_sanitized(text: str) -> None:
    html = render(text)
    elements = Elements(html)
    assert not {"script", "style", "img", "iframe", "object", "form", "svg", "link", "meta"} & set(elements.tags)
    assert not [
        name for name, _value in elements.attributes if name.startswith("on") or name in ("style", "src", "srcset")
    ]
    links = [value.lower() for name, value in elements.attributes if name == "href"]
    assert all(link.startswith(("http://", "https://", "mailto:")) for link in links)
    assert sanitize(html) == html
