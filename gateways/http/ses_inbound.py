"""`POST /api/v1/ses/inbound`: where a subscription of Amazon SNS points to. What is done with a post is in `mail_in.ses`.

SNS waits 15 s for an answer. A `4xx` is for good; at a `503` it tries again.
"""

import asyncio
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateways.http.operations import declare
from gateways.http.problems import Problem
from gateways.mail_in.ses import SesInbound
from gateways.mail_in.sns import SnsMessage

MAX_BODY: Final = 512 * 1024
BODY_SECONDS: Final = 15
REFUSALS: Final = (
    "bad_request", "sns_message", "sns_time", "sns_not_set_up", "sns_topic", "sns_certificate_url", "sns_certificate",
    "sns_subscribe_url", "sns_signature", "request_timeout", "too_large", "ses_notification", "sns_unreachable",
    "unavailable",
)  # fmt: skip


def routes(inbound: SesInbound) -> APIRouter:
    """The one operation; it needs no credentials, since the message is signed."""
    router = APIRouter(tags=["inbound mail"])

    async def receive_ses_mail(request: Request) -> Response:
        """Answers once the mail, if there is one, is in the log for good; whoever posts proves by a signature who it is."""
        await inbound.take(await _body(request))
        return Response(status_code=200)

    declare(
        router,
        "POST",
        "/api/v1/ses/inbound",
        receive_ses_mail,
        name="receiveSesMail",
        summary="Mail received by Amazon SES, posted by Amazon SNS",
        answers={200: {"description": "The message has been dealt with: its mail, if it has one, is in the log."}},
        refusals=REFUSALS,
        security=[],
        body={"text/plain": {"schema": _schema()}},
    )
    return router


def _schema() -> dict[str, Any]:
    return SnsMessage.model_json_schema()


async def _body(request: Request) -> bytes:
    """The post's body, given up on as soon as it is too long or too slow. Raises a Problem."""
    too_large = Problem("too_large", f"A message of Amazon SNS may have {MAX_BODY} bytes.")
    declared = request.headers.get("content-length", "0")
    if not (declared.isdecimal() and len(declared) < 10 and int(declared) <= MAX_BODY):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for block in request.stream():
                body += block
                if len(body) > MAX_BODY:
                    raise too_large
    except TimeoutError:
        raise Problem("request_timeout", f"The body did not arrive within {BODY_SECONDS} s.") from None
    except ClientDisconnect:
        raise Problem("bad_request", "The body ended too early.") from None
    return bytes(body)
