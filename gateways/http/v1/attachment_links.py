"""Links to an attachment's bytes that need no credentials: whoever has one may read them until it expires.

A link is signed under a key of the installation (HMAC-SHA-256) for its attachment, the account and the moment it ends.
"""

import hmac
import re
from datetime import UTC, datetime
from typing import Final

from gateways.http.problems import Problem
from gateways.stores.keyset import Keyset

PATH: Final = "/v1/attachments"
MOMENT: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


def signed_link(keyset: Keyset, attachment: str, account: str, expires: datetime) -> str:
    """The path, with its query, of the attachment's bytes for anybody until then; whole seconds count."""
    moment = str(int(expires.timestamp()))
    return f"{PATH}/{attachment}/content?expires={moment}&signature={_signature(keyset, attachment, account, moment)}"


def check_link(keyset: Keyset, attachment: str, account: str, *, expires: str, signature: str) -> None:
    """Raises a Problem (403) where we did not make this link, or it has expired."""
    genuine = _signature(keyset, attachment, account, expires)
    if not MOMENT.fullmatch(expires) or not hmac.compare_digest(genuine.encode(), signature.encode("utf-8", "replace")):
        raise refused_link()
    if datetime.now(UTC).timestamp() >= int(expires):
        raise Problem("link_expired", "This link has expired: ask for the message again, which has another.")


def refused_link() -> Problem:
    return Problem("link_invalid", "This link is not one of ours, or was changed on its way.")


def _signature(keyset: Keyset, attachment: str, account: str, moment: str) -> str:
    return keyset.digest("link", attachment, account, moment)
