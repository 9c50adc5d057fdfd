"""Users and connections in a running house, for tests of what comes after connecting."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.connection_commands import AuthoriseConnection, ConnectionCommand
from domain.connection_events import Provider, Token
from gateways.log.decisions import Asked, Decision
from gateways.stores.sealing import place, seal
from projections.connections import PROJECTION
from schemas.ids import new_id
from schemas.topics import CONNECTION_COMMANDS
from tests.support.http_house import HttpHouse, bearer

SENDS = "https://www.googleapis.com/auth/gmail.compose"
READS = "https://www.googleapis.com/auth/gmail.readonly"


@dataclass
class Person:
    """A user of an account, and what they are asked about with."""

    house: HttpHouse
    account: str
    key: str
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.said["id"])

    async def connect(
        self,
        address: str = "ada@gmail.example",
        *,
        provider: Provider = "gmail",
        connection: str | None = None,
        scopes: tuple[str, ...] = (SENDS, READS),
        version: int = 1,
    ) -> str:
        """The id of a connection that is as if the user had consented; asked for were sending and reading."""
        services, connection = self.house.services, connection or new_id("con")
        keys = await services.keyring.get([self.id])
        command = AuthoriseConnection(
            connection=connection,
            user=self.id,
            owner=self.account,
            provider=provider,
            auth="password" if provider == "smtp" else "oauth",
            account=seal(keys[self.id], address.encode(), place("connection", connection, "account")),
            account_digest=services.keyset.digest("address", address.lower()),
            subject_digest=None,
            scopes=list(scopes) if provider == "gmail" else ["Mail.Send"] if provider == "outlook" else [],
            asked_scopes=[SENDS, READS] if provider == "gmail" else [],
            token=Token("fingerprint", version, datetime.now(UTC) + timedelta(hours=1)),
        )
        await self.command(connection, command)
        return connection

    async def command(self, connection: str, command: ConnectionCommand) -> Decision:
        """Has a command about the connection decided and folded."""
        asked = Asked(CONNECTION_COMMANDS.name, self.id, connection, command, PROJECTION.name)
        return await self.house.services.connection_decisions.ask(asked)


async def person(house: HttpHouse, account: str, key: str, **said: Any) -> Person:
    """A new user of this account, made over HTTP."""
    body = {"email": f"{new_id('ada')}@example.org", "displayName": "Ada Lovelace"} | said
    async with house.http.post(f"{house.url}/v1/users", headers=bearer(key), json=body) as answer:
        assert answer.status == 201, await answer.text()
        return Person(house, account, key, await answer.json())
