"""Every setting there is: environment variables that begin with `POSTLEDGER_`, read once, by `main.py` alone.

A secret may be named by a file instead (`POSTLEDGER_DATABASE_URL_FILE`). A variable with our prefix that is none of ours is
an error, so that a misspelt one is not silently ignored.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

PREFIX: Final = "POSTLEDGER_"
STANDS_IN: Final = "Another server may stand in for the real one."
OF_TENANT: Final = "That of the tenant at login.microsoftonline.com by default."


class SettingsError(Exception):
    """The settings can't be used; each line says which and why."""


def _host_and_port(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:8080")
    return text


def _domain(text: str) -> str:
    if not text or "@" in text or " " in text:
        raise ValueError("must be a domain, such as mail.example.org")
    return text.lower()


def _web_address(text: str) -> str:
    if text and not WEB_ADDRESS.fullmatch(text):
        raise ValueError("must be a URL, such as https://mail.example.org/path")
    return text


def _root(text: str) -> str:
    if "?" in text or "#" in text:
        raise ValueError("must be a URL without ? and #, such as https://mail.example.org")
    return _web_address(text).rstrip("/")


def _places(text: str) -> str:
    if text:
        from gateways.http.connect.return_urls import ReturnUrls  # noqa: PLC0415 - by those only who have such places

        try:
            ReturnUrls.of(text)
        except ValueError as error:
            raise ValueError(f"must be URLs separated by commas: {str(error).rstrip('.')}") from None
    return text


def _zero_or_one(said: object) -> object:
    if said not in ("0", "1", False, True):
        raise ValueError("must be 0 or 1")
    return said


def _tenant(text: str) -> str:
    if not TENANT.fullmatch(text):
        raise ValueError("must be common, organizations, consumers, or the id or domain of a tenant")
    return text


def _keeper(text: str) -> str:
    if not KEEPER.fullmatch(text):
        raise ValueError(
            "must be local, aws:KEY (an id, an ARN or alias/NAME) or azure:https://VAULT/keys/NAME (or with /VERSION)"
        )
    return text


def _blob_store(text: str) -> str:
    if "://" in text and not BUCKET.fullmatch(text):
        raise ValueError("must be a folder, s3://BUCKET[/PREFIX] or az://CONTAINER[/PREFIX]")
    return text


BUCKET: Final = re.compile(r"(s3|az)://[A-Za-z0-9][A-Za-z0-9._-]{1,62}(/[A-Za-z0-9._/-]*)?", re.ASCII)
WEB_ADDRESS: Final = re.compile(
    r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?([/?][^\s\"<>\\^`|]*)?", re.ASCII
)
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*", re.ASCII)
KEEPER: Final = re.compile(
    r"local|aws:(arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+|alias/[A-Za-z0-9/_-]+|[A-Za-z0-9-]+)"
    r"|azure:https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/keys/[A-Za-z0-9-]+(/[A-Za-z0-9]+)?/?",
    re.ASCII,
)
WebAddress = Annotated[str, AfterValidator(_web_address)]
Address = Annotated[str, AfterValidator(_host_and_port)]


class Settings(BaseModel):
    """One installation's settings; the description of each is what `main.py settings` prints."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(Path(".data"), description="Folder of everything this machine keeps.")
    kafka: str | None = Field(None, description="Kafka servers, host:port[,…]; without it `up` starts one.")
    database_url: SecretStr | None = Field(None, description="postgresql://… ; without it `up` starts one.")
    http: Address = Field("127.0.0.1:8080", description="Where HTTP listens.")
    smtp: Address = Field("127.0.0.1:2525", description="Where SMTP listens.")
    mail_domain: Annotated[str, AfterValidator(_domain)] = Field(
        "mail.localhost", description="The domain of the addresses that are given out."
    )
    keyset: Path | None = Field(
        None, description="The keyset file; <data>/keyset.json by default, made on first start."
    )
    blobs: Annotated[str, AfterValidator(_blob_store)] = Field(
        "",
        description="Where large mails and attachments are: a folder, s3://BUCKET[/PREFIX] or az://CONTAINER[/PREFIX]; "
        "<data>/blobs by default.",
    )
    blobs_endpoint: WebAddress = Field("", description="Another server that stands in for that cloud's.")
    attachment_days: float = Field(
        7, gt=0, le=3650, allow_inf_nan=False, description="Days after which an attachment that no send has named ends."
    )
    rates: Literal["on", "off"] = Field("on", description="Rate limits; `off` lifts them for load tests.")
    creations_per_minute: int = Field(
        60, ge=1, le=1_000_000, description="Inboxes that one address of origin may open in a minute."
    )
    requests_per_second: int = Field(
        100, ge=1, le=1_000_000, description="Requests that one API key may send in a second."
    )
    sends_per_minute: int = Field(
        60, ge=1, le=1_000_000, description="Mails that may be sent for one user in a minute."
    )
    proxies: str = Field(
        "",
        description="Addresses or networks, separated by commas, of the proxies before HTTP: their X-Forwarded-For says "
        "where a request is from.",
    )
    smtp_connections: int = Field(200, ge=1, le=10_000, description="SMTP connections at once.")
    smtp_connections_per_client: int = Field(
        20,
        ge=1,
        le=10_000,
        description="SMTP connections at once from one address; a balancer before SMTP is one address.",
    )
    sns_topics: str = Field("", description="ARNs of the SNS topics whose mail is taken, separated by commas.")
    tls_certificate: Path | None = Field(
        None, description="PEM certificate chain for STARTTLS; self-signed without it."
    )
    tls_key: Path | None = Field(None, description="PEM key of that certificate.")
    topic_prefix: str = Field("", description="What names of topics and groups begin with, on a shared Kafka.")
    partitions: int | None = Field(
        None, ge=1, le=256, description="Partitions of new topics; 1 alone, 12 in a cluster."
    )
    parsers: int = Field(1, ge=1, le=64, description="Child processes that parse mail, in each worker.")
    public_url: Annotated[str, AfterValidator(_root)] = Field(
        "", description="Where browsers find this installation, https://…; http:// and the address of HTTP without it."
    )
    return_urls: Annotated[str, AfterValidator(_places)] = Field(
        "", description="Where users may be sent back to after connecting a mailbox, URLs separated by commas."
    )
    allow_private_hosts: Annotated[bool, BeforeValidator(_zero_or_one)] = Field(
        False, description="1: mail servers of users may be private or loopback hosts, and do without TLS."
    )
    provider_timeout: float = Field(30, gt=0, le=600, description="Seconds that one call to a provider may take.")
    webhook_timeout: float = Field(
        15, gt=0, le=60, description="Seconds that a receiver of webhooks has for its answer."
    )
    retry_scale: float = Field(1, gt=0, le=100, description="A factor on every wait of ours, for tests.")
    google_client_id: str = Field("", description="The client at Google that Gmail is connected by.")
    google_client_secret: SecretStr | None = Field(None, description="Its secret.")
    google_authorize_url: WebAddress = Field("https://accounts.google.com/o/oauth2/v2/auth", description=STANDS_IN)
    google_token_url: WebAddress = Field("https://oauth2.googleapis.com/token", description=STANDS_IN)
    google_revoke_url: WebAddress = Field("https://oauth2.googleapis.com/revoke", description=STANDS_IN)
    google_jwks_url: WebAddress = Field("https://www.googleapis.com/oauth2/v3/certs", description=STANDS_IN)
    google_issuer: WebAddress = Field("https://accounts.google.com", description="Who signs Google's ID tokens.")
    google_api_url: WebAddress = Field("https://gmail.googleapis.com", description="Root of Gmail's API.")
    microsoft_client_id: str = Field("", description="The client at Microsoft that Outlook is connected by.")
    microsoft_client_secret: SecretStr | None = Field(None, description="Its secret.")
    microsoft_tenant: Annotated[str, AfterValidator(_tenant)] = Field(
        "common", description="Whose accounts: common, organizations, consumers, or an id."
    )
    microsoft_authorize_url: WebAddress = Field("", description=OF_TENANT)
    microsoft_token_url: WebAddress = Field("", description=OF_TENANT)
    microsoft_revoke_url: WebAddress = Field("", description="Microsoft has none; empty.")
    microsoft_jwks_url: WebAddress = Field("", description=OF_TENANT)
    microsoft_issuer: str = Field("", description="Who signs Microsoft's ID tokens; that of each tenant by default.")
    microsoft_graph_url: WebAddress = Field("https://graph.microsoft.com/v1.0", description="Root of Microsoft Graph.")
    kms: Annotated[str, AfterValidator(_keeper)] = Field(
        "local",
        description="What wraps data keys: local (the keyset file), aws:KEY (id, ARN or alias), or azure:URL of a key.",
    )
    link_seconds: int = Field(
        300, ge=1, le=604_800, description="Seconds for which a signed link to an attachment opens it."
    )
    key_max_age: int = Field(90, ge=1, le=3650, description="Days after which key-encryption keys are rotated.")
    operations: Address | None = Field(
        None,
        description="Where the roles smtp, work and project (with `up`: its workers) answer /livez, /readyz and "
        "/metrics; nowhere without it.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe log line shown."
    )

    def beside(self, kafka: str, database_url: str) -> "Settings":
        """These, with the servers of a running `up` where none are named."""
        found = {"kafka": kafka, "database_url": SecretStr(database_url)}
        return self.model_copy(update={name: value for name, value in found.items() if getattr(self, name) is None})

    def plain(self, name: str) -> Any:
        """One setting as it is used: a secret's own text."""
        value = getattr(self, name)
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    @property
    def keyset_path(self) -> Path:
        return self.keyset or self.data / "keyset.json"

    @property
    def blobs_path(self) -> Path:
        return Path(self.blobs) if self.blobs else self.data / "blobs"

    @property
    def http_address(self) -> tuple[str, int]:
        return _split(self.http)

    @property
    def operations_address(self) -> tuple[str, int] | None:
        return _split(self.operations) if self.operations else None

    @property
    def listening(self) -> dict[str, tuple[str, int]]:
        """Where an `up` listens, by the settings that say so."""
        found = {"http": self.http_address, "smtp": self.smtp_address, "operations": self.operations_address}
        return {PREFIX + name.upper(): address for name, address in found.items() if address is not None}

    @property
    def smtp_address(self) -> tuple[str, int]:
        return _split(self.smtp)


SECRETS: Final = frozenset(name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation))


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings as the environment names them. Raises SettingsError."""
    given: dict[str, Any] = {}
    problems = []
    for variable, value in environment.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name.endswith("_file") and name.removesuffix("_file") in SECRETS:
            if value:
                try:
                    given[name.removesuffix("_file")] = Path(value).read_text().strip()
                except (OSError, ValueError) as error:
                    cause = error.strerror if isinstance(error, OSError) else "it is no text"
                    problems.append(f"{variable}: {value} can't be read ({cause}).")
        elif name in Settings.model_fields:
            given[name] = value or None
        else:
            problems.append(f"{variable} is no setting of Postledger's: `python main.py settings` lists them.")
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problems += [
            f"{PREFIX}{str(found['loc'][0]).upper()}: {found['msg'].removeprefix('Value error, ')}."
            for found in error.errors(include_url=False, include_input=False)
        ]
        settings = Settings()
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def describe(settings: Settings) -> list[dict[str, str]]:
    """Name, type, default, present value (secrets hidden) and meaning of every setting."""
    return [
        {
            "name": PREFIX + name.upper(),
            "type": _type_of(field.annotation),
            "default": _shown(field.default),
            "value": "***" if name in SECRETS and getattr(settings, name) else _shown(getattr(settings, name)),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _type_of(annotation: Any) -> str:
    """As an operator would say it: `path`, `number`, `on | off`, `text`."""
    inner = [kind for kind in get_args(annotation) if kind is not type(None)] if annotation is not None else []
    if get_origin(annotation) is Literal:
        return " | ".join(inner)
    kind = inner[0] if inner and get_origin(annotation) is not Annotated else annotation
    names = {Path: "path", int: "number", float: "number", bool: "0 | 1", SecretStr: "secret"}
    return names.get(kind, "text")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return "" if value is None else str(value)
