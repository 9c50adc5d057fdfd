"""How handlers say what is to be decided: by commands, which `main.py` gives them a way to append."""

from collections.abc import Mapping
from typing import Any, Protocol

from schemas.vocabulary import Vocabulary


class AppendsCommands(Protocol):
    """Raises where the log can't be reached; then the command may be there all the same."""

    async def command(
        self,
        topic: str,
        key: str,
        command: Any,
        *,
        vocabulary: Vocabulary,
        subject: str,
        command_id: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Any: ...
