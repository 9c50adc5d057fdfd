"""Whether an ID token says who has just consented (OpenID Connect Core, 3.1.3.7): signed by the issuer, for us, now."""

import asyncio
import hmac
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from yarl import URL

from domain.connection_events import Provider
from gateways.providers.calls import CallFailed, Calls

ALGORITHMS: Final = {"RS256": RSAKey, "ES256": ECKey}
KINDS: Final[Mapping[str, type[RSAKey | ECKey]]] = {"RSA": RSAKey, "EC": ECKey}
#: Seconds that clocks may differ.
LEEWAY: Final = 60
#: Seconds after which keys are fetched again, so that one that was withdrawn is not believed for long.
KEYS_AGE: Final = 3600.0
#: Seconds between two fetches because of keys we don't know: their ids are written by whoever wrote the token.
UNKNOWN_KEY_PAUSE: Final = 60.0
MOST_KEYS: Final = 100
#: A place in the name of an issuer, as Microsoft writes it in its own metadata.
TENANT: Final = "{tenantid}"
GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class IdTokenInvalid(Exception):
    """The token proves nothing. The text names the first thing that is wrong, and nothing that is in the token."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who may have issued a token. `name` may hold {tenantid}, which stands for the tenant that the token is from."""

    name: str
    also_spelled: frozenset[str] = field(default_factory=frozenset)

    def of(self, claims: Mapping[str, Any]) -> str | None:
        """The name of the issuer that this token would have to have."""
        if TENANT not in self.name:
            return self.name
        tenant = claims.get("tid")
        return self.name.replace(TENANT, tenant) if isinstance(tenant, str) and GUID.fullmatch(tenant) else None

    def is_named(self, issuer: str) -> bool:
        """Whether that is a name of this issuer, for whatever tenant."""
        before, place, after = self.name.partition(TENANT)
        if not place:
            return issuer == self.name or issuer in self.also_spelled
        tenant = issuer.removeprefix(before).removesuffix(after)
        return issuer == before + tenant + after and GUID.fullmatch(tenant) is not None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says. `issuer` is spelled the one way."""

    issuer: str
    subject: str
    all: Mapping[str, Any] = field(repr=False)


class Keys:
    """The keys that a provider signs with, by their ids; fetched when needed, by one at a time."""

    def __init__(self, calls: Calls, provider: Provider, url: URL, clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._provider = provider
        self._url = url
        self._clock = clock
        self._keys: dict[str, RSAKey | ECKey] = {}
        self._fetched_at = -KEYS_AGE
        self._lock = asyncio.Lock()

    async def get(self, name: str) -> RSAKey | ECKey | None:
        """The key of that id, None where the provider has none. Raises CallFailed where it can't be asked."""
        async with self._lock:
            age = self._clock() - self._fetched_at
            if age >= KEYS_AGE or (name not in self._keys and age >= UNKNOWN_KEY_PAUSE):
                answer = await self._calls.get(self._provider, "keys", self._url)
                if not answer.ok:
                    raise CallFailed("refused")
                self._keys = _keys(answer.json())
                self._fetched_at = self._clock()
            return self._keys.get(name)


class IdTokens:
    """Judges the ID tokens of one issuer for one client."""

    def __init__(self, keys: Keys, issuer: Issuer, client_id: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._client_id = client_id

    async def judge(self, token: str, nonce: str) -> Claims:
        """What the token says. Raises IdTokenInvalid, and CallFailed where the provider's keys can't be had."""
        claims = await self._signed(token)
        if not _are_timely(claims):
            raise IdTokenInvalid("time")
        issuer = self._issuer.of(claims)
        if issuer is None or claims.get("iss") not in {issuer, *self._issuer.also_spelled}:
            raise IdTokenInvalid("iss")
        # No other audience beside us: who else the token is for could use it in our stead.
        if claims.get("aud") not in (self._client_id, [self._client_id]):
            raise IdTokenInvalid("aud")
        if claims.get("azp", self._client_id) != self._client_id:
            raise IdTokenInvalid("azp")
        said = claims.get("nonce")
        if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
            raise IdTokenInvalid("nonce")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise IdTokenInvalid("sub")
        return Claims(issuer, subject, claims)

    async def _signed(self, token: str) -> Mapping[str, Any]:
        try:
            header = jws.extract_compact(token.encode()).headers()
            name, algorithm = header.get("kid"), header.get("alg")
            if not isinstance(name, str) or not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
                raise IdTokenInvalid("algorithm")
            key = await self._keys.get(name)
            # The key decides how it is used, never the token: an RSA key as the secret of an HMAC proves nothing.
            if not isinstance(key, ALGORITHMS[algorithm]):
                raise IdTokenInvalid("key")
            return jwt.decode(token, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError, RecursionError):
            raise IdTokenInvalid("signature") from None


def _keys(body: Mapping[str, Any]) -> dict[str, RSAKey | ECKey]:
    """Those of a key set that sign; one that can't be read does not spoil the others."""
    found: dict[str, RSAKey | ECKey] = {}
    listed = body.get("keys")
    for entry in listed[:MOST_KEYS] if isinstance(listed, list) else []:
        name = entry.get("kid") if isinstance(entry, dict) and entry.get("use") != "enc" else None
        if isinstance(name, str) and (kind := KINDS.get(str(entry.get("kty")))):
            with suppress(JoseError, ValueError, TypeError, KeyError):
                found.setdefault(name, kind.import_key(entry))
    return found


def _are_timely(claims: Mapping[str, Any]) -> bool:
    registry = jwt.JWTClaimsRegistry(leeway=LEEWAY, exp={"essential": True}, iat={"essential": True})
    try:
        registry.validate(dict(claims))
    except JoseError:
        return False
    return True
