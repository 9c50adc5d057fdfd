"""The shapes of operations, as `/openapi.json` shows them.

They document. What is sent is made from rows directly, and the tests hold the two together.
"""

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from gateways.http.v1.shapes import shown

OPERATION: Final = "op_mu01jnqrstvw01jnqrstvwxyz0123456789abc01jnqrstvwxyz0123456789abc_2V0bWk3c0FqbGZ2b3Z6cTJmYXN0aGFz"
SEND: Final = "snd_01jnqrstvwxyz0123456789abc"
A_PENDING: Final[dict[str, Any]] = {"operationId": OPERATION, "status": "pending"}
AN_OPERATION: Final[dict[str, Any]] = {
    "operationId": OPERATION,
    "status": "done",
    "messageId": SEND,
    "location": f"/v1/messages/{SEND}",
    "code": None,
    "detail": None,
    "secret": None,
}


class Pending(BaseModel):
    """What was asked for is not known to be decided; `Location` tells in a moment what has come of it."""

    model_config = shown(A_PENDING)

    operation_id: str
    status: Literal["pending"]
    message_id: str | None = Field(default=None, description="Where it is about a mail that goes out.")


class Operation(BaseModel):
    """What has come of a request. `refused` and `lapsed` are for good, and nothing was changed."""

    model_config = shown(AN_OPERATION)

    operation_id: str
    status: Literal["pending", "done", "refused", "lapsed"]
    message_id: str | None = Field(
        description="The mail that it led to or changed, or that its idempotency key stands for."
    )
    location: str | None = Field(description="Where that is which it led to, or which stands in its way.")
    code: str | None = Field(
        description="Of a refusal: one of those at `/docs/problems`, or as the `error` that a consent ends with."
    )
    detail: str | None
    secret: str | None = Field(
        description="Of an endpoint that was registered or rotated: its secret, for 24 hours and for keys that may write "
        "webhooks."
    )
