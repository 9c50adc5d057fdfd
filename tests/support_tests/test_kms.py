"""The two key services of the tests, judged by aiobotocore and by azure-keyvault-keys."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.keyvault.keys.aio import KeyClient
from azure.keyvault.keys.crypto import KeyWrapAlgorithm
from azure.keyvault.keys.crypto.aio import CryptographyClient
from botocore.exceptions import ClientError

from tests.support.kms.aws import AwsKms
from tests.support.kms.key_vault import KeyVault

CONTEXT = {"purpose": "tokens", "account": "a-1"}
OAEP = KeyWrapAlgorithm.rsa_oaep_256


@pytest.fixture(scope="module")
async def kms() -> AsyncIterator[AwsKms]:
    async with AwsKms() as server:
        yield server


async def test_a_data_key_opens_only_with_its_context(kms: AwsKms) -> None:
    async with kms.client() as client:
        made = await client.generate_data_key(KeyId=kms.key_id, KeySpec="AES_256", EncryptionContext=CONTEXT)
        sealed = made["CiphertextBlob"]
        opened = await client.decrypt(CiphertextBlob=sealed, EncryptionContext=CONTEXT)
        assert opened["Plaintext"] == made["Plaintext"]
        assert opened["KeyId"] == kms.key_arn
        for other in ({}, CONTEXT | {"account": "a-2"}):
            with pytest.raises(ClientError, match="InvalidCiphertextException"):
                await client.decrypt(CiphertextBlob=sealed, EncryptionContext=other)


async def test_a_key_has_an_alias(kms: AwsKms) -> None:
    arn = await kms.make_key("other")
    async with kms.client() as client:
        assert (await client.describe_key(KeyId="alias/other"))["KeyMetadata"]["Arn"] == arn


@pytest.fixture
async def vault() -> AsyncIterator[KeyVault]:
    async with KeyVault() as server:
        yield server


@asynccontextmanager
async def crypto(vault: KeyVault, version: str | None = None) -> AsyncIterator[CryptographyClient]:
    words = {"verify_challenge_resource": False, "connection_verify": str(vault.authority), "retry_total": 0}
    async with AsyncExitStack() as opened:
        keys = await opened.enter_async_context(KeyClient(vault.url, vault.credential, **words))
        key = await keys.get_key(vault.name, version)
        yield await opened.enter_async_context(CryptographyClient(key, vault.credential, **words))


async def test_the_vault_challenges_first_and_unwraps_what_the_client_wrapped(vault: KeyVault) -> None:
    dek = os.urandom(32)
    async with crypto(vault) as client:
        wrapped = await client.wrap_key(OAEP, dek)
        assert (await client.unwrap_key(OAEP, wrapped.encrypted_key)).key == dek
        assert wrapped.key_id.startswith(f"{vault.url}/keys/kek/")
        with pytest.raises(HttpResponseError, match="BadParameter"):
            await client.unwrap_key(OAEP, os.urandom(256))
    assert vault.requests[:2] == ["GET /keys/kek/"] * 2
    assert sum("unwrapkey" in request for request in vault.requests) >= 2
    assert vault.credential.asked >= 1


async def test_an_old_version_opens_what_it_closed_until_it_is_gone(vault: KeyVault) -> None:
    dek = os.urandom(32)
    async with crypto(vault) as client:
        wrapped = await client.wrap_key(OAEP, dek)
    vault.rotate()
    async with crypto(vault) as client:
        assert client.key_id != wrapped.key_id
    old = wrapped.key_id.rpartition("/")[2]
    async with crypto(vault, old) as client:
        assert (await client.unwrap_key(OAEP, wrapped.encrypted_key)).key == dek
        vault.forget(old)
        with pytest.raises(ResourceNotFoundError):
            await client.unwrap_key(OAEP, wrapped.encrypted_key)


async def test_the_vault_can_be_down(vault: KeyVault) -> None:
    async with crypto(vault) as client:
        wrapped = await client.wrap_key(OAEP, b"0" * 32)
        vault.down = True
        with pytest.raises(HttpResponseError, match="The vault is down"):
            await client.unwrap_key(OAEP, wrapped.encrypted_key)
        vault.down = False
        assert (await client.unwrap_key(OAEP, wrapped.encrypted_key)).key == b"0" * 32
