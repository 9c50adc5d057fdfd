"""The talk over one SMTP connection: the greeting, one command after the other, and what is done when a verb fails.

Lines that could be read in two ways are never obeyed, and a fault of ours is never the client's: it hears 451.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

from gateways.mail_in.smtp_keeping import OWN_FAULT, report
from gateways.mail_in.smtp_service import Service
from gateways.mail_in.smtp_wire import Gone, Phase, Wire

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT"})
_COMMANDS_WITHOUT_A_BREAK = 64


class Conversation(Wire):
    """The frame that `smtp_commands.Receiver` fills with verbs."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(service, loop)
        self._in_a_row = 0

    async def _handle_client(self) -> None:
        try:
            await self._greet()
            while self.phase is not Phase.GOODBYE:
                line = await self._next_line()
                if line is None:
                    break
                await self._obey(line)
        except (Gone, OSError):
            pass  # nobody is left to be told
        finally:
            if self.transport is not None:
                self._flush()
                self.transport.close()
                self._enter(Phase.GOODBYE)

    async def _greet(self) -> None:
        """RFC 5321 3.1: the client waits for our greeting. What is there before it comes from a smuggler or a spammer."""
        if delay := self.service.limits.greeting_delay:
            await asyncio.sleep(delay)
        else:
            # Two rounds of the event loop: one to start reading, one to read what is already there.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if self.has_more():
            self.leave("554 5.5.1 You talked before you were greeted", "refused")
        else:
            self.say(f"220 {self.hostname} ESMTP Postledger")

    async def _next_line(self) -> bytes | None:
        """The next command with its line end; None when there is none, because the client or we have gone."""
        if self._last_words is not None:
            self.leave(self._last_words, self._ending)
            return None
        self._in_a_row += 1
        self._enter(Phase.COMMAND)
        if self._in_a_row % _COMMANDS_WITHOUT_A_BREAK == 0:
            self._flush()
            await asyncio.sleep(0)
        if not self._replies:
            await self._writer.drain()
        try:
            line: bytes = await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            self.leave("500 5.5.2 Command line too long", "refused")
            return None
        self._enter(Phase.US)
        return line

    async def _obey(self, line: bytes) -> None:
        """Finds the verb and lets it answer. Lines that could be read in two ways are never obeyed (RFC 5321 2.3.8)."""
        if not line.endswith(b"\r\n"):
            self.leave("521 5.5.2 Lines end with <CR><LF>", "refused")
            return
        if _CONTROLS.search(line, 0, len(line) - 2):
            self.refuse("500 5.5.2 Control characters in a command")
            return
        try:
            verb, _, argument = line[:-2].decode().partition(" ")
        except UnicodeDecodeError:
            self.refuse("500 5.5.2 Commands are ASCII, addresses UTF-8")
            return
        method = self._smtp_methods.get(verb.upper())
        if method is not None:
            await self._guarded(method, argument.strip(" "))
        elif verb in _HTTP:
            self.leave("421 4.7.0 This is SMTP", "refused")
        else:
            self.refuse("500 5.5.1 Unknown command")

    async def _guarded(self, method: Callable[[str], Awaitable[None]], argument: str) -> None:
        try:
            await method(argument)
        except Gone:
            raise
        except Exception as error:  # noqa: BLE001 - whatever breaks on our side, the client is told to try again
            report(error, doing="an SMTP command")
            self.say(OWN_FAULT)
