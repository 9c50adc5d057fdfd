"""In the child: how a mail goes out, and what is written down about it."""

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import Any

from tests.support.graph.answers import Answer, Asked, Refused, bad_request, error, not_found
from tests.support.graph.mailbox import Mailbox, Message
from tests.support.graph.messages import Work, from_json, from_mime, limited, parameters, written
from tests.support.graph.mime import RECIPIENTS

_ADDRESS = re.compile(r"[^@\s<>\",;]+@[^@\s<>\",;]+")


async def send(work: Work, asked: Asked, given: str) -> Answer:
    box = work.box(asked)
    message = box.find(asked, given)
    if message.submitted and work.state.settings["lagShows"] != "draft":
        raise not_found()
    if not message.is_draft:
        raise not_found()
    return await _goes_out(work, box, message, "send")


async def send_mail(work: Work, asked: Asked) -> Answer:
    box = work.box(asked)
    if asked.content_type == "text/plain":
        message = from_mime(work, box, asked.body)
    else:
        words = parameters(asked.body)
        if unknown := words.keys() - {"message", "savetosentitems"}:
            raise bad_request(f"The parameter '{min(unknown)}' in the request payload is not a valid parameter.")
        if not isinstance(words.get("message"), dict):
            raise bad_request("The parameter 'Message' is missing.", "ErrorInvalidParameter")
        message = from_json(work, box, words["message"], keeps_id=False)
        message.saved = words.get("savetosentitems") is not False
    try:
        return await _goes_out(work, box, message, "sendMail")
    except Refused:
        box.remove(message)
        raise


async def _goes_out(work: Work, box: Mailbox, message: Message, how: str) -> Answer:
    people = {name: [one["emailAddress"] for one in message.properties.get(name) or []] for name in RECIPIENTS}
    addresses = [str(one.get("address") or "") for name in RECIPIENTS if name != "replyTo" for one in people[name]]
    if not addresses or not all(_ADDRESS.fullmatch(one) for one in addresses):
        raise bad_request("At least one recipient is not valid., A message can't be sent because it contains no recipients.",
                          "ErrorInvalidRecipients")  # fmt: skip
    if len(addresses) > work.state.settings["recipients"]:
        raise bad_request("The message has too many recipients.", "ErrorMessageSubmissionBlocked")
    sender = ((message.properties.get("from") or {}).get("emailAddress") or {}).get("address") or box.login
    if sender.lower() != box.login.lower():
        raise Refused(403, "ErrorSendAsDenied", "The user account which was used to submit this request does not have the "
                      "right to send mail on behalf of the specified sending account., Cannot submit message.")  # fmt: skip
    limited(work, message.size)
    if work.over:
        raise Refused(503, "ServiceUnavailable", "The double was reset meanwhile.")
    content = _content(work, box, message)
    work.state.mail(box.login)
    receipt = {"login": box.login, "how": how, "id": message.immutable_id, "draftId": message.rest_id, "from": sender}
    box.submit(message)
    named = {"to": "toRecipients", "cc": "ccRecipients", "bcc": "bccRecipients", "replyTo": "replyTo"}
    receipt |= {name: [one.get("address") for one in people[listed]] for name, listed in named.items()}
    await work.receipts.append(receipt | content)
    manner = work.state.loses()
    if "status" in manner:
        return error(manner["status"], None, "The upstream server did not answer in time.")
    return Answer(202, manner=manner)


def _content(work: Work, box: Mailbox, message: Message) -> dict[str, Any]:
    words: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "internetMessageId": message.internet_message_id}
    words |= {"subject": message.properties.get("subject") or ""}
    words |= {"attachments": [one.receipt() for one in message.attachments]}
    kept = work.state.settings["keptBytes"]
    if not kept:  # writing a mail takes longer than all the rest
        return words | {"headers": [], "size": message.size, "sha256": None, "content": None}
    headers, raw = written(box, message)
    content = base64.b64encode(raw).decode() if len(raw) <= kept else None
    return words | {"headers": headers, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "content": content}
