"""Where a record that could not be handled is kept whole: its bytes, its headers, and why (DESIGN 4, rule 7)."""

from gateways.log.command_log import CommandLog, TooLarge
from schemas.envelope import Record
from schemas.topics import DEAD_LETTERS


class DeadLetters:
    """The topic `dead.letters`. Values stay sealed as they were."""

    def __init__(self, log: CommandLog) -> None:
        self._log = log

    async def keep(self, record: Record, *, cause: str) -> str:
        """The letter's id, the same for the same record, once it is there for good. Raises what keeps it from that."""
        letter = f"dlq_{record.topic}-{record.partition}-{record.offset}"
        headers = [
            *[(name, value) for name, value in record.headers if value is not None],
            ("deadletterid", letter.encode()),
            ("deadlettercause", cause.encode()),
            ("deadlettersource", str(record.source).encode()),
        ]
        try:
            await self._log.append(DEAD_LETTERS.name, record.key, record.value, headers, lapses=False)
        except TooLarge:
            # It fills a record by itself. Its letter says where it stands, for as long as its own topic keeps it.
            pointer = [(name, value) for name, value in headers if name.startswith("deadletter")]
            cut = [*pointer, ("deadlettercut", b"too_large")]
            await self._log.append(DEAD_LETTERS.name, record.key, b"", cut, lapses=False)
        return letter
