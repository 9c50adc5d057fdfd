"""In the child: which request is which, who may ask it, and what becomes of it when it is to fail."""

import asyncio
import base64
import json
import re
import time
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from tests.support.graph import attachments as files
from tests.support.graph import messages, sending
from tests.support.graph.answers import Answer, Asked, Refused, bad_request, error, no_token
from tests.support.graph.messages import Work
from tests.support.graph.state import State

Handler = Callable[..., Awaitable[Answer]]
_READ = ("Mail.Read", "Mail.ReadWrite")
_WRITE = ("Mail.ReadWrite",)
_SEND = ("Mail.Send",)
_PROFILE = ("User.Read", "User.ReadWrite", "User.ReadBasic.All")
_MESSAGE = "/v1.0/me/messages/*"
_FILES = f"{_MESSAGE}/attachments"
_FOLDERS = "/v1.0/me/mailFolders"
_PIECES = "/api/v2.0/attachmentsessions/*"


async def me(work: Work, asked: Asked) -> Answer:
    token = bearer(asked)
    if theirs := await work.state.profile(token):
        return theirs
    login = asked.login or ""
    words = {"@odata.context": f"{asked.base}/v1.0/$metadata#users/$entity", "id": str(uuid5(NAMESPACE_URL, login))}
    return Answer(200, words | {"displayName": login.partition("@")[0], "mail": login, "userPrincipalName": login})


#: method, path, name, scopes of which one is needed (none: no token at all), and who does it
_ROUTES: list[tuple[str, str, str, tuple[str, ...] | None, Handler]] = [
    ("GET", "/v1.0/me", "me", _PROFILE, me),
    ("POST", "/v1.0/me/sendMail", "sendMail", _SEND, sending.send_mail),
    ("POST", "/v1.0/me/messages", "messages.create", _WRITE, messages.create),
    ("GET", "/v1.0/me/messages", "messages.list", _READ, messages.listing),
    ("GET", _MESSAGE, "messages.get", _READ, messages.get),
    ("PATCH", _MESSAGE, "messages.update", _WRITE, messages.update),
    ("DELETE", _MESSAGE, "messages.delete", _WRITE, messages.delete),
    ("POST", f"{_MESSAGE}/send", "messages.send", _SEND, sending.send),
    ("POST", f"{_MESSAGE}/move", "messages.move", _WRITE, messages.move),
    ("GET", f"{_MESSAGE}/$value", "messages.value", _READ, messages.value),
    ("POST", _FILES, "attachments.create", _WRITE, files.attach),
    ("GET", _FILES, "attachments.list", _READ, files.attachments),
    ("POST", f"{_FILES}/createUploadSession", "attachments.createUploadSession", _WRITE, files.session),
    ("GET", f"{_FILES}/*", "attachments.get", _READ, files.attachment),
    ("DELETE", f"{_FILES}/*", "attachments.delete", _WRITE, files.detach),
    ("GET", f"{_FILES}/*/$value", "attachments.value", _READ, files.attachment_value),
    ("GET", _FOLDERS, "folders.list", _READ, messages.folders),
    ("GET", f"{_FOLDERS}/*", "folders.get", _READ, messages.folder),
    ("GET", f"{_FOLDERS}/*/messages", "messages.list", _READ, messages.listing),
    ("PUT", _PIECES, "upload.put", None, files.put),
    ("GET", _PIECES, "upload.status", None, files.session_status),
    ("DELETE", _PIECES, "upload.cancel", None, files.session_cancel),
]
OPERATIONS = {name for _, _, name, _, _ in _ROUTES} | {"batch", "unknown"}
_TABLE = [(method, path.strip("/").split("/"), *rest) for method, path, *rest in _ROUTES]


def bearer(asked: Asked) -> str:
    found = re.fullmatch(r"bearer (\S+)", asked.headers.get("authorization", ""), re.IGNORECASE)
    return found[1] if found else ""


def _route(asked: Asked) -> tuple[str, tuple[str, ...] | None, Handler, list[str]]:
    parts = asked.path
    if parts == ["v1.0", "$batch"] and asked.method == "POST":
        return "batch", (), _unknown, []
    for method, pattern, name, scopes, handler in _TABLE:
        if method == asked.method and len(pattern) == len(parts):
            pairs = list(zip(pattern, parts, strict=True))
            if all(one in {"*", part} for one, part in pairs):
                return name, scopes, handler, [part for one, part in pairs if one == "*"]
    return "unknown", (), _unknown, []


async def _unknown(work: Work, asked: Asked) -> Answer:
    raise bad_request(f"Resource not found for the segment '{(asked.path or [''])[-1]}'.")


class Graph:
    """Answers requests, whether they came by HTTP or in a batch."""

    def __init__(self, state: State, work: Work) -> None:
        self.state, self.work = state, work

    async def answer(self, asked: Asked) -> Answer:
        name, scopes, handler, ids = _route(asked)
        came = time.time()
        self.state.counts[name] += 1
        calls = self.state.calls
        try:
            if scopes is None:
                answer = await self._without_token(name, handler, asked, ids)
            else:
                answer = await self._with_token(name, scopes, handler, asked, ids)
        except Refused as refused:
            answer = refused.answer
        status = 0 if {"drop", "hangs"} & answer.manner.keys() else answer.status
        calls.append({"operation": name, "user": asked.login, "at": came, "ended": time.time(), "status": status})
        return answer

    async def _without_token(self, name: str, handler: Handler, asked: Asked, ids: list[str]) -> Answer:
        if "authorization" in asked.headers:
            return no_token("This address carries its own authorization; a token does not belong here.")
        known = self.work.sessions.get(ids[0])
        asked.login = known.box.login if known else None
        return await self._worked(self.state.due(name, asked.login, asked.body), handler, asked, ids)

    async def _with_token(
        self, name: str, scopes: tuple[str, ...], handler: Handler, asked: Asked, ids: list[str]
    ) -> Answer:
        token = bearer(asked)
        who = await self.state.who(token) if token else None
        if who is None:
            if failure := self.state.due(name, None, asked.body):
                return await self._worked(failure, _nobody, asked, [])
            return no_token("Lifetime validation failed, the token is expired." if token else "Access token is empty.")
        asked.login, asked.scopes = who
        if name == "batch":
            return await self._worked(self.state.due(name, asked.login, asked.body), self._batch, asked, [])
        with self.state.slot(asked.login):
            failure = self.state.due(name, asked.login, asked.body)
            return await self._worked(failure, _scoped(scopes, handler), asked, ids)

    async def _worked(self, failure: dict[str, Any], handler: Handler, asked: Asked, ids: list[str]) -> Answer:
        """The answer of the work, or what the failure makes of it."""
        work = self.work
        await asyncio.sleep(self.state.settings["latency"] + failure.get("delay", 0))
        if failure.get("drop") == "before":
            return Answer(500, manner={"drop": "before"})
        own = _own_answer(failure)
        if own is not None and failure.get("when") != "after":
            return own
        try:
            answer = await handler(work, asked, *ids)
        except Refused as refused:
            answer = refused.answer
        except (KeyError, TypeError, AttributeError):
            traceback.print_exc()
            answer = error(400, "RequestBodyRead", "The request payload has another form than the one expected.")
        if failure:
            await asyncio.sleep(failure.get("delayAfter", 0))
            answer = own or answer
            answer.headers |= _headers(failure)
            answer.manner = _manner(failure)
        return answer

    async def _batch(self, work: Work, asked: Asked) -> Answer:
        requests = messages.document(asked.body).get("requests")
        if not isinstance(requests, list) or not 1 <= len(requests) <= 20:
            raise bad_request(
                "Number of batch request steps exceeds the maximum value of 20.", "MaximumRequestsExceeded"
            )
        together = asyncio.Semaphore(1 if any("dependsOn" in one for one in requests) else 4)

        async def one(words: dict[str, Any]) -> dict[str, Any]:
            async with together:
                answer = await self.answer(_inner(asked, words))
            said = {"id": words["id"], "status": answer.status, "headers": answer.headers}
            body = answer.body
            return said | {"body": base64.b64encode(body).decode() if isinstance(body, bytes) else body}

        return Answer(200, {"responses": await asyncio.gather(*map(one, requests))})


def _inner(asked: Asked, words: dict[str, Any]) -> Asked:
    headers = {name.lower(): value for name, value in (words.get("headers") or {}).items()}
    headers["authorization"] = asked.headers["authorization"]
    body = words.get("body")
    content = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    url = f"/v1.0/{str(words['url']).lstrip('/')}"
    return Asked(str(words["method"]).upper(), url, headers, content, asked.base)


def _scoped(scopes: tuple[str, ...], handler: Handler) -> Handler:
    async def checked(work: Work, asked: Asked, *ids: str) -> Answer:
        if scopes and not asked.scopes.intersection(scopes):
            raise Refused(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
        if len(asked.body) > work.state.settings["requestBytes"]:
            raise Refused(413, "BadRequest", "The maximum request length supported is 4MB.")
        return await handler(work, asked, *ids)

    return checked


async def _nobody(work: Work, asked: Asked) -> Answer:
    return no_token("Lifetime validation failed, the token is expired.")


def _own_answer(failure: dict[str, Any]) -> Answer | None:
    """What a failure says by itself."""
    if not failure.keys() & {"status", "code", "body"}:
        return None
    answer = error(failure.get("status", 400), failure.get("code"), failure.get("message", "It was ordered to fail."))
    if "body" in failure:
        said = failure["body"]
        answer = Answer(failure.get("status", 200), said.encode() if isinstance(said, str) else said, answer.headers)
    answer.headers |= _headers(failure)
    answer.manner = _manner(failure)
    return answer


def _headers(failure: dict[str, Any]) -> dict[str, str]:
    headers = dict(failure.get("headers", {}))
    if "retryAfter" in failure:
        headers["Retry-After"] = str(failure["retryAfter"])
    if "retryAt" in failure:
        headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=failure["retryAt"]), usegmt=True)
    return headers


def _manner(failure: dict[str, Any]) -> dict[str, Any]:
    names = ("drop", "truncate", "drip", "endlessHeaders", "huge", "bomb")
    return {name: failure[name] for name in names if name in failure}
