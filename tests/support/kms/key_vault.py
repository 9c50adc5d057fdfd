"""Azure Key Vault as far as a key that wraps keys: TLS, the challenge, versions, and a real RSA.

It answers in this process. `KeyVault.credential` is one to give to azure-keyvault-keys, with
`verify_challenge_resource=False` (the challenge names the real vault.azure.net) and `connection_verify` the file of
`authority`. That library wraps by itself with the public key, so only unwrapping asks the vault.
"""

import base64
import ssl
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

TOKEN = "a-token-for-the-vault"
_HASHES = {"RSA-OAEP": SHA1, "RSA-OAEP-256": SHA256}


class Token(NamedTuple):
    """An access token as azure-core has it."""

    token: str
    expires_on: int


class Credential:
    """Gives the token that the vault takes, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def get_token(self, *scopes: str, **words: Any) -> Token:
        self.asked += 1
        return Token(TOKEN, int(time.time()) + 3600)

    async def close(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ended: object) -> None:
        """Nothing is open."""


class KeyVault:
    """A vault with one key, `name`; `rotate` gives it a new version. `down` makes it answer 503, `requests` are counted."""

    def __init__(self, name: str = "kek") -> None:
        self.name, self.url = name, ""
        self.credential = Credential()
        self.down = False
        self.requests: list[str] = []
        self._keys: dict[str, rsa.RSAPrivateKey] = {}
        self._authority = trustme.CA()
        self._folder = tempfile.TemporaryDirectory(prefix="key-vault-")
        self.authority = Path(self._folder.name, "authority.pem")
        self.rotate()

    def rotate(self) -> str:
        """A new version of the key, which is the current one from now on."""
        version = f"{len(self._keys) + 1:032x}"
        self._keys[version] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return version

    def forget(self, version: str) -> None:
        """That version is gone, as when it was deleted and purged."""
        del self._keys[version]

    async def __aenter__(self) -> Self:
        self.authority.write_bytes(self._authority.cert_pem.bytes())
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1", "localhost").configure_cert(tls)
        app = web.Application(middlewares=[self._challenged])
        app.add_routes(
            [
                web.get("/keys/{name}/", self._key),
                web.get("/keys/{name}/{version}", self._key),
                web.post("/keys/{name}/{version}/{operation:wrapkey|unwrapkey}", self._operation),
            ]
        )
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        await self._runner.cleanup()
        self._folder.cleanup()

    @web.middleware
    async def _challenged(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if self.down:
            return _error(503, "ServiceUnavailable", "The vault is down.")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            challenge = (
                'Bearer authorization="https://login.microsoftonline.com/00000000-0000-0000-0000-000000000001", '
                'resource="https://vault.azure.net"'
            )
            return _error(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.", challenge)
        return await handler(request)

    def _found(self, request: web.Request) -> tuple[str, rsa.RSAPrivateKey] | None:
        version = request.match_info.get("version") or next(reversed(self._keys))
        known = request.match_info["name"] == self.name and version in self._keys
        return (version, self._keys[version]) if known else None

    async def _key(self, request: web.Request) -> web.Response:
        if (found := self._found(request)) is None:
            return _error(404, "KeyNotFound", "A key with (name/id) was not found in this key vault.")
        version, key = found
        public = key.public_key().public_numbers()
        operations = ["wrapKey", "unwrapKey", "encrypt", "decrypt"]
        jwk = {
            "kid": self._kid(version),
            "kty": "RSA",
            "key_ops": operations,
            "n": _number(public.n),
            "e": _number(public.e),
        }
        now = int(time.time())
        return web.json_response({"key": jwk, "attributes": {"enabled": True, "created": now, "updated": now}})

    async def _operation(self, request: web.Request) -> web.Response:
        if (found := self._found(request)) is None:
            return _error(404, "KeyNotFound", "A key with (name/id) was not found in this key vault.")
        version, key = found
        body = await request.json()
        if body["alg"] not in _HASHES:
            return _error(400, "BadParameter", "Property has invalid value.")
        hashed = _HASHES[body["alg"]]
        oaep = padding.OAEP(padding.MGF1(hashed()), hashed(), None)
        value = _bytes(body["value"])
        try:
            done = (
                key.decrypt(value, oaep)
                if request.match_info["operation"] == "unwrapkey"
                else key.public_key().encrypt(value, oaep)
            )
        except ValueError:
            return _error(400, "BadParameter", "The parameter is incorrect.")
        return web.json_response({"kid": self._kid(version), "value": _text(done)})

    def _kid(self, version: str) -> str:
        return f"{self.url}/keys/{self.name}/{version}"


def _error(status: int, code: str, message: str, challenge: str | None = None) -> web.Response:
    headers = {"WWW-Authenticate": challenge} if challenge else {}
    return web.json_response({"error": {"code": code, "message": message}}, status=status, headers=headers)


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(value: int) -> str:
    return _text(value.to_bytes((value.bit_length() + 7) // 8, "big"))
