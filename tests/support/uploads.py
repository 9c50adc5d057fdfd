"""Uploads of attachments, as callers make them, and what is asked about them."""

from collections.abc import Mapping
from typing import Any

from domain.attachments import UseAttachment
from gateways.log.decisions import Asked
from projections import attachments
from schemas import topics
from tests.support.http_house import HttpHouse, bearer

Answer = tuple[int, dict[str, Any], Mapping[str, str]]
UPLOAD = "/v1/attachments/upload"
BOUNDARY = "a-line-between"
CANARY = b"Canary-of-attachments " * 40


def form(
    content: bytes, name: str | bytes = "a.bin", kind: str = "application/octet-stream", field: str = "file"
) -> bytes:
    """One part of a form, as browsers write it."""
    said = name.encode() if isinstance(name, str) else name
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n' % (
        BOUNDARY.encode(),
        field.encode(),
        said,
    )
    return head + b"Content-Type: %b\r\n\r\n%b\r\n" % (kind.encode(), content)


def whole(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--%b--\r\n" % BOUNDARY.encode()


def head_of(key: str, user: str, length: int) -> bytes:
    """The head of an upload, for those who write the rest themselves."""
    lines = (
        f"POST {UPLOAD}?userId={user} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {key}",
        f"Content-Length: {length}",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
    )
    return "\r\n".join([*lines, "", ""]).encode()


async def asked(house: HttpHouse, method: str, where: str, who: Any, **more: Any) -> Answer:
    headers = bearer(who) | more.pop("headers", {})
    async with house.http.request(method, house.url + where, headers=headers, **more) as answer:
        body = await answer.json(content_type=None) if answer.status not in {204, 304} else {}
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
            assert body["detail"].endswith(".")
        return answer.status, body, answer.headers


async def sent(house: HttpHouse, key: str, user: str | None, body: Any, **headers: str) -> Answer:
    """The answer to an upload of exactly this body."""
    said = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    where = UPLOAD + (f"?userId={user}" if user is not None else "")
    return await asked(house, "POST", where, key, data=body, headers=said)


async def uploaded(
    house: HttpHouse, key: str, user: str, content: bytes, *named: str, **headers: str
) -> dict[str, Any]:
    status, body, _ = await sent(house, key, user, whole(form(content, *named)), **headers)
    assert status == 201, body
    return body


async def content(
    house: HttpHouse, where: str, who: Any = None, **headers: str
) -> tuple[int, bytes, Mapping[str, str]]:
    async with house.http.get(house.url + where, headers=bearer(who) | headers) as answer:
        return answer.status, await answer.read(), answer.headers


async def use(house: HttpHouse, account: str, user: str, attachment: str) -> object:
    """What is decided where a send names the attachment."""
    command = UseAttachment(account, user, attachment, "snd_1")
    asked_ = Asked(topics.ACCOUNT_COMMANDS.name, account, attachment, command, attachments.PROJECTION.name)
    return (await house.services.account_decisions.ask(asked_)).event


def blobs_of(house: HttpHouse, user: str) -> list[str]:
    return [name for name in house.house.blobs.names() if name.startswith(user)]
