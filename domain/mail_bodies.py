"""Which leaves of a mail are its text, its HTML and its attachments, as a mail client sorts them.

A text or HTML leaf that carries neither a file name nor ``Content-Disposition: attachment`` is body; several bodies of
one kind, outside multipart/alternative, are shown one below the other. Every other leaf is an attachment, inline images
and forwarded mails with the rest, and so are files uuencoded into a text. A named text that clients display, because it
is inline or because there is no body, is both: shown, and a file under its name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from domain import charsets, flowed, uuencode
from domain.mail_tree import Part

_BYTES = "application/octet-stream"
_READABLE = {"text/plain", "text/html"}
_META_CHARSET = re.compile(rb"<meta[^>]{0,256}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_SIGNATURES = {"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class File:
    """An attachment's bytes and what the mail says of it; *name* may be empty."""

    name: str
    content_type: str
    content: bytes
    content_id: str | None


@dataclass(slots=True)
class Bodies:
    """The leaves, sorted."""

    texts: list[str] = field(default_factory=list)
    htmls: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)


def sort_leaves(root: Part) -> Bodies:
    """Walk the tree in order and sort what it holds."""
    bodies = Bodies()
    leaves = list(_leaves(root))
    displayed = _displayed_files(leaves)
    for leaf in leaves:
        if _is_body(leaf):
            _add_body(leaf, bodies)
            continue
        if leaf in displayed:
            _display(leaf, bodies)
        bodies.files.append(_file(leaf))
    return bodies


def _leaves(part: Part) -> Iterator[Part]:
    if not part.parts:
        yield part
    for number, child in enumerate(part.parts):
        if number == 0 or not (part.content_type == "multipart/signed" and _is_bare_signature(child)):
            yield from _leaves(child)


def _is_bare_signature(leaf: Part) -> bool:
    """The second child of multipart/signed (RFC 1847, section 2.1) is machinery; with a name of its own, a file."""
    return leaf.content_type in _SIGNATURES and not leaf.filename


def _is_body(leaf: Part) -> bool:
    if leaf.content_type not in _READABLE and not leaf.content_type.startswith("multipart/"):
        return False
    return not leaf.filename and leaf.disposition.value != "attachment"


def _displayed_files(leaves: list[Part]) -> list[Part]:
    """The named texts that are read with the mail, the first of each kind.

    RFC 2183, section 2.1: an inline one in front of the bodies. Where there is no body, one without a disposition too: it
    is what Thunderbird shows, be it the whole mail or a part of it.
    """
    first_body = next((number for number, leaf in enumerate(leaves) if _is_body(leaf)), None)
    if first_body is None:
        texts = [leaf for leaf in leaves if leaf.content_type in _READABLE and leaf.disposition.value in {"inline", ""}]
    else:
        before = leaves[:first_body]
        texts = [leaf for leaf in before if leaf.content_type == "text/plain" and leaf.disposition.value == "inline"]
    return list({leaf.content_type: leaf for leaf in reversed(texts)}.values())


def _add_body(leaf: Part, bodies: Bodies) -> None:
    data = leaf.content
    if leaf.content_type == "text/html":
        bodies.htmls.append(_html(leaf, data))
        return
    data, encoded = uuencode.cut_out(data)
    bodies.files += [File(_file_name(charsets.decode(one.name)), _BYTES, one.content, None) for one in encoded]
    bodies.texts.append(_text(leaf, data))


def _display(leaf: Part, bodies: Bodies) -> None:
    if leaf.content_type == "text/html":
        bodies.htmls.append(_html(leaf, leaf.content))
    else:
        bodies.texts.append(_text(leaf, leaf.content))


def _html(leaf: Part, data: bytes) -> str:
    label = leaf.charset
    if not label and (meta := _META_CHARSET.search(data, 0, 4096)):
        label = meta[1].decode("ascii", "ignore")
    return _with_plain_line_ends(charsets.decode(data, label))


def _text(leaf: Part, data: bytes) -> str:
    text = _with_plain_line_ends(charsets.decode(data, leaf.charset))
    if leaf.parameter("format").lower() == "flowed":
        return flowed.unflow(text, delete_space=leaf.parameter("delsp").lower() == "yes")
    return text


def _with_plain_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _file(leaf: Part) -> File:
    content_id = charsets.clean(leaf.field("content-id")).strip().strip("<>").strip()
    return File(_file_name(leaf.filename), leaf.content_type, leaf.content, content_id or None)


def _file_name(name: str) -> str:
    return _CONTROL.sub(" ", name).strip()
