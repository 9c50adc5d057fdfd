"""Everything on this machine, under one supervisor."""

from collections.abc import Mapping
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
