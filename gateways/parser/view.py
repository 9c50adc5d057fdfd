"""A raw mail as the two pieces of JSON a child answers with: the head its parent reads, the content it seals."""

import orjson

from domain import mail
from domain.mail import Unparsable

__all__ = ["Unparsable", "read"]


def read(raw: bytes) -> tuple[bytes, bytes]:
    """The head (summary and Message-ID) and the content (all that the API shows). Raises `Unparsable`."""
    parsed = mail.parse(raw)
    summary = {
        "from_address": parsed.from_address,
        "from_name": parsed.from_name,
        "subject": parsed.subject,
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
