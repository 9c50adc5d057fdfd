"""Every bound of the SMTP door in one record, with the defaults the product is run with."""

from dataclasses import dataclass

_KIB = 1024
_MIB = 1024 * _KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds.

    The defaults keep RFC 5321 4.5.3.1 (at least 512 bytes of command line, 100 recipients) and 4.5.3.2 (at least five
    minutes for a command) as long as the server is not crowded.
    """

    message: int = 25 * _MIB
    """The largest mail, counted as it is kept: with CRLF line ends and without the dots of RFC 5321 4.5.2."""

    message_excess: int = 64 * _KIB
    """How much more than `message` is read, and thrown away, in search of the end mark before the connection is cut."""

    memory: int = 256 * _KIB
    """What a mail may hold of memory; a larger one waits in an unnamed file."""

    roomy: int = 2 * _MIB
    places: int = 16
    """As many mails at once may hold this much of memory instead: a file costs more than all else that is done with them."""

    command_line: int = 2048
    """A command line with its CRLF; a longer one ends the session."""

    recipients: int = 100
    excess_recipients: int = 10_000
    """Further recipients that are answered with 452 before the session ends."""

    received_headers: int = 50
    """A mail with more `Received` headers than these is going round in circles (RFC 5321 6.3)."""

    connections: int = 200
    connections_per_client: int | None = 20
    """At once from one IPv4 address or one IPv6 /64; None for no such bound."""

    crowded: float = 0.8
    """The share of `connections` above which `idle_when_crowded` holds instead of `idle`."""

    idle: float = 300.0
    """For one whole command line to arrive, and for the client to take our replies. Single bytes do not renew it."""

    idle_when_crowded: float = 10.0
    handshake: float = 30.0
    """For a TLS handshake to be finished after STARTTLS."""

    data: float = 1800.0
    """For one whole mail to arrive after 354."""

    data_rate: int = 1000
    """Bytes a second that a mail must arrive with over any `data_window`."""

    data_window: float = 60.0
    session: float = 3600.0
    linger: float = 5.0
    """How long a connection that was said goodbye to may take to read that."""

    tick: float = 1.0
    """How often the deadlines above are looked at."""

    greeting_delay: float = 0.0
    """How long to listen for a client that talks before it is greeted (RFC 5321 3.1)."""

    errors: int = 20
    """Refused commands a session may have; the next one is answered with 421."""

    idle_commands: int = 200
    """NOOP, RSET, EHLO and the like that a session may have for each mail it brings; the next one is answered with 421."""
