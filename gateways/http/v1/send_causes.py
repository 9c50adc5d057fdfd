"""What an attempt's code, or a send's, says to a person: what happened, and what there is to do."""

from collections.abc import Mapping
from typing import Final

from domain.delivery import DeferredCode, InDoubtCode
from domain.send_events import FailedCode

LATER: Final = "Nothing went out; it is tried again by itself."
FOR_GOOD: Final = "Nothing went out."
ASKED: Final = "A provider that can tell is asked what became of it; nothing is sent again before that is known."

DEFERRED: Final[Mapping[DeferredCode, str]] = {
    "unreachable": f"The provider could not be reached. {LATER}",
    "timed_out": f"The provider did not answer in time. {LATER}",
    "rate_limited": f"The provider asked us to slow down. {LATER}",
    "mailbox_busy": f"As much is done with this mailbox at the moment as its provider allows. {LATER}",
    "daily_quota": f"The mailbox has sent as much as its provider allows in a day. {LATER}",
    "server_error": f"The provider had a fault of its own. {LATER}",
    "answer_unreadable": f"The provider's answer could not be understood. {LATER}",
    "temporarily_refused": f"The provider refused it for the time being. {LATER}",
    "token_unavailable": f"A token for the mailbox could not be had. {LATER}",
    "token_refused": (
        "The provider takes no token for the mailbox, not even one it has just given; it is asked less and less often. "
        "Where that goes on, its user has to connect the mailbox again; the mail waits for that, a day at most."
    ),
    "reauth_required": "The mailbox has to be connected again by its user; the mail waits for that, a day at most.",
    "worker_lost": f"The worker that tried it was lost before it began to send. {LATER}",
    "out_of_time": f"There was not enough time left to send it in this attempt. {LATER}",
    "proven_absent": f"The provider has shown that it did not go out. {LATER}",
    "client_broken": f"This installation can't read the mail or hand it over: its operator has to look into that. {LATER}",
}
FAILED: Final[Mapping[FailedCode, str]] = {
    "recipients_refused": f"The provider takes none of the recipients: correct them in another mail. {FOR_GOOD}",
    "message_refused": f"The provider does not take this mail. {FOR_GOOD}",
    "message_too_large": f"The mail is larger than the provider takes: send one with less attached. {FOR_GOOD}",
    "message_too_large_for_scopes": (
        "The mail is larger than what the connection may send without the right to make drafts: send one with less "
        f"attached, or have its user connect the mailbox again and grant `Mail.ReadWrite` as well. {FOR_GOOD}"
    ),
    "not_allowed": f"The mailbox may not send, or not as this sender: its administrator can change that. {FOR_GOOD}",
    "scope_missing": f"The connection was not granted to send: have its user connect the mailbox again. {FOR_GOOD}",
    "mailbox_disabled": f"The provider has disabled the mailbox: its user has to ask there. {FOR_GOOD}",
    "mailbox_full": f"The mailbox is full: once there is room, have it tried again. {FOR_GOOD}",
    "not_found": f"The provider does not have the mailbox, or the draft, any more. {FOR_GOOD}",
    "connection_revoked": f"The connection was revoked: once a mailbox is connected, have it tried again. {FOR_GOOD}",
    "content_erased": f"What was to be sent has been erased. {FOR_GOOD}",
    "host_not_allowed": f"The mail server is not on the public internet, or its port is none of mail servers. {FOR_GOOD}",
    "no_active_connection": f"The user has no connection to send it by: once there is one, have it tried again. {FOR_GOOD}",
}
IN_DOUBT: Final[Mapping[InDoubtCode, str]] = {
    "timed_out": f"The provider did not answer after the mail was handed over. {ASKED}",
    "connection_lost": f"The connection broke after the mail was handed over. {ASKED}",
    "server_error": f"The provider had a fault of its own after the mail was handed over. {ASKED}",
    "answer_unreadable": f"The provider's answer leaves it open whether the mail went out. {ASKED}",
    "draft_gone": f"The draft that was to be sent is no draft any more. {ASKED}",
    "worker_lost": f"The worker that sent it was lost before the provider's answer. {ASKED}",
}
OF_FAILURES: Final = {str(code): cause for code, cause in (*FAILED.items(), *DEFERRED.items())}
OF_DOUBTS: Final = {str(code): cause for code, cause in IN_DOUBT.items()}
#: Of sends only: why one was cancelled, and one that ended without a proof.
CANCELLED: Final = {
    "connection_revoked": f"The connection was revoked before its time had come. {FOR_GOOD}",
    "user_deleted": f"The user was deleted. {FOR_GOOD}",
}
UNCERTAIN: Final = (
    "Whether it went out can't be proven; it is not sent again by itself. Look into the mailbox before you retry it."
)
GIVEN_UP: Final = "Its attempts or its time are used up. The last one: "
#: What is said of a code that a newer version of us has written.
OTHERWISE: Final = "Something happened that this version has no words for; look at `code`."


def cause_of_attempt(outcome: str, code: str | None) -> str | None:
    """A sentence or two; None where there is nothing to explain. The same code means another thing where there is doubt."""
    if code is None:
        return None
    return (OF_DOUBTS if outcome == "in_doubt" else OF_FAILURES).get(code, OTHERWISE)


def cause_of_send(status: str, code: str | None) -> str | None:
    """A sentence or two; None where there is nothing to explain."""
    if code is None:
        return None
    if status == "uncertain":
        return UNCERTAIN
    if status == "dead_lettered":
        return GIVEN_UP + (cause_of_attempt("deferred", code) or "").removesuffix(LATER).strip()
    if status == "cancelled":
        return CANCELLED.get(code, OTHERWISE)
    return cause_of_attempt("in_doubt" if status == "sending" else status, code)
