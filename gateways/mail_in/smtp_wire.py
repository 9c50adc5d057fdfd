"""The wire of one SMTP connection: slots, bytes in, replies out, deadlines, and the ways it can end.

aiosmtpd gives the protocol's frame (sessions, envelopes, the table of verbs, STARTTLS with its guard against injected
plaintext); what it does by the line, by the command or not at all is done here instead:

- Bytes after 354 do not pass its line reader: `data_received` hands them to an `IncomingMail`.
- No timer is set for a command. A connection notes what it waits for and since when; the server looks at all of them
  once a tick and calls `check_deadlines`.
- A client that has gone does not stop the mail that is being kept for it: see `Service.commit`. One that has only finished
  sending (half-closed) still gets its reply.
- Replies to pipelined commands (RFC 2920) leave in one write.
"""

import asyncio
from collections import deque
from enum import Enum, auto
from functools import cache

import aiosmtpd.smtp

from gateways.mail_in.smtp_data import IncomingMail
from gateways.mail_in.smtp_service import Ending, Service, network_of

_BYTES_WITHOUT_A_BREAK = 256 * 1024


class Gone(Exception):
    """The client can't be talked to any more."""


class Phase(Enum):
    """What a conversation waits for."""

    COMMAND = auto()
    HANDSHAKE = auto()
    DATA = auto()
    US = auto()
    GOODBYE = auto()


class Wire(aiosmtpd.smtp.SMTP):
    """What `smtp_session.Conversation` talks through."""

    transport: asyncio.Transport | None
    _original_transport: asyncio.Transport | None

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        limits = service.limits
        # asyncio's line reader counts without the line feed.
        self.line_length_limit = limits.command_line - 1
        super().__init__(
            None,
            data_size_limit=limits.message,
            enable_SMTPUTF8=True,
            hostname=service.hostname,
            tls_context=service.tls_context,
            timeout=limits.session,
            loop=loop,
        )
        self.service = service
        self.phase = Phase.COMMAND
        self._since = loop.time()
        self._network: str | None = None
        self._ending: Ending = "gone"
        self._last_words: str | None = None
        self._replies: list[bytes] = []
        self._errors = 0
        self._idle_commands = 0
        self._incoming: IncomingMail | None = None
        self._without_a_break = 0
        self._mail_waiter: asyncio.Future[None] | None = None
        self._arrived: deque[int] = deque(maxlen=1 + max(1, round(limits.data_window / limits.tick)))

    def __dir__(self) -> list[str]:
        """Only verbs: aiosmtpd looks through every member of each new connection for them, which costs more than a mail."""
        return _verbs(type(self))  # type: ignore[arg-type] # aiosmtpd's attributes confuse the look for __hash__

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # we listen on TCP only
        """Takes a slot and starts the conversation, or turns the client away; once more when TLS has begun."""
        if self._network is not None:
            super().connection_made(transport)
            return
        peer = transport.get_extra_info("peername")
        network = network_of(peer[0]) if peer else ""
        admission = self.service.admit(network)
        self.service.counts.connection(admission)
        if admission != "accepted":
            transport.write(b"421 4.7.0 Too many connections, please try again later\r\n")
            transport.close()
            return
        self._network = network
        self.service.conversations.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Gives the slot back; what waits for the client is cancelled, what is being kept for it is not."""
        if self not in self.service.conversations or self._network is None:
            return
        self.service.conversations.remove(self)
        self.service.leave(self._network)
        self.service.counts.ended(self._ending)
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Commands go to the line reader, a mail to its block reader."""
        if self._network is None or self.phase is Phase.GOODBYE:
            return
        if self._incoming is None:
            super().data_received(data)
            return
        rest = self._incoming.feed(data)
        if self._incoming.ended or self._incoming.flooding:
            self._wake()
        else:
            self._take_turns(len(data))
        if rest:
            super().data_received(rest)

    def eof_received(self) -> bool:
        """The client has finished sending: what it has sent is still answered, except within TLS, which has no half-close."""
        asyncio.StreamReaderProtocol.eof_received(self)
        self._wake()
        return self.session is not None and self.session.ssl is None

    # What the server calls.

    def check_deadlines(self, now: float) -> None:
        """Ends the connection where what it waits for should have come by `now` (the event loop's clock)."""
        limits, waited = self.service.limits, now - self._since
        if self.phase is Phase.COMMAND and waited > self.service.idle:
            self._dismiss("421 4.4.2 Idle for too long", "idle")
        elif self.phase is Phase.HANDSHAKE and waited > limits.handshake:
            self._ending = "idle"
            self.abort()
        elif self.phase is Phase.DATA and (waited > limits.data or self._is_slow()):
            self._dismiss("421 4.4.2 The mail arrives too slowly", "slow")
        elif self.phase is Phase.GOODBYE and waited > limits.linger:
            self.abort()

    def finish(self, reply: str, ending: Ending) -> None:
        """Ends the connection with these last words once the mail in hand is answered; at once where there is none."""
        if self.phase is Phase.COMMAND:
            self._dismiss(reply, ending)
        elif self.phase is Phase.HANDSHAKE:
            self.abort()
        else:
            self._last_words, self._ending = reply, ending

    def abort(self) -> None:
        """Cuts the connection."""
        transport = self._original_transport or self.transport
        if transport is not None:
            transport.abort()

    # What the verbs call.

    def say(self, reply: str) -> None:
        """Answers; while more commands are already here, the reply waits for theirs."""
        self._replies.append(reply.encode() + b"\r\n")
        if not self.has_more(b"\n"):
            self._flush()

    def refuse(self, reply: str) -> None:
        """Answers a command that is the client's mistake; too many of them end the session."""
        self._errors += 1
        if self._errors > self.service.limits.errors:
            self.leave("421 4.7.0 Too many errors", "refused")
        else:
            self.say(reply)

    def say_idly(self, reply: str) -> None:
        """Answers a command that brings no mail closer; too many of them between two mails end the session."""
        self._idle_commands += 1
        if self._idle_commands > self.service.limits.idle_commands:
            self.leave("421 4.7.0 Too many commands without a mail", "refused")
        else:
            self.say(reply)

    def leave(self, reply: str, ending: Ending) -> None:
        """Says the last words and closes."""
        self._ending = ending
        self._replies.append(reply.encode() + b"\r\n")
        self._flush()
        self._enter(Phase.GOODBYE)
        if self.transport is not None:
            self.transport.close()

    def has_more(self, what: bytes = b"") -> bool:
        """Whether anything, or anything with this in it, has arrived behind the command in hand."""
        # asyncio's reader has no public way to ask; aiosmtpd empties it by the same name.
        buffer: bytearray = self._reader._buffer  # type: ignore[attr-defined]  # noqa: SLF001 - see above
        return bool(buffer) and what in buffer

    async def mail_arrives(self, mail: IncomingMail) -> bool:
        """Says 354 and takes a mail; False where the client went away before its end or sends far too much of it."""
        self._incoming, self._mail_waiter = mail, self.loop.create_future()
        self._arrived.clear()
        self._arrived.append(0)
        self.say("354 End data with <CR><LF>.<CR><LF>")
        self._enter(Phase.DATA)
        try:
            await self._mail_waiter
        finally:
            self._incoming = self._mail_waiter = None
            if self.phase is Phase.DATA:
                self._enter(Phase.US)
        self._idle_commands = 0
        return mail.ended

    async def push(self, status: str) -> None:  # type: ignore[override]  # aiosmtpd's own verbs bring no bytes
        """What aiosmtpd's STARTTLS answers with."""
        self.say(status)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._since = self.loop.time()

    def _flush(self) -> None:
        if self._replies and self.transport is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self._replies))
        self._replies.clear()

    def _wake(self) -> None:
        self._incoming = None
        if self._mail_waiter is not None and not self._mail_waiter.done():
            self._mail_waiter.set_result(None)

    def _take_turns(self, size: int) -> None:
        """Lets others have the event loop: uvloop reads a full socket dozens of times before it looks elsewhere."""
        self._without_a_break += size
        if self._without_a_break >= _BYTES_WITHOUT_A_BREAK and self.transport is not None:
            self._without_a_break = 0
            self.transport.pause_reading()
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.phase is Phase.DATA and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _is_slow(self) -> bool:
        """Fewer bytes than `data_rate` allows over the last whole `data_window`."""
        if self._incoming is None:
            return False
        self._arrived.append(self._incoming.wire_size)
        whole_window = len(self._arrived) == self._arrived.maxlen
        limits = self.service.limits
        return whole_window and self._arrived[-1] - self._arrived[0] < limits.data_rate * limits.data_window

    def _dismiss(self, reply: str, ending: Ending) -> None:
        """Leaves in the middle of waiting for the client."""
        self.leave(reply, ending)
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """aiosmtpd's timer is the session's only one: it is set once, when the session begins."""
        if self._timeout_handle is None:
            super()._reset_timeout(duration)

    def _timeout_cb(self) -> None:
        if self.phase is Phase.DATA:
            self._dismiss("421 4.4.2 The session has lasted too long", "too long")
        else:
            self.finish("421 4.4.2 The session has lasted too long", "too long")


@cache
def _verbs(kind: type) -> list[str]:
    return [name for name in dir(kind) if name.startswith("smtp_")]
