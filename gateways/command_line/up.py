"""Everything on this machine, under one supervisor."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gateways.command_line.failures import USAGE, Failed

if TYPE_CHECKING:
    from gateways.supervisor import Supervisor


def supervisor_of(
    data: Path, *, program: Path, kafka: str | None, database_url: str | None, listening: Mapping[str, tuple[str, int]]
) -> "Supervisor":
    """The supervisor of an `up` on this folder, with the servers that are named or those it starts itself.

    `listening`: the addresses it will listen on, by the settings that say so. Raises Failed where only one server is
    named, and what `check_free` raises where an address is taken.
    """
    from gateways.local_ports import check_free  # noqa: PLC0415 - a second of clients that `--help` need not pay
    from gateways.local_servers import Servers, running  # noqa: PLC0415 - as above
    from gateways.supervisor import Supervisor  # noqa: PLC0415 - as above

    given = None
    if kafka and database_url:
        given = Servers(kafka, database_url)
    elif kafka or database_url:
        raise Failed("Name both servers, POSTLEDGER_KAFKA and POSTLEDGER_DATABASE_URL, or neither.", code=USAGE)
    if not running(data):  # else that is the better sentence, and the lock will say it
        for setting, address in listening.items():
            check_free(setting, *address)
    return Supervisor(data, program=program, servers=given)


def said_when_ready(http: str, smtp: str, *, mail_domain: str, data: Path) -> Callable[[float], None]:
    """Greets whoever started it, once it is ready after so many seconds."""

    def ready(seconds: float) -> None:
        print(greeting(http, smtp, mail_domain=mail_domain, data=data, seconds=seconds), flush=True)

    return ready


def greeting(http: str, smtp: str, *, mail_domain: str, data: Path, seconds: float) -> str:
    """What `up` says once everything is ready."""
    return (
        f"Postledger is ready after {seconds:.1f} s. Data and logs: {data}\n\n"
        f"  HTTP   http://{http}\n"
        f"  SMTP   {smtp}   (addresses end in @{mail_domain})\n\n"
        f"Create an inbox:\n\n  curl -X POST 'http://{http}/api/v1/mailboxes?ttl_minutes=30'\n\n"
        f"Ctrl-C ends it."
    )
