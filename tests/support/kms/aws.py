"""AWS KMS by moto, in a process of its own, with one key made.

Its lenience: a key that is disabled goes on encrypting and decrypting.
"""

import sys
from types import TracebackType
from typing import Any, Self

from aiobotocore.session import get_session

from tests.support.own_child import OwnChild

REGION = "eu-west-1"
CREDENTIALS = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": REGION}
#: A server that says its port as our children do, and ends with its standard input.
_SERVED = """
import json, os, sys, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(json.dumps({"port": server.server_port}), flush=True)
server.serve_forever()
"""


class AwsKms:
    """`endpoint` is its address, `key_id` and `key_arn` name the key; `client()` is what aiobotocore makes of them."""

    def __init__(self) -> None:
        self.endpoint = self.key_id = self.key_arn = ""
        self._child: OwnChild | None = None

    async def __aenter__(self) -> Self:
        self._child = await OwnChild.start("moto", [sys.executable, "-c", _SERVED], seconds=60)
        self.endpoint = f"http://127.0.0.1:{self._child.word['port']}"
        self.key_arn = await self.make_key()
        self.key_id = self.key_arn.rpartition("/")[2]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        assert self._child is not None
        await self._child.stop()

    def client(self) -> Any:
        """An async context manager: a client of aiobotocore for this server."""
        return get_session().create_client("kms", endpoint_url=self.endpoint, **CREDENTIALS)

    async def make_key(self, alias: str | None = None) -> str:
        """One more key; its ARN."""
        async with self.client() as kms:
            made = (await kms.create_key())["KeyMetadata"]
            if alias is not None:
                await kms.create_alias(AliasName=f"alias/{alias}", TargetKeyId=made["KeyId"])
            return made["Arn"]
