"""Settings that make no sense end in one sentence that names them, before anything is started."""

from pathlib import Path

import pytest

from gateways.settings import SettingsError, read_settings
from tests.support.main_words import Installed

SENSELESS = [
    ("KMS", "vault"),
    ("KMS", "aws:"),
    ("KMS", "aws:not an id"),
    ("KMS", "azure:https://vault.example.org"),
    ("KMS", "azure:http://vault.example.org/keys/name"),
    ("PUBLIC_URL", "mail.example.org"),
    ("PUBLIC_URL", "https://"),
    ("PUBLIC_URL", "ftp://mail.example.org"),
    ("PUBLIC_URL", "https://mail.example.org/?a=b"),
    ("PUBLIC_URL", "https://ann@mail.example.org"),
    ("RETURN_URLS", "nonsense"),
    ("RETURN_URLS", "https://app.example.org,javascript:alert(1)"),
    ("ALLOW_PRIVATE_HOSTS", "yes"),
    ("ALLOW_PRIVATE_HOSTS", "2"),
    ("PROVIDER_TIMEOUT", "0"),
    ("PROVIDER_TIMEOUT", "nan"),
    ("BLOBS", "gs://bucket"),
    ("BLOBS", "s3://"),
    ("BLOBS", "s3://bucket?region=x"),
    ("BLOBS_ENDPOINT", "minio:9000"),
    ("ATTACHMENT_DAYS", "0"),
    ("ATTACHMENT_DAYS", "inf"),
    ("LINK_SECONDS", "0"),
    ("KEY_MAX_AGE", "0"),
    ("KEY_MAX_AGE", "90d"),
    ("GOOGLE_TOKEN_URL", "token"),
    ("MICROSOFT_TENANT", "../x"),
    ("GOOGLE_CLIENT_SECRET_FILE", "/nowhere/at/all"),
    ("GOOGLE_CLIENT_SECRET_FILE", "/"),
]


@pytest.mark.parametrize(("name", "value"), SENSELESS)
def test_what_makes_no_sense_is_named_in_one_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({f"POSTLEDGER_{name}": value})
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith(f"POSTLEDGER_{name}: ")
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KMS", "local"),
        ("KMS", "aws:alias/postledger"),
        ("KMS", "aws:1234abcd-12ab-34cd-56ef-1234567890ab"),
        ("KMS", "aws:mrk-1234abcd12ab34cd56ef1234567890ab"),
        ("KMS", "aws:arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        ("KMS", "aws:arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/postledger"),
        ("KMS", "azure:https://our-vault.vault.azure.net/keys/kek"),
        ("KMS", "azure:https://127.0.0.1:8443/keys/kek/0123456789abcdef"),
        ("PUBLIC_URL", "https://mail.example.org/below/this"),
        ("PUBLIC_URL", "http://[::1]:8080"),
        ("RETURN_URLS", "https://app.example.org/done, http://localhost:3000"),
        ("ALLOW_PRIVATE_HOSTS", "1"),
        ("BLOBS", "/var/lib/blobs"),
        ("BLOBS", "s3://our-bucket/below/this"),
        ("BLOBS", "az://our-container"),
        ("MICROSOFT_TENANT", "example.onmicrosoft.com"),
        ("MICROSOFT_ISSUER", "https://login.microsoftonline.com/{tenantid}/v2.0"),
    ],
)
def test_what_makes_sense_is_taken_as_it_is(name: str, value: str) -> None:
    settings = read_settings({f"POSTLEDGER_{name}": value})
    said = getattr(settings, name.lower())
    assert (str(int(said)) if isinstance(said, bool) else said) == value


def test_a_slash_at_the_end_of_a_root_is_none() -> None:
    assert (
        read_settings({"POSTLEDGER_PUBLIC_URL": "https://mail.example.org/"}).public_url == "https://mail.example.org"
    )


def test_a_secret_of_an_empty_file_name_is_none(tmp_path: Path) -> None:
    """As compose passes on what nobody set."""
    assert read_settings({"POSTLEDGER_GOOGLE_CLIENT_SECRET_FILE": ""}).google_client_secret is None
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"^POSTLEDGER_GOOGLE_CLIENT_SECRET_FILE: .* \(it is no text\)\.$"):
        read_settings({"POSTLEDGER_GOOGLE_CLIENT_SECRET_FILE": str(tmp_path / "secret")})


def test_nothing_is_started_with_them(tmp_path: Path) -> None:
    here = Installed.at(
        tmp_path / "data", kafka="127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x", topic_prefix=""
    )
    for word in ("up", "http", "work"):
        here.environment["POSTLEDGER_RETURN_URLS"] = "nonsense"
        said = here.says(word)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("POSTLEDGER_RETURN_URLS: must be URLs separated by commas: nonsense")
        assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "data" / "keyset.json").exists()
