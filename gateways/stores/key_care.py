"""Rotates key-encryption keys by their age, and ends rotations that were cut short."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from gateways.stores.key_rotation import NotAllWrapped, Rotated, RotationUnderWay, is_due, rotate
from gateways.stores.keyset import KeysetError
from gateways.stores.kms import KeyKeeper
from gateways.stores.postgres import UNREACHABLE, Pool

log = logging.getLogger(__name__)

#: Seconds between looks; the first comes when a process has had time to begin its real work.
LOOK_SECONDS: Final = 3600.0
FIRST_LOOK_SECONDS: Final = 60.0


async def keep_keys_young(
    pool: Pool,
    keys: KeyKeeper,
    *,
    max_age: timedelta,
    report: Callable[[Rotated], Awaitable[None]],
    first_look_seconds: float = FIRST_LOOK_SECONDS,
    look_seconds: float = LOOK_SECONDS,
) -> None:
    """Until cancelled, in any number of processes; what can't be reached is waited for until the next look."""
    await asyncio.sleep(first_look_seconds)
    while True:
        try:
            if await is_due(pool, keys, max_age=max_age):
                rotated = await rotate(pool, keys, older_than=max_age, report=report)
                log.warning(
                    "data keys are wrapped by another key: back up the keyset file, if that is where keys are kept",
                    extra={"key": rotated.key, "rows": rotated.rows},
                )
        except RotationUnderWay:
            log.info("another process rotates keys")
        except UNREACHABLE as error:
            log.warning("rotating keys waits", extra={"cause": str(error) or repr(error)})
        except (NotAllWrapped, KeysetError) as error:
            log.error("keys can't be rotated to the end", extra={"cause": str(error)})
        except Exception:
            log.exception("rotating keys waits")
        await asyncio.sleep(look_seconds)
