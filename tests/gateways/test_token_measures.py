"""What Prometheus is told of connections."""

from prometheus_client import CollectorRegistry

from gateways.stores.postgres import pooled
from gateways.token_measures import TokenMeasures
from projections.migrate import migrate

CONNECTED = """
insert into connections (connection, user_id, owner, provider, auth, account, account_digest, scopes, missing_scopes, state,
    token_version, token_fingerprint, connected_at, partition, position)
values ('con_1', 'usr_1', 'acc_1', 'gmail', 'oauth', '', '', '{}', '{}', $1, 1, '', now(), 0, 0)
"""


async def test_a_state_that_no_connection_of_a_provider_is_in_is_told_as_0(database: str) -> None:
    """Alerts compare with an hour ago: the first in a state has to have risen from something."""
    await migrate(database)
    registry = CollectorRegistry()

    def told(provider: str, state: str) -> float | None:
        return registry.get_sample_value("postledger_connections", {"provider": provider, "state": state})

    async with pooled(database, size=2) as pool:
        measures = TokenMeasures(pool, registry)
        await pool.execute(CONNECTED, "active")
        await measures.look()
        assert [told("gmail", state) for state in ("active", "reauth_required", "revoked")] == [1, 0, 0]
        assert told("outlook", "active") is None
        await pool.execute("update connections set state = 'reauth_required'")
        await measures.look()
        assert [told("gmail", state) for state in ("active", "reauth_required", "revoked")] == [0, 1, 0]
