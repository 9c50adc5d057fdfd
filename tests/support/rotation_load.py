"""A process that refreshes, connects and creates without end: database and keyset as one JSON line; ends with its input.

It remembers what it has kept and reads it again as a process that has just started would. Its last line says how often
it did what, and what it could not read.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateways.stores.keyring import Keyring
from gateways.stores.postgres import pooled
from gateways.stores.vault import Vault
from schemas.ids import new_id
from tests.support.key_house import KeyHouse, tokens

CONNECTIONS = 40


class Load:
    def __init__(self, house: KeyHouse, name: str) -> None:
        self.house, self.name = house, name
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.ended = False

    async def create(self) -> None:
        """A mailbox's data key is read again as it was made."""
        subject = new_id("mbx")
        made = await self.house.keyring.create(subject)
        found = await Keyring(self.house.pool, self.house.keys).get([subject])
        self.told("created", found.get(subject) == made, subject)
        if random.random() < 0.3:
            await self.house.keyring.destroy(subject)

    async def refresh(self) -> None:
        connection = f"con_{self.name}_{random.randrange(CONNECTIONS)}"
        for held in await self.house.vault.lease([connection], seconds=30, holder=self.name):
            new = tokens(connection, held.version + 1)
            version = await self.house.vault.switch(held, holder=self.name, secrets=new, fingerprint="f")
            if version is None:  # it was connected anew in the meantime, and that holds
                now = await self.house.vault.get(connection)
                self.told("lost", now is not None and now.version > held.version, connection)
            else:
                self.told("refreshed", version == held.version + 1, connection)
                await self.read(connection, version)

    async def connect(self) -> None:
        connection = f"con_{self.name}_{random.randrange(CONNECTIONS)}"
        version = await self.house.put(connection)
        self.told("connected", version > 0, connection)

    async def read(self, connection: str, version: int) -> None:
        fresh = Vault(self.house.pool, self.house.keys, self.house.keyset)
        held = await fresh.get(connection)
        assert held is not None
        if held.version == version:
            self.told("read", held.secrets == tokens(connection, held.version), connection)

    def told(self, what: str, right: bool, subject: str) -> None:
        self.done[what] += 1
        if not right:
            self.wrong.append(f"{what} {subject}")

    async def run(self) -> None:
        while not self.ended:
            try:
                await random.choice((self.create, self.refresh, self.connect, self.refresh))()
            except Exception as error:  # noqa: BLE001 - that is what it looks for
                self.wrong.append(repr(error))


async def run(told: Any) -> None:
    async with pooled(told["database"], size=5) as pool:
        load = Load(KeyHouse(pool, Path(told["keyset"])), told["name"])
        for number in range(CONNECTIONS):
            await load.house.put(f"con_{load.name}_{number}")
        print(json.dumps({"ready": True}), flush=True)
        running = [asyncio.create_task(load.run()) for _ in range(4)]
        await asyncio.to_thread(sys.stdin.readline)
        load.ended = True
        await asyncio.gather(*running)
        print(json.dumps({"done": load.done, "wrong": load.wrong[:20]}), flush=True)


asyncio.run(run(json.loads(sys.stdin.readline())))
