"""The header of a mail made readable for a strict parser.

The standard library ends a header at its first line that is no field, and takes the fields below it for text. Mail
clients read on to the empty line: they accept white space before the colon (RFC 5322, section 4.5: obs-fields) and
ignore a line that is no field, as long as fields follow or the line has at least a field's colon. Any other line below
the last field is the start of a text whose empty line was forgotten, and stays.
"""

import re

_WELL_FORMED = re.compile(
    rb"(?:From [^\r\n]*+\r?\n)?+(?:[!-9;-~]++:[^\r\n]*+(?:\r?\n[ \t][^\r\n]*+)*+(?:\r?\n|\Z))*+(?=\r?\n|\Z)"
)
_EMPTY_LINE = re.compile(rb"(?>\r\n|\r|\n)(?=[\r\n])")
_LINE = re.compile(rb"[^\r\n]*+(?:\r\n|\r|\n)|[^\r\n]++")
_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:")


def readable(raw: bytes) -> tuple[bytes, int]:
    """*raw* with the lines repaired or left out that would end its header too early, and the header's length in bytes.

    The bytes are *raw* itself for nearly every mail.
    """
    if well_formed := _WELL_FORMED.match(raw):
        return raw, well_formed.end()
    end = _EMPTY_LINE.search(raw)
    head, rest = (raw[: end.end()], raw[end.end() :]) if end else (raw, b"")
    lines = _LINE.findall(head)
    if not lines or not (_FIELD.match(lines[0]) or lines[0].startswith((b"From ", b">From "))):
        return raw, 0
    last = max((number for number, line in enumerate(lines) if _FIELD.match(line)), default=-1)
    if end and all(b":" in line or line[:1] in {b" ", b"\t"} for line in lines[last + 1 :]):
        last = len(lines)
    header = sum(map(len, lines[: last + 1]))
    return b"".join(_repaired(lines, last)) + rest, header


def _repaired(lines: list[bytes], last_field: int) -> list[bytes]:
    kept: list[bytes] = []
    dropping = False
    for number, line in enumerate(lines):
        if field := _FIELD.match(line):
            kept.append(field[1] + b":" + line[field.end() :])
            dropping = False
        elif line[:1] in {b" ", b"\t"}:
            if not dropping:
                kept.append(line)
        elif number > last_field or (number == 0 and line.startswith(b"From ")):
            kept.append(line)
        else:
            dropping = True
    return kept
