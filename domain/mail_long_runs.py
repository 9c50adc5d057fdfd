"""The long texts and attachments of a mail, kept out of the way of the parser.

The parser looks at each line of a content for a boundary. A boundary is at the beginning of a line and begins with two
hyphens (RFC 2046, section 5.1.1), so most contents are seen in one glance to have none: what stands between an empty line,
which ends some part's header or is in its content, and the next line that begins with two hyphens is cut out where it is
long, and a mark of one line left in its place; whoever reads the part's content has it put back. The tree and its contents
are those of the whole mail.

A mark holds U+0000; a mail that has that character itself is left as it is.
"""

import re

#: Bytes below which the parser is as quick as the cut.
LONG = 512
_EMPTY_LINE = b"\r\n\r\n"
_MARK = re.compile(rb"\x00(\d+)\x00")


def cut_out(raw: bytes) -> tuple[bytes, list[bytes]]:
    """The mail with marks for its long runs, and the runs; it goes over the bytes a few times, whatever they are."""
    if len(raw) < LONG or b"\0" in raw:
        return raw, []
    kept: list[bytes] = []
    runs: list[bytes] = []
    at, begin = 0, raw.find(_EMPTY_LINE)
    while begin >= 0:
        begin += len(_EMPTY_LINE)
        end = _end_of_run(raw, begin)
        if end - begin >= LONG:
            kept += (raw[at:begin], b"\0%d\0" % len(runs))
            runs.append(raw[begin:end])
            at = end
        begin = raw.find(_EMPTY_LINE, end)
    return b"".join((*kept, raw[at:])), runs


def _end_of_run(raw: bytes, begin: int) -> int:
    """Where the next line begins that could be a boundary, or the mail ends, less the line end of any kind in front of it."""
    end = len(raw)
    hyphen = raw.find(b"-", begin)  # one byte is found many times faster than three, and base64 has no hyphen
    for line in (b"\n--", b"\r--") if hyphen >= 0 else ():
        found = raw.find(line, hyphen - 1, end)
        end = found + 1 if found >= 0 else end
    if raw.endswith(b"\r\n", begin, end):
        return end - 2
    return end - 1 if raw.endswith((b"\r", b"\n"), begin, end) else end


def put_back(content: bytes, runs: list[bytes]) -> bytes:
    """The content with the runs in place of their marks."""
    if not runs or b"\0" not in content:
        return content
    return _MARK.sub(lambda mark: runs[int(mark[1])], content)
