"""How far the inputs of a truth topic have been decided, folded from the topic itself.

Each event names the record that it was decided on as `srcpos`; decisions that led to no event are named by
`log.inputs-advanced`, records that were lost undecided by `log.input-reset`.
"""

from collections.abc import Mapping
from typing import Final

from domain.outcomes import InputReset, InputsAdvanced
from schemas.envelope import Record, Source
from schemas.events import LOG

ADVANCED: Final = LOG.types[InputsAdvanced]
RESET: Final = LOG.types[InputReset]


def fold_inputs(inputs: dict[str, int], record: Record, headers: Mapping[str, str]) -> None:
    """Moves `inputs` (topic → next offset to be decided) by what one valid record says of them.

    Raises KeyError or ValueError where the record is not what its type says.
    """
    kind = headers["ce_type"]
    if kind == ADVANCED:
        moved = LOG.decode(kind, record.value).inputs
    elif kind == RESET:
        reset = LOG.decode(kind, record.value)
        moved = {reset.topic: reset.to_offset}
    elif kind.startswith("log."):
        return
    else:
        source = Source.read(headers["srcpos"])
        moved = {source.topic: source.offset + 1}
    for topic, offset in moved.items():
        inputs[topic] = max(inputs.get(topic, 0), offset)
