"""How large a mail may be, once it is encoded, at each provider."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from domain.compose import encoded_size
from domain.connection_events import Provider
from domain.mail_wire_addresses import LONGEST_DOMAIN, LONGEST_LABEL, LONGEST_LOCAL
from domain.outgoing import Mailbox, OutgoingMail
from gateways.providers import gmail_calls
from schemas.send_message import File, Person, SendMessage

#: Bytes. Gmail's own figure; Exchange Online's usual bound of 35 MiB; what most mail servers take, who tell theirs only to
#: who is logged in: one that takes less refuses the mail for good.
MOST_ENCODED: Final[Mapping[Provider, int]] = {
    "gmail": gmail_calls.MOST_BYTES,
    "outlook": 36_700_160,
    "smtp": 26_214_400,
}
#: Stands for whose mailbox it will be: no address is longer.
LONGEST_SENDER: Final = (
    "x" * LONGEST_LOCAL + "@" + ".".join(["x" * LONGEST_LABEL] * (LONGEST_DOMAIN // (LONGEST_LABEL + 1)))
)
A_DATE: Final = datetime(2026, 1, 1, tzinfo=UTC)


def size_of(message: SendMessage, send: str, message_id: str, files: Sequence[File]) -> int:
    """Bytes of the mail with these attachments; a few hundred more than it will have, never less.

    Raises Unwritable for what can't be written as a mail.
    """
    mail = OutgoingMail(
        message_id=message_id,
        marker=send,
        date=A_DATE,
        sender=Mailbox(LONGEST_SENDER, message.fromName),
        to=_mailboxes(message.to),
        cc=_mailboxes(message.cc),
        bcc=_mailboxes(message.bcc),
        reply_to=_mailboxes(message.replyTo),
        subject=message.subject,
        text=message.text,
        html=message.body if message.bodyFormat == "html" else None,
        headers=message.headers,
    )
    return encoded_size(mail, [(file.name, file.contentType, file.size) for file in files])


def _mailboxes(people: Sequence[Person]) -> list[Mailbox]:
    return [Mailbox(person.email, person.name) for person in people]
