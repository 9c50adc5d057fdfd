"""Asking receivers of webhooks: one POST, to an address on the public internet, bounded in time and size.

No redirects, proxies, cookies or unpacking. A host that may not be called, one that has no address and one that does not
answer are the same to whoever named it: what we can reach from within is nobody's business.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import aiohttp

from domain.callbacks import Answer, Callback, CallbackError, Target
from gateways.providers.calls import retry_after
from gateways.providers.egress import Egress
from gateways.providers.hosts import HostNotAllowed
from gateways.stores.keyset import Keyset
from gateways.webhooks.signing import Signer, headers_of

#: Seconds for all of it (Standard Webhooks: 15 to 30), and for what comes after the status.
SECONDS: Final = 15.0
REST_SECONDS: Final = 1.0
#: Bytes that are read of an answer; of a longer one the connection is closed.
MAX_BYTES: Final = 65_536
#: Connections at once, and seconds that one is kept for the next delivery.
CONNECTIONS: Final = 600
KEEPALIVE_SECONDS: Final = 4
USER_AGENT: Final = "Postledger/1"


class Receivers:
    """The calls of one process."""

    def __init__(self, session: aiohttp.ClientSession, egress: Egress, keyset: Keyset, seconds: float) -> None:
        self._session = session
        self._egress = egress
        self._keyset = keyset
        self._seconds = seconds

    @staticmethod
    @asynccontextmanager
    async def opened(
        egress: Egress, keyset: Keyset, *, tls: ssl.SSLContext | None = None, seconds: float = SECONDS
    ) -> AsyncIterator["Receivers"]:
        """Calls that take at most so many seconds each, and let go of their connections at the end."""
        connector = egress.connector(
            limit=CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=tls or ssl.create_default_context()
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            auto_decompress=False,
        ) as session:
            yield Receivers(session, egress, keyset, seconds)

    async def post(self, target: Target, callback: Callback, trace: Mapping[str, str]) -> Answer:
        """Signs and sends it. Whatever goes wrong is an answer, too."""
        now = datetime.now(UTC)
        signers = [Signer.of(self._keyset, target.subject, version) for version in target.versions]
        headers = headers_of(signers, callback.delivery, now, callback.body) | {"Content-Type": "application/json"}
        if "traceparent" in trace:
            headers["traceparent"] = trace["traceparent"]
        loop = asyncio.get_running_loop()
        began = loop.time()
        status, error, asked = await self._asked(target.url, headers, callback.body.encode())
        return Answer(round((loop.time() - began) * 1000), status, error, asked)

    async def _asked(
        self, url: str, headers: dict[str, str], body: bytes
    ) -> tuple[int | None, CallbackError | None, float | None]:
        """Status, what went wrong, and the seconds for which the receiver asked to be left alone."""
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._session.post(
                    self._egress.checked_url(url), data=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                await _read_on(answer)
                return answer.status, _fault_of(answer.status), retry_after(answer.headers.get("Retry-After"))
        except TimeoutError:
            return None, "timed_out", None
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError, aiohttp.InvalidURL):
            return None, "answer_unreadable", None
        except (HostNotAllowed, aiohttp.ClientError, OSError):
            return None, "unreachable", None
        except ValueError:
            # aiohttp's own word for bytes that are no HTTP, in some places.
            return None, "answer_unreadable", None


def _fault_of(status: int) -> CallbackError | None:
    if 200 <= status < 300:
        return None
    return "redirected" if 300 <= status < 400 else "refused"


async def _read_on(answer: aiohttp.ClientResponse) -> None:
    """Reads what follows the status, so that the connection can be used again; else it is closed. The status stands."""
    size = 0
    try:
        async with asyncio.timeout(REST_SECONDS):
            async for block in answer.content.iter_chunked(16 * 1024):
                size += len(block)
                if size > MAX_BYTES:
                    break
            else:
                return
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        pass
    answer.close()
