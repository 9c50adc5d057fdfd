"""What can come of handing a mail to a provider, and of asking it later what became of one.

Every gateway to a provider answers in these words; what a provider itself says is translated by one table of data for each.
What decides is what was proven: an answer that leaves open whether the mail went out is `InDoubt`, never `Deferred`.
"""

from dataclasses import dataclass, field
from typing import Literal

#: Why an attempt came to nothing though a later one may succeed. Nothing went out, for sure.
DeferredCode = Literal[
    "unreachable",
    "timed_out",
    "rate_limited",
    "mailbox_busy",
    "daily_quota",
    "server_error",
    "answer_unreadable",
    "temporarily_refused",
    "token_unavailable",
    "token_refused",
    "reauth_required",
    "worker_lost",
    "out_of_time",
    "proven_absent",
    "client_broken",
]
#: Why no attempt will succeed. Nothing went out, for sure.
RefusedCode = Literal[
    "recipients_refused",
    "message_refused",
    "message_too_large",
    "message_too_large_for_scopes",
    "not_allowed",
    "scope_missing",
    "mailbox_disabled",
    "mailbox_full",
    "not_found",
    "connection_revoked",
    "content_erased",
    "host_not_allowed",
]
#: Why it can't be told whether the mail went out.
InDoubtCode = Literal["timed_out", "connection_lost", "server_error", "answer_unreadable", "draft_gone", "worker_lost"]


@dataclass(frozen=True, slots=True)
class RecipientRefused:
    """One recipient whom the provider did not take while it took others: its number among the mail's recipients.

    `code` is SMTP's reply code, `status` the enhanced one (RFC 3463) where there was one.
    """

    recipient: int
    code: int
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has taken the mail. `refused`: recipients who will not get it."""

    provider_message_id: str | None = None
    thread_id: str | None = None
    refused: list[RecipientRefused] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not this time, and nothing went out. `retry_after`: seconds that the provider asked us to wait, as it said them.

    `counted`: whether it is one of the attempts, unless there is a `retry_after`: a wait that the provider asked for is none.
    `said` is the provider's own text, at most 500 characters, for the mailbox's owner only.
    """

    code: DeferredCode
    retry_after: float | None = None
    counted: bool = True
    said: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """Never, as it is, and nothing went out. `refused`: why, for each recipient, where the provider says it of them."""

    code: RefusedCode
    said: str | None = field(default=None, repr=False)
    refused: list[RecipientRefused] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class InDoubt:
    """It may have gone out: no answer came after the bytes that send it had begun to leave, or one that leaves it open."""

    code: InDoubtCode
    said: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TokenRefused:
    """The provider does not take the access token (401); nothing went out. One refresh, once more, and then no more."""


Answer = Accepted | Deferred | Refused | InDoubt | TokenRefused


@dataclass(frozen=True, slots=True)
class ProvenSent:
    """The provider has it among what was sent."""

    provider_message_id: str | None = None
    thread_id: str | None = None


@dataclass(frozen=True, slots=True)
class ProvenAbsent:
    """The recorded draft is still a draft, so the mail did not go out. An empty search is no such proof."""


@dataclass(frozen=True, slots=True)
class NotProven:
    """This look has shown neither. `retry_after`: seconds that the provider asked us to wait."""

    code: Literal[
        "nothing_found", "unreachable", "timed_out", "rate_limited", "server_error", "not_allowed", "token_unavailable"
    ]
    retry_after: float | None = None


Found = ProvenSent | ProvenAbsent | NotProven | TokenRefused
