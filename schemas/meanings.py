"""What each field and type of the topics means, in a sentence: the descriptions in docs/schemas.

The same name means the same thing in every type; the few that don't have an entry of their own, `Type.field`. A type that
has a docstring is described by it.
"""

import re
from typing import Final

FIELDS: Final = {
    "account": "The account this is about: `acc_…`.",
    "account_digest": "A digest of the connected mailbox's address: equal for the same address in any case.",
    "address": "The mailbox's address, sealed under the mailbox's data key.",
    "address_digest": "A digest of the address in lower case: finds a mailbox by its address without storing it readably.",
    "asked_by": "Whether it was time (`timer`), or a call was refused with the token before (`call`).",
    "asked_scopes": "What the provider was asked to grant, as it spells it.",
    "at": "When it happened, where that differs from when it was decided.",
    "at_provider": "Whether the provider declared the tokens void: `done`, `failed`, or `none` where it can't be asked to.",
    "auth": "`oauth`: by tokens that are refreshed. `password`: by one that lasts until somebody changes it.",
    "blob": "The blob that holds the mail as it came; null where the record of `mail.raw` holds it itself.",
    "by": "Who asked for it: a word for a kind of caller, never a person's name.",
    "calls": "The calls, the oldest first.",
    "cause": "Why, from a closed list; null where there is nothing to explain.",
    "code": "Why, from a closed list.",
    "command": "The command that was refused, by the name of its type.",
    "connection": "The connection this is about: `con_…`.",
    "content": "Text, HTML, headers and the list of attachments as JSON, sealed; null where it stands in `content_blob`, "
    "where the mail is still being parsed, and where it could not be parsed.",
    "content_blob": "The blob that holds what is too large for `content`, sealed; null where there is none.",
    "created_at": "When the mailbox was created.",
    "dead_letter": "Id of the record in `dead.letters` that holds the command whole.",
    "default_ttl_minutes": "The lifetime in minutes of a mailbox whose creator named none.",
    "display_name": "The user's name as the caller gave it, sealed under the user's data key; null where none was given.",
    "due": "The moment the timer was set for.",
    "email": "The user's e-mail address, sealed under the user's data key.",
    "email_digest": "A digest of the user's e-mail address, which is one user's alone in an account.",
    "envelope": "What was said around the mail (sender, recipient, HELO, client, TLS) as JSON, sealed.",
    "expires_at": "From this moment on the mailbox takes no mail and shows none, whether or not its expiry was said yet.",
    "external_id": "The caller's own id of the user, sealed under the user's data key; null where none was given.",
    "external_id_digest": "A digest of the caller's own id of the user, which is one user's alone in an account; null where "
    "none was given.",
    "failure": "What failed: `transient`, the provider for the time being; `client_broken`, our own client there, which "
    "an operator has to mend.",
    "fingerprint": "Tells the token from others without being it: an HMAC under an installation key, or random bits where it "
    "is a password.",
    "finished_at": "When the last row was wrapped.",
    "has_attachments": "Whether the mail has attachments; false as long as it is not parsed.",
    "hash": "SHA-256 of the whole API key, in hex. The key itself is kept nowhere.",
    "idempotency_key": "A digest of the caller's idempotency key; null where none was given or the caller is anonymous.",
    "from_offset": "The offset in `topic` that was to be decided next.",
    "inputs": "By topic: the next offset in this partition of it that is to be decided.",
    "key": "Id of the API key: `key_…`. Not the key.",
    "limit": "How many the plan allows; null unless a limit of the plan is the reason.",
    "limits": "What the plan allowed at that time.",
    "live_mailboxes": "How many mailboxes of one owner may be open at a time.",
    "live_messages": "How many messages a mailbox may hold at a time.",
    "log": "A random id of this history. Another id in the same place is another history.",
    "longest_ttl_minutes": "The longest lifetime in minutes, extensions included.",
    "mailbox": "The mailbox this is about: `mbx_…`.",
    "message": "The message this is about: `msg_…`.",
    "message_id_digest": "A digest of sender and Message-ID, by which a repeated mail is known; null where it has none.",
    "missing_scopes": "Of the scopes that were asked for, those that the user did not grant.",
    "name": "The plan's name.",
    "next_at": "When it is tried again, unless a call asks for a token before.",
    "not_after": "After this moment the command was to have no effect.",
    "number": "Counts the mails of a mailbox in the order they were received, from 1, without a gap.",
    "of": "The mailbox that was made when the same idempotency key came first; null unless that is the reason.",
    "offset": "Offset in `mail.raw`.",
    "operation": "What the provider was called for.",
    "outcome": "How it ended, from a closed list.",
    "owner": "Whom the mailbox belongs to, and the record's key: an account, or the mailbox itself where it is anonymous.",
    "partition": "Partition of `mail.raw`.",
    "plan": "The plan's name.",
    "plan_position": "Where the plan was defined in `account.events`; null for a plan every installation begins with.",
    "position": "Where the plan was defined in `account.events`; null for a plan every installation begins with.",
    "prefix": "The first characters of the API key, by which its owner tells it from others.",
    "provider": "Where the mailbox is: `gmail`, `outlook`, or `smtp` for any server that speaks SMTP and IMAP.",
    "raw": "Where the mail can be read as it came.",
    "reason": "Why it was refused, from a closed list.",
    "received_at": "When the record of `mail.raw` was appended, by the broker's clock.",
    "reconnects": "Whether this very connection is to be renewed; otherwise a new one is wanted.",
    "refresh_at": "When the token is due to be refreshed; null for one that does not expire.",
    "regarding": "The id of what the call was made for, such as a send's or the connection's own.",
    "replaces": "Version of the token that the connection had before, where it was connected anew; null for a new "
    "connection. It may be above that of `token` where a refresh was reported first: the greatest version holds.",
    "request": "A digest of the request that was made with the idempotency key; null where none was given.",
    "retry_after": "Seconds that the provider asked to be left alone for; null where it did not say.",
    "rotated": "Whether the provider gave a new refresh token as well.",
    "rows": "How many rows of the vault were wrapped anew.",
    "scale": "The installation's factor on every wait of its own.",
    "scopes": "What the API key may be used for; an empty list leaves it unrestricted.",
    "sha256": "SHA-256 of the mail as it came, in hex.",
    "size": "Bytes of the mail as it came.",
    "state": "`whole`: parsed. `parsing`: received, shown when `MessageParsed` follows. `unparsed`: can't be parsed, "
    "readable as it came.",
    "subject_digest": "A digest of the id under which the provider knows the mailbox's owner; null where there is none.",
    "summary": "Sender's address and name, subject and whether there are attachments as JSON, sealed; null unless parsed.",
    "to_offset": "The first offset of `topic` that is still there: the one decided next.",
    "token": "The token that the vault holds, told by its fingerprint.",
    "token_version": "Version of the mailbox's session token; an older one no longer opens it.",
    "topic": "A topic that commands are read from.",
    "ttl_minutes": "The lifetime asked for in minutes, capped at what the plan allows; null asks for the plan's default.",
    "used": "How many there were at that time; null unless a limit of the plan is the reason.",
    "user": "The user this is about: `usr_…`.",
    "version": "Version of the connection's token in the vault; each new token has a greater one.",
    "via": "How the mail came in.",
    # names that mean something else in one type
    "AuthoriseConnection.account": "The mailbox's address, sealed under the user's data key.",
    "AuthoriseConnection.owner": "The account that the user belongs to.",
    "AuthoriseConnection.scopes": "What the provider was granted to allow, as it spells it.",
    "Call.at": "When the call was made.",
    "Call.by": "The part of us that made the call.",
    "CommandFailed.command": "`ce_id` of the command.",
    "CommandLapsed.command": "`ce_id` of the command.",
    "CommandUnreadable.command": "`ce_id` of the command; empty where it had none.",
    "ConnectionAuthorised.account": "The mailbox's address, sealed under the user's data key.",
    "ConnectionAuthorised.owner": "The account that the user belongs to.",
    "ConnectionAuthorised.scopes": "What the user granted, as the provider spells it.",
    "ConnectionRefused.of": "The connection that is in the way: the one of the same mailbox, or the one that is of another; "
    "null for the other reasons.",
    "CreateMailbox.plan": "A dated copy of the plan that the mailbox is made under.",
    "EventSkipped.position": "Offset in this partition of the event that projections pass over.",
    "EventSkipped.reason": "The operator's reason, in a sentence.",
    "ExtendMailbox.ttl_minutes": "Minutes from now that the mailbox is to live; it never ends earlier for being extended.",
    "InputReset.reason": "The operator's reason, in a sentence.",
    "KeyRotated.key": "Name of the key-encryption key; never the key.",
    "MailboxExpired.at": "When the lifetime ended: the mailbox's `expires_at`.",
    "ReauthorisationRequired.cause": "Why, in plain words that can be shown to the user.",
    "ReauthorisationRequired.version": "Version of the token that is of no use any more.",
    "ReportRefresh.token": "The new token; null unless the outcome is `refreshed`.",
    "ReportRefresh.code": "Why there is no new token; null where the outcome is `refreshed`.",
    "ReportRefresh.version": "Version of the token that was to be refreshed.",
    "ReportRotation.key": "Name of the key-encryption key; never the key.",
    "Token.expires_at": "When the access token expires; null for what does not expire by itself.",
    "TokenRefreshed.expires_at": "When the access token expires; null for what does not expire by itself.",
    "UserRefused.of": "The user who has the address or the id, or was made with the idempotency key; null for other reasons.",
}

TYPES: Final = {
    "AccountCommandRefused": "A command about an account that could not be carried out as things stood; nothing changed.",
    "AccountCreated": "An account was made.",
    "ApiKeyIssued": "An API key was made and shown to its owner, once.",
    "ApiKeyRevoked": "An API key stopped being valid.",
    "AssignPlan": "Puts an account on another plan.",
    "CloseUser": "Ends every connection of a user who was deleted, and lets no more be made.",
    "CreateAccount": "Makes an account.",
    "CreateMailbox": "Makes a mailbox, where the owner's plan has room for one.",
    "CreateUser": "Makes a user of an account, whose mailboxes can then be connected.",
    "DefinePlan": "Defines a plan, or defines it anew. Mailboxes that exist keep the limits they were made with.",
    "DeleteMailbox": "Ends a mailbox before its time.",
    "DeleteMessage": "Deletes a message.",
    "ExpireMailbox": "A timer's reminder that a mailbox's lifetime is over.",
    "ExtendMailbox": "Makes a mailbox live longer.",
    "MailboxCreated": "A mailbox was made; mail to its address is received from now on.",
    "MailboxDeleted": "A mailbox was ended by its owner, by the operator, or by an erasure.",
    "MailboxExpired": "A mailbox's lifetime ended.",
    "MailboxExtended": "A mailbox lives longer.",
    "MessageDeleted": "A message was deleted.",
    "MessageParsed": "A message that was received as it came has been parsed since; only now is it shown.",
    "MessageRead": "A message was read for the first time.",
    "PlanAssigned": "An account is on this plan from now on.",
    "PlanDefined": "A plan was defined. It holds for mailboxes made from now on.",
    "PlanRefused": "A plan that contradicts itself or the installation was not defined.",
    "PurgeMailbox": "A timer's reminder that an ended mailbox's data key and blobs have been destroyed.",
    "ReadMessage": "Marks a message as read.",
    "ReportParsed": "What became of parsing a message that was received as it came.",
    "ReportRevocation": "What came of revoking a connection.",
    "ReportRotation": "A rotation of key-encryption keys has come to its end.",
    "ReportUse": "Calls that were made to a provider with a connection's token.",
    "RevokeApiKey": "Makes an API key invalid.",
    "RevokeConnection": "Ends a connection.",
    "UserCreated": "A user was made. Mailboxes can be connected for them from now on.",
    "UserDeleted": "A user was deleted. Address and external id are free again, and each of the user's connections ends.",
}


class NoMeaning(LookupError):
    """A type or field of the topics that nobody has described: add its sentence to schemas/meanings.py."""


def of_type(cls: type) -> str:
    """What a type of the topics means. Raises NoMeaning."""
    own = cls.__doc__ or ""
    # dataclasses write a signature into a missing docstring
    said = TYPES.get(cls.__name__) if own.startswith(f"{cls.__name__}(") else re.sub(r"\s+", " ", own).strip()
    return _said(said, cls.__name__)


def of_field(cls: type, name: str) -> str:
    """What a field means. Raises NoMeaning."""
    return _said(FIELDS.get(f"{cls.__name__}.{name}") or FIELDS.get(name), f"{cls.__name__}.{name}")


def _said(sentence: str | None, of: str) -> str:
    if not sentence:
        raise NoMeaning(f"schemas/meanings.py has no sentence for {of}")
    return sentence
