"""What a process that runs for days asks of its two allocators, once its parts are there.

- glibc gives memory at the top of its heap back at once and maps large blocks afresh each time (mallopt(3)): a mail of a
  mebibyte, in its dozen copies, then costs more page faults than work. So that much is kept at hand, and only larger blocks
  are mapped, and given back for certain.
- The collector of cycles (gc) goes through all objects again and again, and everything waits: a tenth of a second for what
  was made before the first request, which lives as long as the process and is left out of it. The young are looked at less
  often, when most of them are gone: that is 3 % of the workers' time.

Neither exists everywhere; where one is missing nothing is done.
"""

import contextlib
import ctypes
import gc
from typing import Final

#: mallopt's names for them, and bytes.
TRIM_THRESHOLD: Final = -1
MMAP_THRESHOLD: Final = -3
KEPT_BYTES: Final = 16 * 1024 * 1024
MAPPED_BYTES: Final = 4 * 1024 * 1024
#: New objects between two looks of the collector.
YOUNG: Final = 5_000


def settle() -> None:
    """Call it when everything is opened and before there is work."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(MMAP_THRESHOLD, MAPPED_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
