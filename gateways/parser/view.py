"""A raw mail as the two pieces of JSON a child answers with: the head its parent reads, the content it seals."""

from typing import Final

import orjson

from domain import mail
from domain.mail import Unparsable

__all__ = ["Unparsable", "read"]


#: Characters of a text in the summary, which stands in one event of the log with all else that is said of the mail.
#: JSON writes a control character as six bytes, and a header may be nothing but subject.
SUMMARY_CHARACTERS: Final = 1_000


def read(raw: bytes) -> tuple[bytes, bytes]:
    """The head (summary and Message-ID) and the content (all that the API shows). Raises `Unparsable`.

    The summary holds the beginning of a long text, the content the whole.
    """
    parsed = mail.parse(raw)
    summary = {
        "from_address": _beginning(parsed.from_address),
        "from_name": _beginning(parsed.from_name),
        "subject": _beginning(parsed.subject),
        "has_attachments": bool(parsed.attachments),
    }
    content = {
        "from_address": parsed.from_address,
        "from_name": parsed.from_name,
        "to": parsed.to,
        "cc": parsed.cc,
        "reply_to": parsed.reply_to,
        "subject": parsed.subject,
        "body_text": parsed.text,
        "body_html": parsed.html,
        "headers": parsed.headers,
        "attachments": parsed.attachments,
    }
    return orjson.dumps({"summary": summary, "message_id": parsed.message_id}), orjson.dumps(content)


def _beginning(text: str | None) -> str | None:
    return text[:SUMMARY_CHARACTERS] if text else text
