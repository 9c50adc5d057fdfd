"""The plain text that goes beside a caller's HTML where he wrote none himself.

One pass over tokens and no tree: browsers' parsers, the quick ones too, take the square of the depth for tags that are never
closed, and all that is wanted here is where lines end and links lead. What is broken is read as HTML's tokenizer reads it
(html.spec.whatwg.org, 13.2.5), so no text is lost but that of scripts, styles and comments.
"""

import html
import re
from typing import Final

_TOKEN = re.compile(
    r"<!--(?:>|->|.*?(?:--!?>|\Z))"
    r"|<[!?][^>]*+>?"
    r"|</(?P<end>[a-zA-Z][^\s/>]*+)[^>]*+>?"
    r"|</[^a-zA-Z>][^>]*+>?"
    r"|<(?P<start>[a-zA-Z][^\s/>]*+)(?P<attributes>(?:=\s*+(?:\"[^\"]*+\"?|'[^']*+'?)|[^>=]++|=)*+)>?"
    r"|(?P<text>(?:[^<]++|<(?![a-zA-Z!?/]))++|<)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"([^\s=/\"'>]++)(?:\s*+=\s*+(?:\"([^\"]*+)\"?|'([^']*+)'?|([^\s>]++)))?")
_SPACE = re.compile(r"[ \t\r\n\f]+")
_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

#: Elements whose content is no text that is shown.
_UNSHOWN: Final = frozenset(
    {"script", "style", "title", "template", "textarea", "iframe", "noembed", "noframes", "xmp"}
)
_PARAGRAPHS: Final = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "table", "ul", "ol", "dl", "hr"}
)
_LINES: Final = frozenset(
    {"div", "tr", "li", "dt", "dd", "section", "article", "header", "footer", "main", "nav", "aside", "address", "form"}
    | {"figure", "figcaption", "center", "caption", "fieldset", "option"}
)
#: Where a link leads that is worth writing down.
_FOLLOWED: Final = ("http://", "https://", "mailto:", "tel:")
_DEEPEST_INDENT: Final = 8


def text_of(source: str) -> str:
    """The text of an HTML document or fragment, with LF: links as `text (url)`, lists with marks, paragraphs apart.

    Its time grows with the length of the source, whatever is in it.
    """
    reader, at = _Reader(), 0
    while token := _TOKEN.match(source, at):
        at = token.end()
        if name := token["start"]:
            name = name.lower()
            if name in _UNSHOWN:
                at = _after(name, source, at)
            else:
                reader.start(name, token["attributes"])
        elif name := token["end"]:
            reader.end(name.lower())
        elif text := token["text"]:
            reader.text(_plain(text))
    return reader.whole()


def _after(name: str, source: str, at: int) -> int:
    """Where the content of an element ends that holds no tags but its own."""
    end = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(source, at)
    return end.start() if end else len(source)


def _plain(text: str) -> str:
    return _CONTROLS.sub(" ", html.unescape(_NUMBER.sub("\ufffd", text)))


class _Reader:
    """Lines as they come. `gap` is the line ends that are due before the next text."""

    def __init__(self) -> None:
        self._written: list[str] = []
        self._gap = 0
        self._space = False
        self._mark = ""
        self._lists: list[int | None] = []
        self._as_it_is = 0
        self._link: str | None = None
        self._link_text: list[str] = []

    def start(self, name: str, attributes: str) -> None:
        match name:
            case "br":
                self._break(self._gap + 1 if self._gap else 1)
            case "a":
                self._end_link()
                self._link, self._link_text = _link(attributes), []
            case "ul" | "ol":
                self._lists.append(1 if name == "ol" else None)
                self._break(2 if len(self._lists) == 1 else 1)
            case "li":
                self._break(1)
                self._mark = self._next_mark()
            case "td" | "th":
                self._space = True
            case "img":
                self.text(_attributes(attributes).get("alt", ""))
            case _:
                self._break_of(name)
        if name == "pre":
            self._as_it_is += 1
        if name == "hr":
            self.text("---")
            self._break(2)

    def end(self, name: str) -> None:
        match name:
            case "a":
                self._end_link()
            case "ul" | "ol":
                if self._lists:
                    self._lists.pop()
                self._break(1 if self._lists else 2)
            case "pre":
                self._as_it_is = max(0, self._as_it_is - 1)
                self._break(2)
            case _:
                self._break_of(name)

    def text(self, text: str) -> None:
        if self._as_it_is:
            for number, line in enumerate(text.replace("\r\n", "\n").split("\n")):
                if number:
                    self._break(self._gap + 1)
                self._write(line)
            return
        collapsed = _SPACE.sub(" ", text)
        words = collapsed.strip(" ")
        self._space = self._space or collapsed.startswith(" ")
        if words:
            self._write(words)
            self._space = collapsed.endswith(" ")

    def whole(self) -> str:
        self._end_link()
        lines = (line.rstrip() for line in "".join(self._written).split("\n"))
        return "\n".join(lines).strip("\n")

    def _write(self, text: str) -> None:
        if not text:
            return
        if self._written and self._gap:
            self._written.append("\n" * min(self._gap, 2 if not self._as_it_is else self._gap))
        elif self._space and self._written:
            self._written.append(" ")
        self._written += [self._mark, text]
        if self._link is not None:
            self._link_text.append(text)
        self._gap, self._space, self._mark = 0, False, ""

    def _break(self, lines: int) -> None:
        self._gap, self._space = max(self._gap, lines), False

    def _break_of(self, name: str) -> None:
        if name in _PARAGRAPHS:
            self._break(2)
        elif name in _LINES:
            self._break(1)

    def _next_mark(self) -> str:
        indent = "  " * (min(len(self._lists), _DEEPEST_INDENT) - 1)
        number = self._lists[-1] if self._lists else None
        if number is None:
            return f"{indent}- "
        self._lists[-1] = number + 1
        return f"{indent}{number}. "

    def _end_link(self) -> None:
        url, self._link = self._link, None
        if url is None:
            return
        shown = "".join(self._link_text).strip()
        if shown.rstrip("/") not in {url.rstrip("/"), url.partition("://")[2].rstrip("/")}:
            self._space = bool(shown)
            self._write(f"({url})" if shown else url)


def _link(attributes: str) -> str | None:
    url = _SPACE.sub("", _attributes(attributes).get("href", ""))
    return url.removeprefix("mailto:") if url.lower().startswith(_FOLLOWED) else None


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, *values in _ATTRIBUTE.findall(text):
        found.setdefault(name.lower(), _plain("".join(values)))
    return found
