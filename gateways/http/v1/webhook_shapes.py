"""The shapes of webhooks and their deliveries, as `/openapi.json` shows them.

They document. What is sent is made from rows directly, and the tests hold the two together.
"""

from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, Field

from domain.callbacks import CallbackError
from domain.webhook_words import TYPES
from gateways.http.v1.shapes import AT, shown

WEBHOOK: Final = "whk_01jnqrstvwxyz0123456789abc"
DELIVERY: Final = "whd_7k2p9xq4jnqrstvwxyz0123456"
SECRET: Final = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"  # noqa: S105 - an example
PUBLIC_KEY: Final = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
SOME: Final = ["send.sent", "send.failed"]
URL: Final = "https://hooks.example.org/postledger"
A_WEBHOOK: Final = {
    "id": WEBHOOK,
    "url": URL,
    "events": SOME,
    "description": "Orders, production",
    "state": "active",
    "disabledBecause": None,
    "publicKey": PUBLIC_KEY,
    "createdAt": AT,
}
AN_ATTEMPT: Final = {"at": AT, "status": 503, "tookMs": 212, "error": "refused"}
A_DELIVERY: Final = {
    "id": DELIVERY,
    "webhookId": WEBHOOK,
    "messageId": "snd_01jnqrstvwxyz0123456789abc",
    "type": "send.sent",
    "status": "pending",
    "attempts": [AN_ATTEMPT],
    "nextAttemptAt": AT,
    "createdAt": AT,
}
#: What webhooks can tell of.
Told = Literal[TYPES]  # type: ignore[valid-type]  # a tuple of constants
DeliveryStatus = Literal["pending", "delivered", "failed"]


class NewWebhook(BaseModel):
    """Where to tell what."""

    model_config = shown({"url": URL, "events": SOME, "description": "Orders, production"}, closed=True)

    url: str = Field(description="`https`, without user name, port and fragment.", min_length=1, max_length=2048)
    events: list[Told] | None = Field(default=None, description="What to tell of; all there is where missing.")
    description: str | None = Field(default=None, min_length=1, max_length=256)


class Webhook(BaseModel):
    """An endpoint. `disabledBecause`: `gone`, it answered 410; `abandoned`, all attempts at a delivery were in vain."""

    model_config = shown(A_WEBHOOK)

    id: str
    url: str
    events: list[str]
    description: str | None
    state: Literal["active", "disabled"]
    disabled_because: Literal["gone", "abandoned"] | None
    public_key: str = Field(description="What `v1a` signatures are verified with.")
    created_at: datetime


class WebhookWithSecret(Webhook):
    """An endpoint with its secret, which is shown this once."""

    model_config = shown({**A_WEBHOOK, "secret": SECRET})

    secret: str = Field(description="What `v1` signatures are verified with.")


class Webhooks(BaseModel):
    """A page of endpoints, the newest first; `nextCursor` is null on the last one."""

    model_config = shown({"items": [A_WEBHOOK], "nextCursor": None})

    items: list[Webhook]
    next_cursor: str | None


class AccountSecret(BaseModel):
    """The account's own secret, which signs what goes to a `callbackUrl` that is no endpoint of the account."""

    model_config = shown({"secret": SECRET, "publicKey": PUBLIC_KEY})

    secret: str
    public_key: str


class DeliveryAttempt(BaseModel):
    """One attempt. `status` is null where there was no answer, `error` null where the answer was 200 to 299.

    Nobody was asked where `error` is `expired`, `endpoint_removed` or `endpoint_disabled`.
    """

    model_config = shown(AN_ATTEMPT)

    at: datetime
    status: int | None
    took_ms: int
    error: CallbackError | None


class Delivery(BaseModel):
    """One event, told to one receiver. `id` is what that sees as `webhook-id`."""

    model_config = shown(A_DELIVERY)

    id: str
    webhook_id: str | None = Field(description="Null where it goes to a mail's `callbackUrl` that is no endpoint.")
    message_id: str | None = Field(description="The send or the received mail that it is about, if any.")
    type: str
    status: DeliveryStatus
    attempts: list[DeliveryAttempt]
    next_attempt_at: datetime | None
    created_at: datetime


class Deliveries(BaseModel):
    """A page of deliveries, the newest first; `nextCursor` is null on the last one."""

    model_config = shown({"items": [A_DELIVERY], "nextCursor": None})

    items: list[Delivery]
    next_cursor: str | None


class DeliveryStarted(BaseModel):
    """A delivery that is on its way."""

    model_config = shown({"id": DELIVERY})

    id: str


class Since(BaseModel):
    """Which deliveries to send once more."""

    model_config = shown({"since": AT, "status": "failed"}, closed=True)

    since: datetime = Field(description="From when on, with an offset.")
    status: DeliveryStatus | None = Field(default=None, description="Only those in this state.")


class Resent(BaseModel):
    """How many are sent once more. `next`: where to go on, as `since`, where there are more than one answer takes."""

    model_config = shown({"count": 42, "next": None})

    count: int
    next: datetime | None
