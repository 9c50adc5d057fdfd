"""Progress of what takes long, for whoever watches."""

import time
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Seconds of work before progress is shown.
QUIET_SECONDS: Final = 1.0


class Bar:
    """Progress on standard error, once there is something to wait for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(name, total=None)
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._bar.stop()

    def at(self, done: int, total: int) -> None:
        if not self._shown and time.monotonic() - self._began > QUIET_SECONDS:
            self._shown = True
            self._bar.start()
        self._bar.update(self._task, completed=done, total=max(done, total))
