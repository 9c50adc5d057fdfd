"""ID tokens that prove nothing: each is refused, and only the good one beside them is not (J-06)."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc.jwk import ECKey, RSAKey
from yarl import URL

from gateways.providers.calls import Answer, CallFailed
from gateways.providers.id_tokens import IdTokenInvalid, IdTokens, Issuer, Keys
from gateways.providers.microsoft import CONSUMERS, issuer_of

ISSUER, CLIENT, NONCE = "https://accounts.google.com", "client-1", "nonce-1"
TENANT, OTHER_TENANT = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
RSA, FOREIGN, ANOTHER = (RSAKey.generate_key(2048) for _ in range(3))
EC = ECKey.generate_key("P-256")
GOOD: dict[str, Any] = {"iss": ISSUER, "aud": CLIENT, "sub": "123", "nonce": NONCE, "email": "alice@gmail.test"}


class Jwks:
    """Stands where calls go: answers with the keys it has been given, and counts how often it is asked."""

    def __init__(self, keys: dict[str, RSAKey | ECKey]) -> None:
        self.keys = keys
        self.asked = 0
        self.status = 200

    async def get(self, provider: str, operation: str, url: URL, access_token: str | None = None) -> Answer:
        self.asked += 1
        listed = [{**key.as_dict(private=False), "kid": name} for name, key in self.keys.items()]
        strange = [
            None,
            1,
            {},
            {"kty": "new", "kid": "x"},
            {"kty": "RSA", "kid": "y"},
            {"kty": "oct", "k": "YQ", "kid": "o"},
        ]
        return Answer(self.status, {"keys": [*strange, *listed]})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def jwks() -> Jwks:
    return Jwks({"r": RSA, "e": EC})


def judge_of(jwks: Jwks, issuer: Issuer | None = None, clock: Clock | None = None) -> IdTokens:
    keys = Keys(jwks, "gmail", URL("https://keys.example/"), clock or Clock())  # type: ignore[arg-type]  # stands in
    return IdTokens(keys, issuer or Issuer(ISSUER, frozenset({"accounts.google.com"})), CLIENT)


def encoded(value: object) -> str:
    return in_base64(json.dumps(value).encode())


def in_base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def signed(*, header: dict[str, Any] | None = None, key: RSAKey | ECKey = RSA, **claims: Any) -> str:
    """By hand: no library signs what is wrong on purpose. A claim or a word of the header that is None is left out."""
    now = int(time.time())
    words = {"alg": "RS256", "kid": "r"} if isinstance(key, RSAKey) else {"alg": "ES256", "kid": "e"}
    said = {**GOOD, "iat": now, "exp": now + 3600, **claims}
    text = ".".join(
        encoded({name: value for name, value in part.items() if value is not None})
        for part in ({**words, **(header or {})}, said)
    )
    return f"{text}.{in_base64(proof_of(key, text.encode()))}"


def proof_of(key: RSAKey | ECKey, text: bytes) -> bytes:
    if isinstance(key, RSAKey):
        return key.private_key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(key.private_key.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def by_hand(header: dict[str, Any], secret: bytes | None) -> str:
    now = int(time.time())
    text = f"{encoded(header)}.{encoded({**GOOD, 'iat': now, 'exp': now + 3600})}"
    return f"{text}.{in_base64(b'' if secret is None else hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


async def refused(token: str, jwks: Jwks, issuer: Issuer | None = None) -> str:
    with pytest.raises(IdTokenInvalid) as caught:
        await judge_of(jwks, issuer).judge(token, NONCE)
    return str(caught.value)


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
async def test_a_good_token_is_believed(key: RSAKey | ECKey, jwks: Jwks) -> None:
    claims = await judge_of(jwks).judge(signed(key=key), NONCE)
    assert (claims.issuer, claims.subject, claims.all["email"]) == (ISSUER, "123", "alice@gmail.test")
    assert "alice" not in repr(claims)


async def test_both_spellings_of_google_are_one_issuer(jwks: Jwks) -> None:
    assert (await judge_of(jwks).judge(signed(iss="accounts.google.com"), NONCE)).issuer == ISSUER


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://accounts.google.com/"}, "iss"),
        ({"iss": "http://accounts.google.com"}, "iss"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "client-2"}, "aud"),
        ({"aud": ["client-2"]}, "aud"),
        ({"aud": [CLIENT, "client-2"]}, "aud"),
        ({"aud": None}, "aud"),
        ({"azp": "client-2"}, "azp"),
        ({"azp": 1}, "azp"),
        ({"nonce": "another"}, "nonce"),
        ({"nonce": ""}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"nonce": 1}, "nonce"),
        ({"nonce": [NONCE]}, "nonce"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"exp": 1}, "time"),
        ({"exp": None}, "time"),
        ({"exp": "tomorrow"}, "time"),
        ({"exp": int(time.time()) - 120}, "time"),
        ({"iat": int(time.time()) + 7200}, "time"),
        ({"iat": None}, "time"),
        ({"nbf": int(time.time()) + 7200}, "time"),
    ],
)
async def test_a_claim_that_is_wrong_is_enough(claims: dict[str, Any], why: str, jwks: Jwks) -> None:
    assert await refused(signed(**claims), jwks) == why


async def test_clocks_may_differ_a_little(jwks: Jwks) -> None:
    now = int(time.time())
    assert await judge_of(jwks).judge(signed(exp=now - 30, iat=now + 30), NONCE)


@pytest.mark.parametrize(
    "token",
    [
        by_hand({"alg": "none"}, None),
        by_hand({"alg": "none", "kid": "r"}, None),
        by_hand({"alg": "None", "kid": "r"}, None),
        by_hand({"alg": "HS256", "kid": "r"}, RSA.as_pem(private=False)),
        by_hand({"alg": "HS256", "kid": "r"}, json.dumps(RSA.as_dict(private=False)).encode()),
        by_hand({"alg": "HS256", "kid": "o"}, b"a"),
        by_hand({"alg": "RS256", "kid": "r"}, b"a"),
        by_hand({"alg": "RS256", "kid": "o"}, b"a"),
        signed(key=FOREIGN),
        signed(header={"kid": None}),
        signed(header={"kid": 1}),
        signed(header={"kid": "unknown"}),
        signed(header={"kid": "e"}),
        signed(header={"alg": "PS256"}),
        signed(header={"crit": ["exp"]}),
        signed(key=FOREIGN, header={"jwk": FOREIGN.as_dict(private=False)}),
        signed(key=FOREIGN, header={"jku": "https://evil.example/keys"}),
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        signed() + "a",
        "a." + signed(),
        ".".join([*signed().split(".")[:2], ""]),
        ".".join([encoded({"alg": "RS256", "kid": "r"}), encoded({**GOOD, "exp": 9**10}), signed().split(".")[2]]),
        encoded([1]) + ".e30.",
    ],
)  # fmt: skip
async def test_a_token_that_is_not_signed_by_the_issuer_is_refused(token: str, jwks: Jwks) -> None:
    assert await refused(token, jwks)


# ── the issuer of many tenants ────────────────────────────────────────────────────────────────────────────────────────


def of_tenant(tenant: str) -> str:
    return f"https://login.microsoftonline.com/{tenant}/v2.0"


async def test_microsoft_s_issuer_is_that_of_the_token_s_own_tenant(jwks: Jwks) -> None:
    common = Issuer(issuer_of("common"))
    found = await judge_of(jwks, common).judge(signed(iss=of_tenant(TENANT), tid=TENANT), NONCE)
    assert found.issuer == of_tenant(TENANT)
    for iss, tid in [
        (of_tenant(TENANT), OTHER_TENANT),
        (of_tenant(TENANT), None),
        (of_tenant("{tenantid}"), "{tenantid}"),
        (of_tenant("common"), "common"),
        ("https://login.microsoftonline.com/x/v2.0", "x"),
        (f"https://evil.example/{TENANT}/v2.0", TENANT),
        (of_tenant(TENANT), [TENANT]),
    ]:
        assert await refused(signed(iss=iss, tid=tid), jwks, common) == "iss"


async def test_one_tenant_is_one_issuer(jwks: Jwks) -> None:
    mine = Issuer(issuer_of(TENANT))
    assert await judge_of(jwks, mine).judge(signed(iss=of_tenant(TENANT), tid=TENANT), NONCE)
    assert await refused(signed(iss=of_tenant(OTHER_TENANT), tid=OTHER_TENANT), jwks, mine) == "iss"
    assert issuer_of("consumers") == of_tenant(CONSUMERS)


@pytest.mark.parametrize(
    ("named", "good"),
    [
        (of_tenant(TENANT), True),
        (of_tenant("common"), False),
        (of_tenant(TENANT + "/" + TENANT), False),
        ("https://login.microsoftonline.com//v2.0", False),
        (f"https://evil.example/{TENANT}/v2.0", False),
        (of_tenant(TENANT) + "/", False),
        ("", False),
    ],
)
def test_a_callback_names_the_issuer_of_some_tenant(named: str, good: bool) -> None:
    assert Issuer(issuer_of("common")).is_named(named) is good


def test_a_callback_names_the_one_issuer() -> None:
    google = Issuer(ISSUER, frozenset({"accounts.google.com"}))
    assert google.is_named(ISSUER)
    assert google.is_named("accounts.google.com")
    assert not google.is_named("https://accounts.google.com.evil.example")


# ── the keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_keys_are_fetched_once_and_again_for_an_unknown_one_at_most_once_a_minute(jwks: Jwks) -> None:
    clock = Clock()
    judge = judge_of(jwks, clock=clock)
    for _ in range(5):
        await judge.judge(signed(), NONCE)
    assert jwks.asked == 1
    jwks.keys["n"] = ANOTHER
    turned = signed(key=ANOTHER, header={"kid": "n"})
    for clock.now in (1, 30, 59):
        with pytest.raises(IdTokenInvalid):
            await judge.judge(turned, NONCE)
    assert jwks.asked == 1
    clock.now = 60
    assert await judge.judge(turned, NONCE)
    for _ in range(50):
        with pytest.raises(IdTokenInvalid):
            await judge.judge(signed(header={"kid": "guess"}), NONCE)
    assert jwks.asked == 2


async def test_a_key_that_was_withdrawn_is_not_believed_for_ever(jwks: Jwks) -> None:
    clock = Clock()
    judge = judge_of(jwks, clock=clock)
    await judge.judge(signed(), NONCE)
    del jwks.keys["r"]
    await judge.judge(signed(), NONCE)
    clock.now = 3600
    with pytest.raises(IdTokenInvalid):
        await judge.judge(signed(), NONCE)


async def test_keys_that_cannot_be_had_are_no_reason_to_believe_or_to_refuse(jwks: Jwks) -> None:
    jwks.status = 404
    with pytest.raises(CallFailed):
        await judge_of(jwks).judge(signed(), NONCE)
