"""Long runs of base64, kept out of the way of the parser.

An attachment of megabytes is tens of thousands of lines, and the parser looks at each of them for a boundary that can't be
there: a boundary begins with two hyphens, which are no letters of base64 (RFC 2046, section 5.1.1; RFC 2045, section 6.8).
So a long run, from an empty line to the next line that begins with two hyphens, is cut out and a mark of one line left in
its place; whoever reads the part's content has it put back. The tree and its contents are those of the whole mail.

A mark holds U+0000; a mail that has that character itself is left as it is.
"""

import re

#: Bytes below which cutting is not worth the look.
LONG = 32 * 1024
_EMPTY_LINE = b"\r\n\r\n"
_MAY_BE_BOUNDARY = b"\r\n--"
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n"
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
        end = raw.find(_MAY_BE_BOUNDARY, begin - 2)  # the empty line itself may be in front of a boundary
        end = len(raw) if end < 0 else end
        if end - begin >= LONG and not (run := raw[begin:end]).translate(None, _LETTERS):
            kept += (raw[at:begin], b"\0%d\0" % len(runs))
            runs.append(run)
            at = end
        begin = raw.find(_EMPTY_LINE, end)
    return b"".join((*kept, raw[at:])), runs


def put_back(content: bytes, runs: list[bytes]) -> bytes:
    """The content with the runs in place of their marks."""
    if not runs or b"\0" not in content:
        return content
    return _MARK.sub(lambda mark: runs[int(mark[1])], content)
