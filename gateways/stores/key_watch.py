"""Whether data keys can be wrapped and opened at this moment, told in the logs and to whoever asks how a role is doing.

A role starts without whoever keeps the wrapping keys, and waits: so it has to say for whom, and why.
"""

import asyncio
import logging
from typing import Final

from gateways.stores.keyset import KeysetError
from gateways.stores.kms import KeyEncryption
from gateways.stores.sealing import Unsealable, new_data_key

log = logging.getLogger(__name__)

#: Seconds between looks; one look is a wrapping and an opening.
LOOK_SECONDS: Final = 60.0
#: Seconds between looks where the last one failed.
AGAIN_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0


class KeyWatch:
    """Looks at keys as those who use them do."""

    def __init__(
        self, keys: KeyEncryption, *, look_seconds: float = LOOK_SECONDS, again_seconds: float = AGAIN_SECONDS
    ) -> None:
        self._keys = keys
        self._look_seconds = look_seconds
        self._again_seconds = again_seconds
        self._trouble: str | None = None

    async def trouble(self) -> str | None:
        """What kept the last look from wrapping or opening; None where it did both."""
        return self._trouble

    async def run(self) -> None:
        """Until cancelled. Says once what is wrong, and once that it is over."""
        while True:
            found = await self._look()
            if found and found != self._trouble:
                log.warning("data keys can't be wrapped or opened: what needs one waits", extra={"cause": found})
            elif self._trouble and not found:
                log.info("data keys are wrapped and opened again")
            self._trouble = found
            await asyncio.sleep(self._again_seconds if found else self._look_seconds)

    async def _look(self) -> str | None:
        data_key = new_data_key()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                opened = await self._keys.unwrap(*await self._keys.wrap(data_key, "watch"), "watch")
        except TimeoutError:
            return "Whoever keeps the key-encryption keys (POSTLEDGER_KMS) does not answer in time."
        except (KeysetError, OSError, Unsealable) as error:
            return str(error) or repr(error)
        except Exception as error:
            log.exception("looking at keys failed")
            return repr(error)
        return None if opened == data_key else "Whoever keeps the key-encryption keys opens something else."
