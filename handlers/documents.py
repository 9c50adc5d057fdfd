"""What a lane knows: the documents of its fold, in memory, loaded on demand and written behind.

Documents changed since the last snapshot stay in memory until they have been written; the others may be let go of.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from domain.mailbox_state import WITHIN
from schemas.snapshots import Checkpoint
from schemas.vocabulary import encode

Key = tuple[str, str]

#: Unchanged documents a lane remembers, so that busy mailboxes are not read again for each mail.
REMEMBERED: Final = 50_000


class KeepsSnapshots(Protocol):
    """Where the folds of deciders are written behind, by context and partition."""

    async def checkpoint(self, context: str, partition: int) -> Checkpoint | None: ...

    async def read(self, context: str, partition: int, keys: list[Key]) -> tuple[int, dict[Key, bytes]]:
        """The end of the log as of the snapshot, and the documents that are there, as JSON: one consistent reading."""
        ...

    async def save(
        self,
        context: str,
        partition: int,
        checkpoint: Checkpoint,
        changed: Mapping[Key, bytes | None],
        forgotten: list[str],
    ) -> bool:
        """Writes all of it, or nothing and False where a snapshot of this end or a later one is there already."""
        ...


class ReadsDocuments(Protocol):
    """How a context's documents are read back from JSON, by kind."""

    def __call__(self, kind: str, body: bytes) -> Any: ...


class Documents(Mapping[Key, Any]):
    """One lane's documents. `get` answers what is loaded; None is "known not to be there"."""

    def __init__(self, snapshots: KeepsSnapshots, context: str, partition: int, read: ReadsDocuments) -> None:
        self.snapshots = snapshots
        self.context = context
        self.partition = partition
        self._read = read
        self._known: OrderedDict[Key, Any] = OrderedDict()
        #: The known keys whose id has a slash, by what stands before it: what is within a mailbox is found at once.
        self._within: dict[str, set[Key]] = {}
        self._changed: set[Key] = set()
        self._forgotten: list[str] = []
        self.writing: set[Key] = set()

    def __getitem__(self, key: Key) -> Any:
        return self._known[key]

    def __iter__(self) -> Any:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def dirty(self) -> int:
        """How many documents wait for the next snapshot."""
        return len(self._changed) + len(self._forgotten)

    def clear(self) -> None:
        """Forgets everything: what follows is loaded again."""
        self._known.clear()
        self._within.clear()
        self._changed.clear()
        self._forgotten.clear()
        self.writing.clear()

    async def load(self, keys: Iterable[Key]) -> int | None:
        """Makes these keys known; answers the snapshot's end where it had to be asked."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        if not missing:
            return None
        end, found = await self.snapshots.read(self.context, self.partition, missing)
        for key in missing:
            self._know(key, self._read(key[0], found[key]) if key in found else None)
        return end

    def apply(self, changes: Mapping[Key, Any]) -> None:
        for key, document in changes.items():
            if key[0] == WITHIN:
                self._forget_within(key[1])
            else:
                self._know(key, document)
                self._known.move_to_end(key)
                self._changed.add(key)

    def _know(self, key: Key, document: Any) -> None:
        self._known[key] = document
        of, slash, _ = key[1].partition("/")
        if slash:
            self._within.setdefault(of, set()).add(key)

    def _unknow(self, key: Key) -> None:
        del self._known[key]
        of, _, _ = key[1].partition("/")
        if within := self._within.get(of):
            within.discard(key)
            if not within:
                del self._within[of]

    def _forget_within(self, of: str) -> None:
        """`of` has no slash itself. What is forgotten stays known, as not being there."""
        self._forgotten.append(of)
        for key in self._within.get(of, ()):
            self._known[key] = None
            self._changed.discard(key)

    def cut(self, checkpoint: Checkpoint) -> "Cut":
        """What has changed until now, ready to be written; more may change meanwhile."""
        cut = Cut(self, checkpoint, self._changed, self._forgotten)
        self._changed, self._forgotten = set(), []
        self.writing |= cut.keys
        return cut

    def put_back(self, keys: set[Key], forgotten: list[str]) -> None:
        """Documents that could not be written, unless everything was forgotten meanwhile."""
        self._changed |= keys & self._known.keys()
        self._forgotten = forgotten + self._forgotten

    def let_go(self) -> None:
        """Keeps memory bounded: the least recently used documents that the snapshot has are dropped."""
        excess = len(self._known) - REMEMBERED
        if excess > 0:
            kept = self._changed | self.writing
            for key in [key for key in self._known if key not in kept][:excess]:
                self._unknow(key)


class Cut:
    """The documents of one moment, on their way to the snapshot."""

    def __init__(self, documents: Documents, checkpoint: Checkpoint, keys: set[Key], forgotten: list[str]) -> None:
        self.keys = keys
        self._of = documents
        self._checkpoint = checkpoint
        self._forgotten = forgotten
        self._bodies = {key: None if documents[key] is None else encode(documents[key]) for key in keys}

    async def save(self) -> bool:
        """Writes it; False where a later snapshot is there already. On an error its documents wait for the next one."""
        of = self._of
        try:
            return await of.snapshots.save(of.context, of.partition, self._checkpoint, self._bodies, self._forgotten)
        except BaseException:
            of.put_back(self.keys, self._forgotten)
            raise
        finally:
            of.writing -= self.keys
