"""Wherever key-encryption keys are kept: what is wrapped is opened for its context only, and no answer is not an answer."""

import asyncio
import logging
import secrets as random_bits
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from azure.keyvault.keys.aio import KeyClient
from azure.keyvault.keys.crypto import KeyWrapAlgorithm
from azure.keyvault.keys.crypto.aio import CryptographyClient

from gateways.stores.keyring import Keyring
from gateways.stores.keyset import Keyset, KeysetError, open_keyset
from gateways.stores.kms import KeyGone, KeysUnreachable
from gateways.stores.kms_chosen import ChosenKeys, key_encryption
from gateways.stores.postgres import UNREACHABLE, pooled
from gateways.stores.sealing import Unsealable, new_data_key
from projections.migrate import migrate
from tests.support.key_house import has_any
from tests.support.kms.aws import CREDENTIALS, AwsKms
from tests.support.kms.key_vault import KeyVault

KEEPERS = ("local", "aws", "azure")


@pytest.fixture(scope="module")
async def aws() -> AsyncIterator[AwsKms]:
    async with AwsKms() as server:
        yield server


@pytest.fixture
async def azure() -> AsyncIterator[KeyVault]:
    async with KeyVault() as server:
        yield server


@pytest.fixture
def keyset(tmp_path: Path) -> Keyset:
    return open_keyset(tmp_path / "keyset.json")


class Keepers:
    """Keys by each setting, all closed in the end."""

    def __init__(self, keyset: Keyset, aws: AwsKms, azure: KeyVault) -> None:
        self.keyset, self.aws, self.azure = keyset, aws, azure
        self.settings = {"local": "local", "aws": f"aws:{aws.key_id}", "azure": f"azure:{azure.url}/keys/{azure.name}"}
        self.opened: list[ChosenKeys] = []

    def keys(self, keeper: str, **more: Any) -> ChosenKeys:
        return self.by(self.settings[keeper], **more)

    def by(self, setting: str, **more: Any) -> ChosenKeys:
        options = {"aws": {"endpoint_url": self.aws.endpoint, **CREDENTIALS}, "azure": for_tests(self.azure)} | more
        self.opened.append(key_encryption(setting, self.keyset, **options))
        return self.opened[-1]


def for_tests(azure: KeyVault) -> dict[str, Any]:
    return {
        "credential": azure.credential,
        "connection_verify": str(azure.authority),
        "verify_challenge_resource": False,
        "retry_total": 0,
    }


@pytest.fixture
async def keepers(keyset: Keyset, aws: AwsKms, azure: KeyVault) -> AsyncIterator[Keepers]:
    made = Keepers(keyset, aws, azure)
    yield made
    for keys in made.opened:
        await keys.close()


@pytest.mark.parametrize("keeper", KEEPERS)
async def test_a_data_key_is_opened_for_its_context_and_no_other(keepers: Keepers, keeper: str) -> None:
    keys, data_key = keepers.keys(keeper), new_data_key()
    kid, wrapped = await keys.wrap(data_key, "con_1")
    assert data_key not in wrapped
    assert await keys.unwrap(kid, wrapped, "con_1") == data_key
    assert await keepers.keys(keeper).unwrap(kid, wrapped, "con_1") == data_key
    for context in ("con_2", "con_1 ", ""):
        with pytest.raises(Unsealable):
            await keys.unwrap(kid, wrapped, context)


@pytest.mark.parametrize("keeper", KEEPERS)
async def test_what_was_changed_or_was_never_wrapped_is_refused(keepers: Keepers, keeper: str) -> None:
    keys = keepers.keys(keeper)
    kid, wrapped = await keys.wrap(new_data_key(), "con_1")
    for other in (wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"", wrapped[:20], random_bits.token_bytes(len(wrapped))):
        with pytest.raises(Unsealable):
            await keys.unwrap(kid, other, "con_1")


async def test_ids_say_who_keeps_the_key_and_which_it_is(keepers: Keepers) -> None:
    kids = {keeper: (await keepers.keys(keeper).wrap(new_data_key(), "x"))[0] for keeper in KEEPERS}
    assert kids["local"] == keepers.keyset.primary
    assert kids["aws"] == f"aws:{keepers.aws.key_arn}"
    assert kids["azure"] == f"azure:{keepers.azure.url}/keys/kek/{1:032x}"


async def test_what_was_wrapped_before_the_setting_changed_is_opened_by_whoever_wrapped_it(keepers: Keepers) -> None:
    rows = []
    for keeper in KEEPERS:
        data_key = new_data_key()
        rows.append((data_key, *await keepers.keys(keeper).wrap(data_key, "con_1")))
    for keeper in KEEPERS:
        keys = keepers.keys(keeper)
        for data_key, kid, wrapped in rows:
            assert await keys.unwrap(kid, wrapped, "con_1") == data_key


async def test_aws_takes_an_arn_and_an_alias_as_well(keepers: Keepers) -> None:
    arn = await keepers.aws.make_key("postledger")
    for setting in (f"aws:{arn}", "aws:alias/postledger"):
        kid, wrapped = await keepers.by(setting).wrap(b"k" * 32, "con_1")
        assert kid == f"aws:{arn}"
        assert await keepers.keys("local").unwrap(kid, wrapped, "con_1") == b"k" * 32


async def test_aws_is_found_by_its_own_environment(keyset: Keyset, aws: AwsKms, monkeypatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL_KMS": aws.endpoint,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    keys = key_encryption(f"aws:{aws.key_id}", keyset)
    assert await keys.unwrap(*await keys.wrap(b"k" * 32, "con_1"), "con_1") == b"k" * 32
    await keys.close()


async def test_the_newest_version_of_an_azure_key_wraps_and_earlier_ones_open(keepers: Keepers) -> None:
    keys = keepers.keys("azure")
    before = await keys.wrap(b"k" * 32, "con_1")
    keepers.azure.rotate()
    assert (await keys.wrap(b"k" * 32, "con_1"))[0] == before[0], "not asked each time"
    await keys.renew()
    after = await keys.wrap(b"k" * 32, "con_1")
    assert after[0].endswith(f"{2:032x}")
    for kid, wrapped in (before, after):
        assert await keys.unwrap(kid, wrapped, "con_1") == b"k" * 32
    pinned = keepers.by(f"{keepers.settings['azure']}/{1:032x}")
    assert (await pinned.wrap(b"k" * 32, "con_1"))[0] == before[0]


async def test_at_azure_wrapping_goes_on_while_the_vault_is_down(keepers: Keepers) -> None:
    keys = keepers.keys("azure")
    kid, wrapped = await keys.wrap(b"k" * 32, "con_1")
    keepers.azure.down = True
    again = await keys.wrap(b"k" * 32, "con_1")
    assert again[0] == kid
    with pytest.raises(KeysUnreachable):
        await keys.unwrap(kid, wrapped, "con_1")
    keepers.azure.down = False
    assert await keys.unwrap(*again, "con_1") == b"k" * 32


async def test_at_azure_a_data_key_that_somebody_else_wrapped_is_refused(keepers: Keepers) -> None:
    """Anybody who can write rows has the public key, and could seal tokens of their own under a data key of their own."""
    azure = keepers.azure
    words = {"verify_challenge_resource": False, "connection_verify": str(azure.authority)}
    async with KeyClient(azure.url, azure.credential, **words) as client:
        key = await client.get_key(azure.name)
    async with CryptographyClient(key, azure.credential, **words) as crypto:
        for plain in (b"k" * 32, b"k" * 64, b""):
            forged = await crypto.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, plain)
            with pytest.raises(Unsealable):
                await keepers.keys("azure").unwrap(f"azure:{forged.key_id}", forged.encrypted_key, "con_1")


async def test_a_key_that_is_gone_is_told_from_one_that_cannot_be_reached(keepers: Keepers) -> None:
    local, aws, azure = [keepers.keys(keeper) for keeper in KEEPERS]
    for keys, kid in (
        (local, "local-00000000"),
        (aws, f"aws:{keepers.aws.key_arn.rpartition('/')[0]}/00000000-0000-0000-0000-000000000000"),
        (azure, f"azure:{keepers.azure.url}/keys/kek/{9:032x}"),
    ):
        _, wrapped = await keys.wrap(b"k" * 32, "con_1")
        with pytest.raises(KeysetError):
            await keys.unwrap(kid, wrapped, "con_1")
    assert issubclass(KeyGone, KeysetError)
    assert not issubclass(KeyGone, UNREACHABLE)


async def test_a_keeper_that_does_not_answer_is_one_of_those_that_are_waited_for(
    keyset: Keyset, aws: AwsKms, free_port: int
) -> None:
    nowhere = {"endpoint_url": f"http://127.0.0.1:{free_port}", **CREDENTIALS}
    keys = key_encryption(f"aws:{aws.key_id}", keyset, aws=nowhere, azure={"retry_total": 0})
    cut = key_encryption(f"azure:https://127.0.0.1:{free_port}/keys/kek", keyset, azure={"retry_total": 0})
    for attempt in (
        keys.wrap(b"k" * 32, "con_1"),
        keys.unwrap(f"aws:{aws.key_arn}", b"x" * 96, "con_1"),
        cut.wrap(b"k" * 32, "con_1"),
    ):
        with pytest.raises(UNREACHABLE) as failed:
            await attempt
        assert isinstance(failed.value, KeysUnreachable)
    await keys.close()
    await cut.close()


async def test_one_that_never_answers_is_given_up_in_seconds(keyset: Keyset) -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    keys = key_encryption("aws:x", keyset, aws={"endpoint_url": endpoint, **CREDENTIALS})
    async with asyncio.timeout(12):
        with pytest.raises(KeysUnreachable):
            await keys.wrap(b"k" * 32, "con_1")
    await keys.close()
    server.close()


@pytest.mark.parametrize("keeper", ["aws", "azure"])
async def test_a_keyring_whose_keys_cannot_be_reached_does_not_take_anything_for_erased(
    keepers: Keepers, keeper: str, database: str, free_port: int
) -> None:
    await migrate(database)
    async with pooled(database, size=2) as pool:
        keys = keepers.keys(keeper)
        made = await Keyring(pool, keys).create_all([f"mbx_{number}" for number in range(20)])
        assert await Keyring(pool, keys).get(made) == made
        assert await Keyring(pool, keys).get([*made, "mbx_gone"]) == made
        keepers.azure.down = True
        cut = keepers.keys(keeper, aws={"endpoint_url": f"http://127.0.0.1:{free_port}", **CREDENTIALS})
        with pytest.raises(UNREACHABLE):
            await Keyring(pool, cut).get(made)


@pytest.mark.parametrize("keeper", ["aws", "azure"])
async def test_no_log_line_however_talkative_shows_a_data_key(keepers: Keepers, keeper: str, caplog) -> None:
    with caplog.at_level(logging.DEBUG):
        keys = keepers.keys(keeper)
        await keys.unwrap(*await keys.wrap(b"never in any log, 32 bytes long.", "con_1"), "con_1")
    said = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert not has_any(said, "never in any log, 32 bytes long.")


@pytest.mark.parametrize("setting", ["", "aws", "aws:", "local:x", "azure:", "azure:http://x/keys/y", "gcp:x"])
def test_a_setting_that_is_none_is_said_so(keyset: Keyset, setting: str) -> None:
    with pytest.raises(KeysetError, match="POSTLEDGER_KMS"):
        key_encryption(setting, keyset)


def test_who_keeps_keys_locally_loads_no_cloud(tmp_path: Path) -> None:
    """`up` must be ready in seconds."""
    program = (
        "import sys; from pathlib import Path; from gateways.stores.keyset import open_keyset; "
        "from gateways.stores.kms_chosen import key_encryption; import gateways.stores.vault; "
        f"key_encryption('local', open_keyset(Path({str(tmp_path / 'k.json')!r}))); "
        "print([name for name in sys.modules if name.split('.')[0] in ('botocore', 'aiobotocore', 'azure', 'boto3')])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"
