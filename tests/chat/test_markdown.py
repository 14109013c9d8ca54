"""Markdown: what it shows, what it never lets through, and that streamed blocks are the whole text."""

from __future__ import annotations

from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.markdown import Block, BlockStream, Tail, render, render_block, renderer
from chat.markdown import blocks as blocks_module
from chat.markdown.lines import Line
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


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("$5 and $10", "<p>$5 and $10</p>\n"),
        ("$5, or 10$ later", "<p>$5, or 10$ later</p>\n"),
        ("US$5 and C$10", "<p>US$5 and C$10</p>\n"),
        ("$HOME/bin:$PATH", "<p>$HOME/bin:$PATH</p>\n"),
        (r"escaped \$x\$", "<p>escaped $x$</p>\n"),
        (r"$\foo$", '<p><code class="math-source">\\foo</code></p>\n'),
        (r"\(\frac{1}{\)", '<p><code class="math-source">\\frac{1}{</code></p>\n'),
    ],
)
def test_prices_and_half_formulas_stay_text(source: str, shown: str) -> None:
    assert render(source) == shown


@pytest.mark.parametrize(
    "source", ["$x^2$", r"\(x^2\)", "$$x^2$$", r"\[x^2\]", "$$\nx^2\n$$", "\\[\nx^2\n\\]", "the $x^2$-axis"]
)
def test_formulas_become_mathml(source: str) -> None:
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in render(source)


def test_formula_on_lines_of_its_own_is_not_a_list_or_heading() -> None:
    html = render("Thus\n$$\na\n- b\n= c\n$$\nholds.")
    assert html.startswith('<p>Thus</p>\n<p><math display="block">')
    assert html.endswith("<p>holds.</p>\n")


def test_text_inside_a_formula_cannot_become_markup() -> None:
    elements = Elements(
        render(r"$\text{<img src=x onerror=alert(1)>} \href{javascript:alert(1)}{x} \style{color:red}{y}$")
    )
    assert set(elements.tags) <= {"p", "math", "mrow", "mtext", "mi"}
    assert elements.attributes == [("display", "inline")]


def test_code_is_coloured_by_class_and_has_a_copy_button() -> None:
    html = render("```python\nx = 'a < b'\n```")
    assert '<div class="code-block" data-language="python">' in html
    assert '<button type="button" class="code-copy" aria-label="Copy code">Copy</button>' in html
    assert '<span class="s1">' in html
    assert "a &lt; b" in html


def test_code_keeps_every_character() -> None:
    source = "\n\n  <b>\t&amp; x\n\n"
    html = render(f"```nosuchlanguage\n{source}```")
    inside = html[html.index("<code>") + 6 : html.index("</code>")]
    assert unescape(inside) == source


def test_links_open_apart_and_only_known_schemes_become_links() -> None:
    links = Elements(
        render("[a](https://b.c) <mailto:d@e.f> https://g.h/i. [j](javascript:k) [l](/m) [n](data:text/html,o)")
    )
    assert [value for name, value in links.attributes if name == "href"] == [
        "https://b.c",
        "mailto:d@e.f",
        "https://g.h/i",
    ]
    assert [value for name, value in links.attributes if name == "rel"] == ["noopener noreferrer nofollow"] * 3
    assert [value for name, value in links.attributes if name == "target"] == ["_blank"] * 3


def test_images_are_links_and_never_loaded() -> None:
    html = render("![a cat](https://cats.example/1.png?q=secret)")
    assert Elements(html).tags == ["p", "a"]
    assert ">a cat</a>" in html


def test_tables_scroll_and_keep_their_alignment() -> None:
    html = render("| a | b |\n|:--|--:|\n| 1<br>2 | 3 |\n")
    assert html.startswith('<div class="table-scroll"')
    assert '<td class="align-right">3</td>' in html
    assert "1<br>2" in html


def test_raw_html_is_shown_as_text() -> None:
    assert render("<script>alert(1)</script> H<sub>2</sub>O") == (
        "<p>&lt;script&gt;alert(1)&lt;/script&gt; H<sub>2</sub>O</p>\n"
    )


def test_address_of_a_reference_definition_is_not_lost() -> None:
    assert "https://b.c" in render("See [a].\n\n[a]: https://b.c")


@pytest.mark.parametrize(
    "source", ["> " * 300 + "deep", "".join(f"{'  ' * n}- item {n}\n" for n in range(200)) + "deep"]
)
def test_nothing_is_lost_in_what_is_nested_too_deep(source: str) -> None:
    assert "deep" in render(source)


def test_whatever_a_parser_stumbles_over_the_text_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(source: str) -> str:
        raise IndexError

    monkeypatch.setattr(renderer, "_render", stumble)
    assert render_block("a <b>") == "<pre><code>a &lt;b&gt;</code></pre>\n"


@pytest.mark.parametrize(
    ("text", "tail"),
    [
        ("", None),
        ("\n\n", None),
        ("Hello", Tail("paragraph")),
        ("Hello\n\n", None),
        ("# Title\n", None),
        ("```py", Tail("code")),
        ("```python title=x\nx = 1", Tail("code", "python")),
        ("~~~\n```\n\n", Tail("code")),
        ("```js\n1\n```\n", None),
        ("- a\n- b", Tail("list")),
        ("1. a\n\n", Tail("list")),
        ("| a |\n|---|\n| b", Tail("table")),
        ("    code\n", Tail("code")),
        ("$$\nx", Tail("paragraph")),
    ],
)
def test_tail_tells_what_is_unfinished(text: str, tail: Tail | None) -> None:
    blocks = BlockStream()
    blocks.feed(text)
    assert blocks.tail == tail


def test_blocks_are_handed_over_as_soon_as_they_are_finished() -> None:
    blocks = BlockStream()
    assert [block.source for block in blocks.feed("# A\nText\n")] == ["# A\n"]
    assert [block.source for block in blocks.feed("\n")] == ["Text\n\n"]
    assert blocks.feed("- a\n- b\n\n") == []
    assert [block.source for block in blocks.feed("N")] == ["- a\n- b\n\n"]
    assert [block.source for block in blocks.feed("ext\n```\nx\n```\n")] == ["Next\n", "```\nx\n```\n"]
    assert blocks.finish() == []


@pytest.mark.parametrize("line", ["- item\n", "word word\n", "| a | b |\n", "> quote\n", "word ", "1. item\n\n", "\r"])
def test_no_line_is_read_twice(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the text is ten times the reading, in one giant block as in many."""
    read: list[int] = []
    original = blocks_module.read_line

    def counting(source: str) -> Line:
        read.append(len(source))
        return original(source)

    monkeypatch.setattr(blocks_module, "read_line", counting)
    costs = []
    for times in (100, 1000):
        read.clear()
        blocks = BlockStream()
        for _ in range(times):
            blocks.feed(line)
        blocks.finish()
        costs.append(sum(read))
    assert costs[1] <= 10 * costs[0] + 1000
