"""What an SMTP server's replies mean for a mail that is to be sent: one table.

Replies: RFC 5321, 4.2 and RFC 4954, 6; enhanced codes: RFC 3463. Where Gmail and Exchange mean something else by a code than
the RFCs do, theirs comes first: support.google.com/a/answer/3726730, and learn.microsoft.com/exchange on the submission of
mail by SMTP and on throttling after continuous errors.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from domain.delivery import Deferred, RecipientRefused, Refused, TokenRefused
from gateways.providers.sending import readable

#: What was said when the reply came; `end` is the dot after the content.
Stage = Literal["connect", "auth", "mail", "rcpt", "data", "end"]
Definite = Deferred | Refused | TokenRefused

_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply: its code, and its lines joined."""

    code: int
    text: str = field(default="", repr=False)

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    @property
    def readable(self) -> bool:
        """Whether SMTP knows of such a code."""
        return 200 <= self.code < 600

    @property
    def status(self) -> str | None:
        """The enhanced code, where there is one of the reply's own class (RFC 3463, 3)."""
        found = _ENHANCED.match(self.text)
        return found[1] if found and found[1][0] == str(self.code)[0] else None


@dataclass(frozen=True, slots=True)
class Row:
    """A pattern of codes (`5..`), one of enhanced codes ("" is any), a text ("" is any), the stages, and what it means."""

    codes: str
    status: str
    means: Definite
    text: str = ""
    stages: tuple[Stage, ...] = ("connect", "auth", "mail", "rcpt", "data", "end")

    def fits(self, reply: Reply, stage: Stage) -> bool:
        return (
            stage in self.stages
            and re.fullmatch(self.codes, str(reply.code)) is not None
            and (not self.status or re.fullmatch(self.status, reply.status or "") is not None)
            and self.text.lower() in reply.text.lower()
        )


_DAY: Final = Deferred("daily_quota", counted=False)
_RATE: Final = Deferred("rate_limited", counted=False)
_BUSY: Final = Deferred("mailbox_busy", counted=False)
_FOR_NOW: Final = Deferred("temporarily_refused")
_MESSAGE: Final = Refused("message_refused")
_RECIPIENT: Final = Refused("recipients_refused")
_TOO_LARGE: Final = Refused("message_too_large")
_CONTENT: Final[tuple[Stage, ...]] = ("mail", "data", "end")

#: The first row that fits counts.
TABLE: Final = (
    # Quotas and rates, which providers word as if they were for good.
    Row("550", r"5\.4\.5", _DAY),
    Row("4..", r"4\.4\.5", _DAY, "quota"),
    Row("5..", "", _DAY, "SubmissionQuotaExceeded"),
    Row("[45]..", r"[45]\.7\.28", _RATE),
    Row("5..", r"5\.2\.25[1-5]", _RATE),
    Row("450", r"4\.2\.1", _RATE, "rate", ("mail", "data", "end")),
    Row("4..", "", _RATE, "rate limit"),
    Row("432", "", _BUSY),
    Row("4..", "", _BUSY, "too many concurrent"),
    Row("421", r"4\.7\.0", _BUSY, "concurrent"),
    # Who we are: the token or the password, or the mailbox behind it.
    Row("5..", "", Refused("not_allowed"), "SmtpClientAuthentication is disabled", ("auth",)),
    Row("5..", r"5\.7\.13", Refused("mailbox_disabled"), stages=("auth", "mail")),
    Row("530", "", TokenRefused()),
    Row("53[45]", "", TokenRefused(), stages=("auth", "mail")),
    Row("538", "", Refused("not_allowed"), stages=("auth", "mail")),
    Row("5..", r"5\.7\.[389]", TokenRefused(), stages=("auth",)),
    Row("5..", r"5\.2\.1", Refused("mailbox_disabled"), stages=("mail", "data", "end")),
    Row("5..", r"5\.7\.60", Refused("not_allowed")),
    Row("5..", "", Refused("not_allowed"), "SendAsDenied"),
    # The mail.
    Row("5..", r"5\.2\.2", Refused("mailbox_full"), stages=_CONTENT),
    Row("5..", r"5\.(?:2\.3|3\.4)", _TOO_LARGE, stages=_CONTENT),
    Row("552", "", _TOO_LARGE, stages=_CONTENT),
    Row("5..", r"5\.7\.1", Refused("not_allowed"), stages=("mail",)),
    Row("5..", r"5\.1\..*", _RECIPIENT, stages=("data", "end")),
    Row("554", "", _RECIPIENT, "no valid recipients", ("data",)),
    # RFC 5321, 4.5.3.1.10: at RCPT, 552 is an old way to say that there are too many.
    Row("552", "", _FOR_NOW, stages=("rcpt",)),
    # A sequence of commands that the server lost track of is no fault of the mail's.
    Row("50[023]", "", Deferred("server_error")),
    # A server that greets nobody, or has no such login, may do so again.
    Row("5..", "", _FOR_NOW, stages=("connect", "auth")),
    Row("4..", "", _FOR_NOW),
    Row("5..", "", _RECIPIENT, stages=("rcpt",)),
    Row("5..", "", _MESSAGE),
)
OTHERWISE: Final = Deferred("answer_unreadable")


def meaning(reply: Reply, stage: Stage) -> Definite:
    """What a reply other than the one hoped for means, where it is certain that nothing went out."""
    found = next((row.means for row in TABLE if row.fits(reply, stage)), OTHERWISE)
    return found if isinstance(found, TokenRefused) else replace(found, said=said(reply))


def said(reply: Reply) -> str | None:
    """The reply as the mailbox's owner may read it."""
    return readable(f"{reply.code} {reply.text}" if reply.readable else reply.text)


def recipient_refused(number: int, reply: Reply) -> RecipientRefused:
    """As the mail's owner is told of it."""
    return RecipientRefused(number, reply.code, reply.status)
