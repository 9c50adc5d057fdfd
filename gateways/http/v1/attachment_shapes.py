"""The shapes of attachments, as `/openapi.json` shows them, and as they are sent."""

from datetime import datetime
from typing import Any, Final

import orjson
from pydantic import BaseModel, Field

from domain.attachments import MOST_BYTES
from gateways.http.v1.shapes import AT, USER, shown
from gateways.stores.sealing import Unsealable, place, unseal
from projections.attachments import AttachmentRow
from schemas.envelope import stamp

ATTACHMENT: Final = "att_01jnqrstvwxyz0123456789abc"
AN_ATTACHMENT: Final[dict[str, Any]] = {
    "id": ATTACHMENT,
    "attachmentId": ATTACHMENT,
    "userId": USER,
    "name": "invoice.pdf",
    "size": 48_213,
    "contentType": "application/pdf",
    "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "createdAt": AT,
}
FORM: Final[dict[str, Any]] = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {
                "type": "string",
                "format": "binary",
                "description": f"The file, of at most {MOST_BYTES:,} bytes, and its name.",
            }
        },
    }
}


class StoredAttachment(BaseModel):
    """A file that a user's mail may take along."""

    model_config = shown(AN_ATTACHMENT)

    id: str
    attachment_id: str = Field(description="The same as `id`.")
    user_id: str
    name: str = Field(description="The file's name, made safe: without folders, at most 255 bytes.")
    size: int = Field(description="Bytes.")
    content_type: str = Field(description="What the bytes are, as far as they tell it themselves.")
    sha256: str = Field(description="Of the bytes, in hex.")
    created_at: datetime


class StoredAttachments(BaseModel):
    """A page of attachments, the newest first; `nextCursor` is null on the last one."""

    model_config = shown({"items": [AN_ATTACHMENT], "nextCursor": None})

    items: list[StoredAttachment]
    next_cursor: str | None


def attachment_json(row: AttachmentRow, data_key: bytes) -> bytes | None:
    """An attachment as the API shows it; `data_key` is its user's. None where the user was erased a moment ago."""
    try:
        name = name_of(row, data_key)
    except Unsealable:
        return None
    return orjson.dumps(
        {
            "id": row.attachment,
            "attachmentId": row.attachment,
            "userId": row.user,
            "name": name,
            "size": row.size,
            "contentType": row.mime,
            "sha256": row.sha256,
            "createdAt": stamp(row.created_at),
        }
    )


def name_of(row: AttachmentRow, data_key: bytes) -> str:
    """The file's name. Raises Unsealable."""
    return unseal(data_key, row.name, place("attachment", row.attachment, "name")).decode()
