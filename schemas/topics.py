"""Every topic there is: what it holds, how its records are keyed, and how long they are kept (DESIGN 3.1).

`main.py provision` creates them and asserts that the live configuration is still this one.
"""

from dataclasses import dataclass
from typing import Final

from domain.connection_events import Provider

DAY_MS: Final = 24 * 3600 * 1000
FOREVER: Final = -1

#: Bytes of one record batch: what `append` may take, with room for the headers of the records in it.
MAX_MESSAGE_BYTES: Final = 2_097_152
#: Bytes of the batches a decider writes; at most half of what the topic takes.
DECIDER_BATCH_BYTES: Final = 1_000_000

#: Postgres's channel on which projections announce how far they are: `topic partition position name,name…`.
FOLDED_CHANNEL: Final = "folded"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: its name, what its records are keyed by, and for how many milliseconds they are kept."""

    name: str
    key: str
    holds: str
    kept_ms: int
    #: Truth: written by compare and append, begins with `log.opened`, never compacted, kept forever.
    truth: bool = False
    #: An acknowledgement stands on it: the broker's clock stamps it, and a single node flushes each append.
    acknowledged: bool = True

    def settings(self, *, single_node: bool) -> dict[str, str]:
        """The topic's configuration on the broker; drift from it stops every role at its start."""
        durable = {"flush.messages": "1"} if single_node and self.acknowledged else {}
        clustered = {} if single_node else {"min.insync.replicas": "2"}
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(self.kept_ms),
            "retention.bytes": "-1",
            "message.timestamp.type": "LogAppendTime" if self.acknowledged else "CreateTime",
            "max.message.bytes": str(MAX_MESSAGE_BYTES),
            "unclean.leader.election.enable": "false",
            **durable,
            **clustered,
        }


MAILBOX_COMMANDS: Final = Topic("mailbox.commands", "owner", "create, extend, read, delete, expire", 30 * DAY_MS)
MAIL_RAW: Final = Topic(
    "mail.raw", "owner", "one record for each accepted recipient: the sealed mail as it came", 38 * DAY_MS
)
MAILBOX_EVENTS: Final = Topic(
    "mailbox.events", "owner", "what happened to mailboxes and their messages", FOREVER, truth=True
)
ACCOUNT_COMMANDS: Final = Topic("account.commands", "account", "plans, accounts, API keys, users", 30 * DAY_MS)
ACCOUNT_EVENTS: Final = Topic(
    "account.events", "account", "what happened to plans, accounts, API keys and users", FOREVER, truth=True
)
CONNECTION_COMMANDS: Final = Topic(
    "connection.commands", "user", "authorise, refresh, revoke, use: what is asked of connections", 30 * DAY_MS
)
CONNECTION_EVENTS: Final = Topic(
    "connection.events", "user", "what happened to users' connections and their tokens", FOREVER, truth=True
)
SEND_COMMANDS: Final = Topic(
    "send.commands", "user", "send, move, cancel, claim, report: what is asked of sends", 30 * DAY_MS
)
SEND_EVENTS: Final = Topic(
    "send.events", "user", "what happened to mails that were to be sent, and to each attempt", FOREVER, truth=True
)
#: Work, by connection. No acknowledgement stands on it: what gets lost here is dispatched again by a timer.
DELIVER: Final[dict[Provider, Topic]] = {
    "gmail": Topic("deliver.gmail", "connection", "sends to be tried by Gmail", 7 * DAY_MS, acknowledged=False),
    "outlook": Topic("deliver.outlook", "connection", "sends to be tried by Outlook", 7 * DAY_MS, acknowledged=False),
    "smtp": Topic("deliver.smtp", "connection", "sends to be tried by SMTP", 7 * DAY_MS, acknowledged=False),
}
#: Where work waits for its time: seconds of the longest wait in each, the longest first.
RETRY: Final = {
    3600: Topic("retry.1h", "connection", "work that waits for an hour and more", 7 * DAY_MS, acknowledged=False),
    600: Topic("retry.10m", "connection", "work that waits for ten minutes and more", 7 * DAY_MS, acknowledged=False),
    60: Topic("retry.1m", "connection", "work that waits for a minute and more", 7 * DAY_MS, acknowledged=False),
    10: Topic("retry.10s", "connection", "work that waits for less than a minute", 7 * DAY_MS, acknowledged=False),
}
WEBHOOK_COMMANDS: Final = Topic(
    "webhook.commands", "endpoint", "tell, report, tell again: what is asked of webhooks' deliveries", 30 * DAY_MS
)
WEBHOOK_EVENTS: Final = Topic(
    "webhook.events", "endpoint", "what happened to deliveries of webhooks, and to each attempt", FOREVER, truth=True
)
#: Deliveries to be tried. Nothing else remembers that one is due, so an append here has to last.
WEBHOOK_DELIVER: Final = Topic("webhook.deliver", "endpoint", "deliveries of webhooks to be tried", 7 * DAY_MS)
#: Where deliveries wait for their time: seconds of the longest wait in each, the longest first.
WEBHOOK_RETRY: Final = {
    7200: Topic("webhook.retry.2h", "endpoint", "deliveries that wait for two hours and more", 7 * DAY_MS),
    1800: Topic("webhook.retry.30m", "endpoint", "deliveries that wait for half an hour and more", 7 * DAY_MS),
    300: Topic("webhook.retry.5m", "endpoint", "deliveries that wait for five minutes and more", 7 * DAY_MS),
    5: Topic("webhook.retry.5s", "endpoint", "deliveries that wait for less than five minutes", 7 * DAY_MS),
}
DEAD_LETTERS: Final = Topic(
    "dead.letters", "the original's", "full original bytes, headers and cause", 90 * DAY_MS, acknowledged=False
)

#: Where an input's commands are decided: each input of a decider, and the truth topic of its context.
DECIDED_IN: Final = {
    MAILBOX_COMMANDS.name: MAILBOX_EVENTS.name,
    MAIL_RAW.name: MAILBOX_EVENTS.name,
    ACCOUNT_COMMANDS.name: ACCOUNT_EVENTS.name,
    CONNECTION_COMMANDS.name: CONNECTION_EVENTS.name,
    SEND_COMMANDS.name: SEND_EVENTS.name,
    WEBHOOK_COMMANDS.name: WEBHOOK_EVENTS.name,
}

TOPICS: Final = (
    MAILBOX_COMMANDS,
    MAIL_RAW,
    MAILBOX_EVENTS,
    ACCOUNT_COMMANDS,
    ACCOUNT_EVENTS,
    CONNECTION_COMMANDS,
    CONNECTION_EVENTS,
    SEND_COMMANDS,
    SEND_EVENTS,
    *DELIVER.values(),
    *RETRY.values(),
    WEBHOOK_COMMANDS,
    WEBHOOK_EVENTS,
    WEBHOOK_DELIVER,
    *WEBHOOK_RETRY.values(),
    DEAD_LETTERS,
)
