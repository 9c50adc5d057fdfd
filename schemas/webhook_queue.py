"""The records of `webhook.deliver` and its retry tiers: one attempt that is to be made, and when.

They carry everything that the attempt needs. None is truth: they follow from `webhook.events`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from domain.callbacks import Callback
from schemas.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Attempt:
    """Attempt number `attempt` of a delivery, not to be made before `due`."""

    callback: Callback
    attempt: int
    due: datetime
    since: datetime | None = None


QUEUE: Final = Vocabulary("webhook", {Attempt: "webhook.attempt.v1"})
