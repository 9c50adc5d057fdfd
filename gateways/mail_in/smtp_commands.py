"""The verbs of SMTP as this server speaks them: it takes mail in for its own mailboxes, and does nothing else.

Whether a mailbox exists is nobody's business: RCPT answers 250 for every well-formed address, and what is not ours is
dropped. Nothing is relayed. 250 after DATA means that the mail is in the log for good; when that can't be had now, 451.
A fault of ours is never a 5xx. Replies carry enhanced status codes (RFC 2034, RFC 3463) and never repeat what was sent.
"""

# ruff: noqa: N802 - aiosmtpd finds a verb by its name in upper case

import re

import aiosmtpd.smtp

from gateways.mail_in import door
from gateways.mail_in.smtp_data import IncomingMail, is_room_for
from gateways.mail_in.smtp_keeping import NO_SPACE, TOO_LARGE, answer, refusal, temporary
from gateways.mail_in.smtp_paths import Path, Refused, check_recipient, check_sender, parse_path
from gateways.mail_in.smtp_session import Conversation
from gateways.mail_in.smtp_wire import Gone, Phase

_GREETING_NAME = re.compile(r"[!-~]{1,255}")
_SIZE = re.compile(r"[0-9]{1,20}")
_BODIES = frozenset({"7BIT", "8BITMIME"})
_VERBS = "EHLO HELO MAIL RCPT DATA RSET NOOP QUIT STARTTLS VRFY HELP"


class Transaction(aiosmtpd.smtp.Envelope):
    """One mail's envelope while it is being said; `known` has each mailbox of ours once."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, tuple[door.Inbox, door.Envelope]] = {}
        self.excess_recipients = 0


class Receiver(Conversation):
    """A conversation with all its verbs; each is called with the trimmed rest of its line."""

    session: aiosmtpd.smtp.Session
    envelope: Transaction

    def _create_envelope(self) -> Transaction:
        return Transaction()

    async def smtp_EHLO(self, hostname: str) -> None:
        """RFC 5321 4.1.1.1, with the extensions of RFC 1870, 6152, 6531, 2920, 3207 and 2034."""
        if self._is_greeted_by(hostname, extended=True):
            lines = [self.hostname, f"SIZE {self.service.limits.message}", "8BITMIME", "SMTPUTF8", "PIPELINING"]
            lines += ["STARTTLS"] if self.session.ssl is None else []
            lines += ["ENHANCEDSTATUSCODES", "HELP"]
            self.say_idly("\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]))

    async def smtp_HELO(self, hostname: str) -> None:
        """RFC 5321 4.1.1.1, for clients older than extensions."""
        if self._is_greeted_by(hostname, extended=False):
            self.say_idly(f"250 {self.hostname}")

    async def smtp_STARTTLS(self, arg: str) -> None:
        """RFC 3207: what was said before TLS is forgotten, and what was sent behind this command is not obeyed."""
        if arg:
            self.refuse("501 5.5.4 STARTTLS takes no argument")
        elif self.session.ssl is not None or not self.session.extended_smtp:
            self.refuse("503 5.5.1 TLS is already in use, or EHLO was not said")
        elif self.has_more():
            self.leave("503 5.5.1 Nothing may follow STARTTLS before TLS has begun", "refused")
        else:
            self._enter(Phase.HANDSHAKE)
            try:
                await super().smtp_STARTTLS(arg)
            except aiosmtpd.smtp.TLSSetupException:
                self.abort()
            if self.session.ssl is None:
                self.connection_lost(None)  # a handshake that has failed is not told to us by asyncio
                raise Gone

    async def smtp_MAIL(self, arg: str) -> None:
        """RFC 5321 4.1.1.2: begins a mail."""
        if not self.session.host_name:
            self.refuse("503 5.5.1 Say EHLO first")
        elif self.envelope.mail_from is not None:
            self.refuse("503 5.5.1 A mail has already begun")
        else:
            try:
                path = parse_path("FROM", arg)
                utf8 = self._check_parameters(path)
                if path.address:
                    check_sender(path.address, utf8=utf8)
            except Refused as refused:
                self.refuse(refused.reply)
                return
            if not is_room_for(self.service.limits.message):
                self.say(NO_SPACE)
                return
            self.envelope.mail_from, self.envelope.smtp_utf8 = path.address, utf8
            self.say("250 2.1.0 OK")

    async def smtp_RCPT(self, arg: str) -> None:
        """RFC 5321 4.1.1.3: names one recipient."""
        if self.envelope.mail_from is None:
            self.refuse("503 5.5.1 Say MAIL first")
            return
        try:
            path = parse_path("TO", arg)
            if path.parameters:
                raise Refused("555 5.5.4 Unknown parameter")
            # RFC 5321 4.5.1: the one address that every server knows without its domain.
            address = f"postmaster@{self.hostname}" if path.address.lower() == "postmaster" else path.address
            check_recipient(address, utf8=self.envelope.smtp_utf8)
        except Refused as refused:
            self.refuse(refused.reply)
            return
        if len(self.envelope.rcpt_tos) >= self.service.limits.recipients:
            self._refuse_another_recipient()
            return
        try:
            inbox = await self.service.door.find(address)
        except door.Unavailable as unavailable:
            self.say(temporary(unavailable))
            return
        self.envelope.rcpt_tos.append(address)
        if inbox is not None:
            self.envelope.known.setdefault(inbox.mailbox, (inbox, self._said_for(address)))
        self.say("250 2.1.5 OK")

    async def smtp_DATA(self, arg: str) -> None:
        """RFC 5321 4.1.1.4: takes the mail itself, and keeps it."""
        if arg:
            self.refuse("501 5.5.4 DATA takes no argument")
        elif self.envelope.mail_from is None or not self.envelope.rcpt_tos:
            self.refuse("503 5.5.1 Say MAIL and RCPT first")
        elif self.has_more():
            # RFC 2920 3.1: DATA is the last command of a group.
            self.leave("503 5.5.0 The mail may not come before 354", "refused")
        else:
            limits = self.service.limits
            mail = IncomingMail(
                limit=limits.message, excess=limits.message_excess, memory=limits.memory, room=self.service.room
            )
            ended = False
            try:
                ended = await self.mail_arrives(mail)
            finally:
                if not ended:
                    self._lost(mail)
            if ended:
                self.say(await answer(self.service, mail, list(self.envelope.known.values())))
                self.envelope = Transaction()

    async def smtp_RSET(self, arg: str) -> None:
        """RFC 5321 4.1.1.5: forgets the mail that has begun."""
        if arg:
            self.refuse("501 5.5.4 RSET takes no argument")
        else:
            self.envelope = Transaction()
            self.say_idly("250 2.0.0 OK")

    async def smtp_NOOP(self, _arg: str) -> None:
        """RFC 5321 4.1.1.9."""
        self.say_idly("250 2.0.0 OK")

    async def smtp_QUIT(self, arg: str) -> None:
        """RFC 5321 4.1.1.10."""
        if arg:
            self.refuse("501 5.5.4 QUIT takes no argument")
        else:
            self.leave("221 2.0.0 Bye", "quit")

    async def smtp_VRFY(self, arg: str) -> None:
        """RFC 5321 3.5.3: neither confirmed nor denied."""
        if arg:
            self.say_idly("252 2.5.0 Cannot verify, but will take the mail and try")
        else:
            self.refuse("501 5.5.4 Syntax: VRFY address")

    async def smtp_HELP(self, _arg: str) -> None:
        """RFC 5321 4.1.1.8."""
        self.say_idly(f"214 2.0.0 {_VERBS}")

    async def smtp_EXPN(self, _arg: str) -> None:
        """RFC 5321 3.5.2: there are no lists."""
        self.refuse("502 5.5.1 Not implemented")

    async def smtp_AUTH(self, _arg: str) -> None:
        """Nobody signs in here: mail is taken from everybody, and for our own mailboxes only."""
        self.refuse("502 5.5.1 Not implemented")

    def _is_greeted_by(self, hostname: str, *, extended: bool) -> bool:
        if not _GREETING_NAME.fullmatch(hostname):
            self.refuse("501 5.5.4 Say who you are: one name or address literal")
            return False
        self.envelope = Transaction()
        self.session.host_name, self.session.extended_smtp = hostname, extended
        return True

    def _check_parameters(self, path: Path) -> bool:
        """Judges MAIL's parameters; True where the mail is an internationalised one (RFC 6531)."""
        parameters = dict(path.parameters)
        size, body, utf8 = (parameters.pop(name, None) for name in ("SIZE", "BODY", "SMTPUTF8"))
        if parameters or (path.parameters and not self.session.extended_smtp):
            raise Refused("555 5.5.4 Unknown parameter")
        if size is not None and not _SIZE.fullmatch(size):
            raise Refused("501 5.5.4 SIZE is a number")
        if body is not None and body.upper() not in _BODIES:
            raise Refused("501 5.5.4 BODY is 7BIT or 8BITMIME")
        if utf8:
            raise Refused("501 5.5.4 SMTPUTF8 takes no value")
        if size is not None and int(size) > self.service.limits.message:
            raise Refused(TOO_LARGE)
        return utf8 is not None

    def _refuse_another_recipient(self) -> None:
        self.envelope.excess_recipients += 1
        if self.envelope.excess_recipients > self.service.limits.excess_recipients:
            self.leave("421 4.5.3 Too many recipients", "refused")
        else:
            self.say("452 4.5.3 Too many recipients for one mail")

    def _said_for(self, recipient: str) -> door.Envelope:
        return door.Envelope(
            sender=self.envelope.mail_from or "",
            recipient=recipient,
            helo=self.session.host_name or "",
            client=self.session.peer[0] if self.session.peer else "",
            tls=self.session.ssl is not None,
            via="smtp",
        )

    def _lost(self, mail: IncomingMail) -> None:
        """The mail has no end: half of it is nothing."""
        if mail.flooding:
            outcome, reply = refusal(mail.fate)
            self.service.counts.mail(outcome, mail.size)
            self.leave(reply, "flooding")
        else:
            self.service.counts.mail("lost", mail.size)
        mail.close()
