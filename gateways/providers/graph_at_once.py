"""Sending through Outlook in one call, for connections that were granted to send (`Mail.Send`) and no drafts.

Of this call Graph tells no id (learn.microsoft.com/graph/api/user-sendmail), and without a right to read nobody can be asked
what became of a mail: an answer that is lost leaves a doubt for good. The mail goes as its own bytes
(learn.microsoft.com/graph/outlook-send-mime-message), in one request; what is larger takes an upload session, and so a draft.
"""

from typing import Final

from domain.compose import Unwritable, encoded_size
from domain.delivery import Accepted, Answer, Refused
from domain.outgoing import OutgoingMail
from gateways.providers.calls import CallFailed
from gateways.providers.graph_answers import meaning_of_sending
from gateways.providers.graph_calls import Graph, NotDone
from gateways.providers.graph_drafts import MIME_BYTES, in_base64
from gateways.providers.sending import OUT_OF_TIME, Notes, perhaps_sent, written

TOO_LARGE: Final = Refused("message_too_large_for_scopes")


async def send_at_once(graph: Graph, mail: OutgoingMail, notes: Notes) -> Answer:
    """Sends it at most once; every outcome is an answer. What `notes` raises goes through."""
    try:
        if (
            encoded_size(mail, [(file.name, file.content_type, len(file.content)) for file in mail.attachments])
            > MIME_BYTES
        ):
            return TOO_LARGE
        content = await written(mail, in_base64)
    except Unwritable:
        return Refused("message_refused")
    if notes.seconds_left() <= 0:
        return OUT_OF_TIME
    await notes.transmission()
    try:
        reply = await graph.post("sendMail", "sendMail", content=content, content_type="text/plain")
    except NotDone as late:
        return late.answer
    except CallFailed as failure:
        return perhaps_sent(failure)
    return Accepted() if reply.status == 202 else meaning_of_sending(reply)
