"""What becomes of a whole mail: kept behind the door, dropped, or refused, and the reply that says so.

A fault of ours is answered with 451 and a fixed text, and logged by its type and place only: an exception's own text may
hold an address, a password or a mail.
"""

import asyncio
import logging
import traceback

from gateways.mail_in import door
from gateways.mail_in.smtp_data import Fate, IncomingMail
from gateways.mail_in.smtp_service import MailOutcome, Service

OWN_FAULT = "451 4.3.0 Temporary failure on our side, please try again"
TOO_LARGE = "552 5.3.4 The mail is larger than this server takes"
NO_SPACE = "452 4.3.1 No space for a mail now, please try again"

_SENTENCE_CHARACTERS = 400

log = logging.getLogger(__name__)


async def answer(service: Service, mail: IncomingMail, known: list[tuple[door.Inbox, door.Envelope]]) -> str:
    """Keeps a whole mail, or says why not; closes it. Cancelling this does not cancel the keeping.

    A mail that nobody here waits for is answered as if it were kept, so replies tell nothing about mailboxes.
    """
    outcome: MailOutcome = "dropped"
    reply = "250 2.0.0 OK"
    if mail.fate is not Fate.GOOD:
        outcome, reply = refusal(mail.fate)
    elif mail.received_headers() > service.limits.received_headers:
        outcome, reply = "looping", "554 5.4.6 The mail has passed too many servers"
    elif known:
        return await asyncio.shield(service.commit(_keep(service, mail, known)))
    mail.close()
    service.counts.mail(outcome, mail.size)
    return reply


async def _keep(service: Service, mail: IncomingMail, known: list[tuple[door.Inbox, door.Envelope]]) -> str:
    outcome: MailOutcome = "deferred"
    try:
        await service.door.deliver(mail.spooled(), known)
    except door.Unavailable as unavailable:
        reply = temporary(unavailable)
    except Exception as error:  # noqa: BLE001 - whatever breaks on our side, the client is told to try again
        report(error, doing="keeping a mail")
        reply = OWN_FAULT
    else:
        outcome, reply = "kept", "250 2.0.0 OK"
    finally:
        mail.close()
        service.counts.mail(outcome, mail.size)
    return reply


def refusal(fate: Fate) -> tuple[MailOutcome, str]:
    """What is said of a mail that could not be read whole."""
    return ("no space", NO_SPACE) if fate is Fate.NO_SPACE else ("too large", TOO_LARGE)


def temporary(unavailable: door.Unavailable) -> str:
    """451 with the sentence meant for anybody, made fit for one reply line."""
    sentence = "".join(sign if " " <= sign <= "~" else " " for sign in str(unavailable)[:_SENTENCE_CHARACTERS])
    return f"451 4.3.0 {sentence or 'Please try again'}"


def report(error: Exception, *, doing: str) -> None:
    """Logs a fault of ours by its type and place: enough to find it, nothing of what was in hand."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno} {frames[-1].name}" if frames else "nowhere"
    log.error("%s failed with %s at %s", doing, type(error).__name__, place)
