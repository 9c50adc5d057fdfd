"""`schemas`: the documents for services that consume the log, written anew or compared with what the code says."""

from pathlib import Path

from gateways.command_line.failures import Failed
from gateways.command_line.output import advise
from schemas.documents import as_text, documents, write


def write_documents(folder: Path) -> None:
    """Writes every document into the folder."""
    written = write(folder)
    advise(f"{len(written)} documents are in {folder}.")


def check_documents(folder: Path) -> None:
    """Raises Failed where the folder does not hold exactly what the code says."""
    meant = {name: as_text(document) for name, document in documents().items()}
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    differ = sorted(name for name in meant.keys() | there.keys() if meant.get(name) != there.get(name))
    if differ:
        raise Failed(
            f"In {folder} these differ from the code: {', '.join(differ)}. `python main.py schemas` writes them anew; "
            f"delete what no code stands for."
        )
    advise(f"All {len(meant)} documents in {folder} are what the code says.")
