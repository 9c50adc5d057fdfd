"""Requests made up from the API's own description, by schemathesis: no error of ours, and no answer the document hides."""

import asyncio
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateways.local_servers import Servers
from tests.support.connected import person
from tests.support.http_house import HttpHouse, http_house
from tests.support.servers import create_database, drop_database

#: What must hold of each answer. That valid requests succeed is not among them: most are about inboxes that are not there.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "use_after_free",
    "missing_required_header",
]
PHASES = ["examples", "coverage", "fuzzing", "stateful"]
EXAMPLES = 10


@pytest.fixture
async def house(servers: Servers, tmp_path: Path) -> AsyncIterator[HttpHouse]:
    name = f"made_up_{uuid.uuid4().hex}"
    database = create_database(servers, name)
    async with http_house(servers, database, f"{name}.", tmp_path / "house") as house:
        yield house
    drop_database(servers, name)


@pytest.mark.timeout(240)
async def test_whatever_is_asked_is_answered_as_the_document_says(house: HttpHouse, tmp_path: Path) -> None:
    """With the key of an account that has an inbox with a mail in it, a user and a connection of theirs.

    The seed stands in the output of a failure.
    """
    account, key = await house.account()
    await (await person(house, account, key)).connect()
    box = await house.mailbox(key)
    await house.deliver(box["address"], b"From: ann@example.org\r\nSubject: Hello\r\n\r\nHi\r\n")
    await house.listed(box, 1)
    said = await asyncio.to_thread(
        subprocess.run,
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{house.url}/openapi.json", "--url", house.url,
            "--header", f"Authorization: Bearer {key}",
            "--phases", ",".join(PHASES), "--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES),
            "--continue-on-failure", "--request-timeout", "20", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=220, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    made, passed = re.search(r"(\d+) generated, (\d+) passed", said.stdout).groups()
    assert made == passed
    assert int(made) > 200
