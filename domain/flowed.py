"""format=flowed (RFC 3676): lines that end in a space go on in the next."""

import re

_QUOTES = re.compile(r">*")


def unflow(text: str, *, delete_space: bool) -> str:
    """*text* (line ends as LF) with its flowed lines joined; *delete_space* is the parameter DelSp=yes (section 4.2).

    Quoted lines flow only into lines of the same depth, space-stuffing is undone, a signature line (``-- ``) never
    flows (sections 4.3 to 4.5).
    """
    paragraphs: list[str] = []
    open_depth: int | None = None
    for line in text.split("\n"):
        depth = _QUOTES.match(line).end()  # type: ignore[union-attr]  # `>*` matches always
        body = line[depth + 1 :] if line[depth : depth + 1] == " " else line[depth:]
        signature = body == "-- "
        if open_depth == depth and not signature:
            paragraphs.append(body)
        else:
            paragraphs.append(("\n" if paragraphs else "") + ">" * depth + (" " if depth and body else "") + body)
        flows = body.endswith(" ") and not signature
        if flows and delete_space:
            paragraphs[-1] = paragraphs[-1][:-1]
        open_depth = depth if flows else None
    return "".join(paragraphs)
