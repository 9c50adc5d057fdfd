"""Files that hold a secret: for this user's eyes only, and never seen half written."""

from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Puts a file of mode 0600 in place of what is there. Raises OSError."""
    coming = path.with_name(path.name + ".coming")
    coming.unlink(missing_ok=True)
    coming.touch(mode=0o600)
    coming.write_text(text)
    coming.replace(path)
