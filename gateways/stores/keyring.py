"""The keyring: one data key for each mailbox or user, wrapped, in a table outside the log (DESIGN 3.3).

A key that is *gone* was destroyed on purpose: what it sealed is erased. A keyring that can't be *reached*, or whose wrapping
keys can't, is no answer: the error goes up, and whoever asked waits.
"""

import asyncio
from collections.abc import Iterable, Sequence

from gateways.stores.kms import KeyEncryption
from gateways.stores.postgres import Pool
from gateways.stores.remembered_keys import RememberedKeys
from gateways.stores.sealing import new_data_key


class Keyring:
    """Data keys by subject (`mbx_…`, `usr_…`). Everything raises what Postgres and `KeyEncryption` raise."""

    def __init__(self, pool: Pool, keys: KeyEncryption) -> None:
        self._pool = pool
        self._keys = keys
        self._known: RememberedKeys[str] = RememberedKeys()

    async def create(self, subject: str) -> bytes:
        """Makes and stores a data key; it is there for good when this returns."""
        return (await self.create_all([subject]))[subject]

    async def create_all(self, subjects: Sequence[str]) -> dict[str, bytes]:
        """Makes and stores a data key for each, all of them or none, in one statement."""
        made = {subject: new_data_key() for subject in subjects}
        wrapped = await asyncio.gather(*[self._keys.wrap(data_key, subject) for subject, data_key in made.items()])
        await self._pool.execute(
            "insert into keyring (subject, kid, wrapped) select * from unnest($1::text[], $2::text[], $3::bytea[])",
            list(made),
            *[list(column) for column in zip(*wrapped, strict=True)],
        )
        for subject, data_key in made.items():
            self._known.add(subject, data_key)
        return made

    async def get(self, subjects: Iterable[str]) -> dict[str, bytes]:
        """The data keys of these subjects; one that is missing in the answer is gone."""
        wanted = set(subjects)
        known = {subject: key for subject in wanted if (key := self._known.get(subject)) is not None}
        missing = list(wanted - known.keys())
        if missing:
            rows = await self._pool.fetch("select subject, kid, wrapped from keyring where subject = any($1)", missing)
            found = await asyncio.gather(*[self.unwrap(row["subject"], row["kid"], row["wrapped"]) for row in rows])
            known |= {row["subject"]: data_key for row, data_key in zip(rows, found, strict=True)}
        return known

    async def unwrap(self, subject: str, kid: str, wrapped: bytes) -> bytes:
        """A row of the table that was read together with something else."""
        data_key = self._known.get(subject)
        if data_key is None:
            data_key = await self._keys.unwrap(kid, wrapped, subject)
            self._known.add(subject, data_key)
        return data_key

    async def destroy(self, *subjects: str) -> None:
        """Erases: nothing sealed under these keys can be read again."""
        for subject in subjects:
            self._known.forget(subject)
        await self._pool.execute("delete from keyring where subject = any($1)", subjects)

    async def revived(self) -> list[str]:
        """The purged mailboxes and deleted users whose keys are there again: a backup was restored that had them."""
        rows = await self._pool.fetch(
            "select k.subject from keyring k join mailboxes m on m.mailbox = k.subject where m.ended = 'purged' "
            "union all "
            "select k.subject from keyring k join users u on u.user_id = k.subject where u.deleted_at is not null"
        )
        return [row["subject"] for row in rows]
