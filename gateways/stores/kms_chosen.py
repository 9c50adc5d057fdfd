"""Which keeper of key-encryption keys wraps, by a setting; each opens what it has wrapped, whatever the setting says now.

So the setting can be changed at any time: `rotate-keys` then brings over what was wrapped before.
"""

from datetime import timedelta
from typing import Any, Final

from gateways.stores import kms_aws, kms_azure
from gateways.stores.keyset import Keyset, KeysetError
from gateways.stores.kms import LocalKeys

Keeper = LocalKeys | kms_aws.AwsKeys | kms_azure.AzureKeys
LOCAL: Final = "local"


class ChosenKeys:
    """Keys of every keeper, one of which wraps."""

    def __init__(self, wrapping: Keeper, keepers: dict[str, Keeper]) -> None:
        self._wrapping = wrapping
        self._keepers = keepers

    async def wrap(self, data_key: bytes, context: str) -> tuple[str, bytes]:
        return await self._wrapping.wrap(data_key, context)

    async def unwrap(self, kid: str, wrapped: bytes, context: str) -> bytes:
        scheme, colon, _ = kid.partition(":")
        return await self._keepers[scheme if colon else LOCAL].unwrap(kid, wrapped, context)

    def is_older_than(self, age: timedelta) -> bool:
        return self._wrapping.is_older_than(age)

    def is_between_keys(self) -> bool:
        return self._wrapping.is_between_keys()

    def has_lost(self, kid: str) -> bool:
        return any(keeper.has_lost(kid) for keeper in self._keepers.values())

    async def renew(self) -> None:
        await self._wrapping.renew()

    async def retire(self) -> None:
        await self._wrapping.retire()

    async def close(self) -> None:
        """Ends every connection."""
        for keeper in self._keepers.values():
            await keeper.close()


def key_encryption(setting: str, keyset: Keyset, *, aws: Any = None, azure: Any = None) -> ChosenKeys:
    """Keys by a setting: `local`, `aws:KEY` (id, ARN or alias), `azure:URL`; raises KeysetError for any other.

    `aws` and `azure` are options of their clients, beyond what the environment says.
    """
    scheme, _, key = setting.partition(":")
    keepers: dict[str, Keeper] = {
        LOCAL: LocalKeys(keyset),
        "aws": kms_aws.AwsKeys(key if scheme == "aws" else None, **(aws or {})),
        "azure": kms_azure.AzureKeys(key if scheme == "azure" else None, keyset, **(azure or {})),
    }
    if (
        scheme not in keepers
        or (scheme == LOCAL) == bool(key)
        or (scheme == "azure" and not key.startswith("https://"))
    ):
        raise KeysetError(f"POSTLEDGER_KMS can be local, aws:KEY or azure:https://VAULT/keys/NAME, not {setting}.")
    return ChosenKeys(keepers[scheme], keepers)
