"""Mail that Amazon SES received for us, posted by Amazon SNS to `POST /api/v1/ses/inbound`.

The promise is that of SMTP: `200` means that the mail is in the log for good. What can't be promised now is `503`, and SNS
tries again, for up to an hour. A `4xx` is for good: SNS gives up, or moves the message to the dead-letter queue of its
subscription. Who the mail is for is what SES heard as RCPT TO, never what its headers say. Recipients nobody has are
accepted and dropped, as on the SMTP side, so that nobody can probe for addresses.

Verdicts of SES on spam, viruses, SPF, DKIM and DMARC are ignored: an inbox for tests has to show what was sent to it, and a
receipt rule can stop such mail before it comes here. The mail's own bytes are kept, with line ends made CRLF.

A repeated post has one effect. This process remembers the messages it has taken within the hour they can be repeated in;
over processes and crashes it is the log that decides, by mailbox, sender, Message-ID and sha256.
"""

import asyncio
import logging
from base64 import b64decode
from traceback import format_tb

from gateways.mail_in.door import Door, Envelope, Inbox, Unavailable
from gateways.mail_in.s3_mail import FetchesMail
from gateways.mail_in.ses_notification import Received, received_in
from gateways.mail_in.sns import MOST_AHEAD, OLDEST, Refused, SnsMessage, SnsVerifier
from gateways.mail_in.sns_once import Once
from gateways.mail_in.spool import Spool, TooLarge

# SNS waits 15 s for an answer and repeats after that.
_FETCH_SECONDS = 8
_LOG = logging.getLogger(__name__)


class SesInbound:
    """Deals with one post at a time: verifies it, confirms a subscription or delivers a mail."""

    def __init__(self, door: Door, sns: SnsVerifier, fetch_mail: FetchesMail) -> None:
        self._door = door
        self._sns = sns
        self._fetch_mail = fetch_mail
        self._once = Once(OLDEST + MOST_AHEAD)

    async def take(self, body: bytes) -> None:
        """Returns once the post has had its whole effect. Raises Refused, or Unavailable where SNS should try again."""
        try:
            message = await self._sns.verify(body)
            await self._once.do(message.MessageId, lambda: self._act_on(message))
        except (Refused, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is ours: SNS must try again rather than give up
            # Without the error's own text, which may quote a mail or an address.
            where = "".join(format_tb(error.__traceback__, limit=-3))
            _LOG.error("A message of SNS was not dealt with: %s\n%s", type(error).__name__, where)
            raise Unavailable("The mail can't be taken now; try again later.") from None

    async def _act_on(self, message: SnsMessage) -> None:
        if message.Type == "SubscriptionConfirmation":
            await self._sns.confirm(message)
            _LOG.info("Confirmed the subscription to %s", message.TopicArn)
        elif message.Type == "UnsubscribeConfirmation":
            # The message offers to subscribe again; whoever unsubscribed had a reason.
            _LOG.warning("No longer subscribed to %s", message.TopicArn)
        else:
            await self._receive(message)

    async def _receive(self, message: SnsMessage) -> None:
        received = received_in(message.Message)
        if received is None:
            _LOG.info("A message of %s carries no mail", message.TopicArn)
            return
        to = await self._recipients(received)
        if to:
            await self._deliver(received, to)

    async def _recipients(self, received: Received) -> list[tuple[Inbox, Envelope]]:
        """The open mailboxes among the recipients, each once."""
        found: dict[str, tuple[Inbox, Envelope]] = {}
        for recipient in received.receipt.recipients:
            inbox = await self._door.find(recipient)
            if inbox is not None:
                found.setdefault(inbox.mailbox, (inbox, _envelope(received, recipient)))
        return list(found.values())

    async def _deliver(self, received: Received, to: list[tuple[Inbox, Envelope]]) -> None:
        with Spool() as spool:
            try:
                async with asyncio.timeout(_FETCH_SECONDS):
                    await self._take_down(received, spool)
                mail = spool.done()
            except TooLarge:
                raise Refused(413, "too_large", "The mail is larger than 25 MiB.") from None
            except TimeoutError:
                raise Unavailable("The mail can't be read from its bucket in time.") from None
            await self._door.deliver(mail, to)

    async def _take_down(self, received: Received, spool: Spool) -> None:
        action = received.receipt.action
        if action.bucket_name is not None and action.object_key is not None:
            async for block in self._fetch_mail.fetch(action.bucket_name, action.object_key):
                spool.write(block)
        else:
            spool.write(_inline(received.content or "", action.encoding))


def _inline(content: str, encoding: str) -> bytes:
    """The mail in a notification; SES writes it as base64 where the action says so, and as text otherwise."""
    if encoding.upper() != "BASE64":
        return content.encode()
    try:
        return b64decode(content, validate=True)
    except ValueError:
        raise Refused(
            422, "ses_notification", "The mail in this notification is not the base64 that it says."
        ) from None


def _envelope(received: Received, recipient: str) -> Envelope:
    """SES doesn't tell who connected to it or how, only in the mail's own topmost Received header."""
    sender = received.mail.source.strip().removeprefix("<").removesuffix(">")
    return Envelope(
        sender=sender,
        recipient=recipient,
        helo="",
        client="",
        tls=False,
        via="ses",
        delivery=received.mail.message_id,
    )
