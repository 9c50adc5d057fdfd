"""Making an installation ready: its topics, its tables, and the certainty that both are of one history."""

import asyncio


async def prepare_installation(kafka: str, database_url: str, *, prefix: str, partitions: int | None) -> None:
    """Topics as they are meant, tables up to date, one history.

    Raises what the servers raise where they can't be reached, and what `provision` and `one_history` raise.
    """
    from gateways.log.provision import one_history, provision, wait_for_broker  # noqa: PLC0415 - not paid by `--help`
    from projections.migrate import migrate  # noqa: PLC0415 - as above

    async def topics() -> None:
        await wait_for_broker(kafka)
        await provision(kafka, prefix=prefix, partitions=partitions)

    await asyncio.gather(topics(), migrate(database_url))
    await one_history(kafka, database_url, prefix=prefix)
