"""What a request asks to be sent, read as a whole: everything that is wrong with it is told in one answer.

Whatever composing a mail would refuse is refused here (`domain/mail_wire_fields.py`). What time changes, a schedule that has
passed, is told apart: a repetition under an idempotency key has to be answered as the first was.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, cast, get_args

import orjson
from starlette.requests import Request

from domain.attachments import MOST_OF_A_SEND
from domain.connection_events import Provider
from domain.mail_wire_fields import Unwritable, is_reserved, own_field, writable
from domain.plain_text import text_of
from gateways.http import parameters, problems
from gateways.http.json_bodies import json_object
from gateways.http.problems import Problem
from gateways.http.v1.bodies import Faults, Members, pointer
from gateways.http.v1.new_webhooks import URL_CHARACTERS, check_url
from gateways.http.v1.send_people import Recipients, recipients_of, reply_to_of
from gateways.providers.egress import Egress
from schemas.send_message import Person

Format = Literal["html", "text"]
NAMES: Final = (
    "userId", "providerPreference", "connectionId", "idempotencyKey", "subject", "body", "bodyFormat", "text", "to", "cc",
    "bcc", "replyTo", "headers", "threadId", "attachments", "scheduledAt", "callbackUrl",
)  # fmt: skip
PROVIDERS: Final = get_args(Provider)
FORMATS: Final = get_args(Format)
#: Characters; a field of a mail has no bound of its own (RFC 5322 2.1.1 bounds lines, which are folded).
SUBJECT_CHARACTERS: Final = 998
HEADER_CHARACTERS: Final = 2_000
MOST_HEADERS: Final = 50
THREAD_ID: Final = re.compile("[!-~]{1,512}")
KEY: Final = re.compile("[ -~]{1,255}")
#: RFC 3339 5.6, with its offset; seconds may be missing.
MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)
#: What is past by no more than this was meant for now.
LATE: Final = timedelta(minutes=1)
FARTHEST: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A mail that is to be sent. `said` is the request without its idempotency key, the same for the same JSON value.

    `text` is empty where it is to be made of the body; `attachments` are ids, each once.
    """

    user: str
    connection: str | None
    preference: Provider | None
    key: str | None
    subject: str
    body: str
    format: Format
    text: str
    recipients: Recipients
    reply_to: list[Person]
    headers: dict[str, str]
    thread_id: str | None
    attachments: list[str]
    scheduled_at: datetime | None
    callback: str | None
    said: str

    def alternative(self) -> str:
        """The plain text that goes along."""
        return self.body if self.format == "text" else self.text or text_of(self.body)


async def read_send(request: Request, egress: Egress) -> Wanted:
    """What the body asks for. Raises a Problem: 400 with all faults, `too_many_attachments`, or 422 for recipients."""
    faults, body = Faults(), await json_object(request)
    members = Members(body, NAMES, faults)
    body_format = _one_of(body, "bodyFormat", FORMATS, faults, required=True)
    preference = _one_of(body, "providerPreference", PROVIDERS, faults)
    callback = members.text("callbackUrl", most=URL_CHARACTERS, required=False)
    if callback:
        check_url(egress, callback, "/callbackUrl", faults)
    wanted = Wanted(
        user=members.text("userId", most=64),
        connection=members.text("connectionId", most=64, required=False) or None,
        preference=cast("Provider | None", preference),
        key=_key(request, body, faults),
        subject=_subject(body, faults),
        body=_text(body, "body", faults, required=True),
        format=cast("Format", body_format or "text"),
        text=_text(body, "text", faults),
        recipients=await recipients_of(body, faults),
        reply_to=await reply_to_of(body, faults),
        headers=_headers(body.get("headers"), faults),
        thread_id=_thread_id(body.get("threadId"), faults),
        attachments=attachments_of(body.get("attachments"), faults),
        scheduled_at=faults.tried(lambda: moment(body.get("scheduledAt"))),
        callback=callback or None,
        said=_canonical(body),
    )
    if wanted.text and body_format == "text":
        faults.add("/text", "`text` stands beside a body in HTML; leave it out where `bodyFormat` is `text`.")
    _refuse(faults, wanted)
    return wanted


def _refuse(faults: Faults, wanted: Wanted) -> None:
    """Raises a Problem where anything was found; of a schedule that has passed only beside other faults."""
    try:
        faults.refuse()
    except Problem:
        faults.tried(lambda: when(wanted.scheduled_at, datetime.now(UTC)))
        faults.refuse()
    wanted.recipients.refuse()
    if len(wanted.attachments) > MOST_OF_A_SEND:
        said = f"A mail takes at most {MOST_OF_A_SEND} attachments along, and this names {len(wanted.attachments)}."
        raise Problem("too_many_attachments", said)


def when(scheduled_at: datetime | None, now: datetime) -> datetime | None:
    """The time that a send waits for, None where it goes out at once. Raises a Problem (400) for what can't be meant."""
    if scheduled_at is None:
        return None
    if scheduled_at < now - LATE:
        raise problems.invalid(
            "/scheduledAt", "`scheduledAt` is past by more than a minute: leave it out to send at once."
        )
    if scheduled_at > now + FARTHEST:
        raise problems.invalid("/scheduledAt", f"`scheduledAt` is more than {FARTHEST.days} days ahead.")
    return scheduled_at if scheduled_at > now else None


def moment(said: Any) -> datetime | None:
    """A time with its offset, in UTC. Raises a Problem (400)."""
    if said is None:
        return None
    try:
        if not isinstance(said, str) or not MOMENT.fullmatch(said):
            raise ValueError(said)
        return datetime.fromisoformat(said).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise problems.invalid(
            "/scheduledAt", "`scheduledAt` has to be a time with its offset, like `2026-03-13T15:30:00+01:00`."
        ) from error


def _one_of(
    body: dict[str, Any], name: str, known: tuple[str, ...], faults: Faults, *, required: bool = False
) -> str | None:
    found = body.get(name)
    if found is None and not required:
        return None
    if found in known:
        return str(found)
    said = " or ".join(f"`{one}`" for one in known)
    faults.add(pointer(name), f"`{name}` has to be {said}.")
    return None


def _text(body: dict[str, Any], name: str, faults: Faults, *, required: bool = False) -> str:
    """Lines of text, perhaps none."""
    found = body.get(name)
    if found is None and not required:
        return ""
    if not isinstance(found, str):
        faults.add(pointer(name), f"`{name}` has to be a string." if name in body else f"`{name}` is missing.")
        return ""
    return found


def _subject(body: dict[str, Any], faults: Faults) -> str:
    found = _text(body, "subject", faults, required=True)
    if len(found) > SUBJECT_CHARACTERS:
        faults.add("/subject", f"`subject` has at most {SUBJECT_CHARACTERS} characters.")
        return ""
    try:
        return writable(found, "subject")
    except Unwritable:
        faults.add("/subject", "`subject` has to be one line without control characters.")
        return ""


def _headers(said: Any, faults: Faults) -> dict[str, str]:
    """Header fields of the caller's own, by name."""
    if said is None:
        return {}
    if not isinstance(said, dict):
        faults.add("/headers", "`headers` has to be an object of names and their values.")
        return {}
    if len(said) > MOST_HEADERS:
        faults.add("/headers", f"`headers` has at most {MOST_HEADERS} members.")
        return {}
    names: set[str] = set()
    for name, value in said.items():
        fault = "This field comes twice; names have no case." if name.lower() in names else _wrong(name, value)
        names.add(name.lower())
        if fault:
            faults.add("/headers" + pointer(name), fault)
    return said


def _wrong(name: str, value: Any) -> str | None:
    """What is wrong with a header field, if anything."""
    if not isinstance(value, str) or not value.strip(" \t") or len(value) > HEADER_CHARACTERS:
        return f"A field's value has to be a string of 1 to {HEADER_CHARACTERS} characters, and not only spaces."
    if is_reserved(name):
        return "This field is not for callers to write: it is made from the rest of the request, or by mail servers."
    try:
        own_field(name, value, "This field")
    except Unwritable as error:
        return str(error)
    return None


def _thread_id(said: Any, faults: Faults) -> str | None:
    if said is None:
        return None
    if not isinstance(said, str) or not THREAD_ID.fullmatch(said):
        faults.add("/threadId", "`threadId` has to be a provider's id of a conversation, as an answer said it.")
        return None
    return said


def attachments_of(said: Any, faults: Faults) -> list[str]:
    """The ids, each once: `"att_…"`, or an object with the `id` of an attachment."""
    if said is None:
        return []
    if not isinstance(said, list):
        faults.add("/attachments", "`attachments` has to be a list of attachments' ids.")
        return []
    found = []
    for number, one in enumerate(said):
        named = one
        if isinstance(one, dict) and len(one) == 1:
            named = one.get("id", one.get("attachmentId"))
        if not isinstance(named, str):
            faults.add(f"/attachments/{number}", "An attachment is named by its id, as its upload has answered.")
        else:
            found.append(named)
    return list(dict.fromkeys(found))


def _key(request: Request, body: dict[str, Any], faults: Faults) -> str | None:
    """The idempotency key of header or body, which have to be the same where both are there."""
    in_header = faults.tried(lambda: parameters.idempotency_key(request))
    in_body = body.get("idempotencyKey")
    if in_body is None:
        return in_header
    if not isinstance(in_body, str) or not KEY.fullmatch(in_body):
        faults.add("/idempotencyKey", "`idempotencyKey` has to be 1 to 255 printable ASCII characters.")
        return in_header
    if in_header is not None and in_header != in_body:
        faults.add("/idempotencyKey", "`idempotencyKey` is not what `Idempotency-Key` says: send one of them.")
    return in_body


def _canonical(body: dict[str, Any]) -> str:
    """The same for the same JSON value, whatever its order and spaces."""
    said = {name: value for name, value in body.items() if name != "idempotencyKey"}
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()
