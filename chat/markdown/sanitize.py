"""The last step: an explicit list of what may reach a page. Everything else is dropped, whoever produced it."""

from __future__ import annotations

import nh3

from chat.markdown.highlight import TOKEN_CLASSES

TEXT_TAGS = {"p", "br", "hr", "em", "strong", "s", "sub", "sup", "kbd", "mark", "u", "a", "code", "pre", "span", "div"}
BLOCK_TAGS = {"h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "input", "button"}
TABLE_TAGS = {"table", "thead", "tbody", "tr", "th", "td"}
MATH_TAGS = {
    *("math", "mrow", "mi", "mo", "mn", "mtext", "mspace", "msup", "msub", "msubsup", "mover", "munder", "munderover"),
    *("mfrac", "msqrt", "mroot", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose", "mmultiscripts"),
}

_ALIGNMENTS = {"align-left", "align-center", "align-right"}
_sanitizer = nh3.Cleaner(
    tags=TEXT_TAGS | BLOCK_TAGS | TABLE_TAGS | MATH_TAGS,
    # Attributes of MathML are presentation only: no `href`, no `style`, no event.
    attributes={
        "a": {"href", "title"},
        "ol": {"start"},
        "div": {"data-language", "aria-label"},
        "pre": {"aria-label"},
        "button": {"aria-label"},
        "mo": {"stretchy", "fence", "form", "separator", "minsize", "maxsize", "lspace", "rspace", "movablelimits"},
        "mi": {"mathvariant"},
        "mn": {"mathvariant"},
        "mtext": {"mathvariant"},
        "mstyle": {"displaystyle", "scriptlevel", "mathcolor", "mathsize"},
        "mfrac": {"linethickness"},
        "mspace": {"width", "height", "linebreak"},
        "mover": {"accent"},
        "munder": {"accentunder"},
        "mtable": {"columnalign", "columnspacing", "rowspacing", "rowlines", "columnlines", "displaystyle"},
        "mtd": {"columnalign", "columnspan"},
        "menclose": {"notation"},
        "mpadded": {"width", "height", "depth", "lspace", "voffset"},
    },
    tag_attribute_values={
        "math": {"display": {"block", "inline"}},
        "input": {"type": {"checkbox"}, "checked": {""}},
        "button": {"type": {"button"}},
        "div": {"role": {"region"}, "tabindex": {"0"}},
        "pre": {"role": {"region"}, "tabindex": {"0"}},
    },
    set_tag_attribute_values={"a": {"target": "_blank"}, "input": {"type": "checkbox", "disabled": ""}},
    allowed_classes={
        "span": {*TOKEN_CLASSES, "code-language"},
        "div": {"code-block", "code-head", "table-scroll"},
        "button": {"code-copy"},
        "code": {"math-source"},
        "a": {"image-link"},
        "ul": {"contains-task-list"},
        "ol": {"contains-task-list"},
        "li": {"task-list-item"},
        "input": {"task-list-item-checkbox"},
        "th": _ALIGNMENTS,
        "td": _ALIGNMENTS,
    },
    clean_content_tags={"script", "style"},
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
)


def sanitize(html: str) -> str:
    return _sanitizer.clean(html)
