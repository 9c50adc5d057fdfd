"""Making a user: the data key first, then the command, as for mailboxes.

What is sealed under a data key must never be in the log before the key is in the keyring. Where no user came of the request
for certain, the key is destroyed again; where the outcome is unknown it stays.
"""

from dataclasses import dataclass
from typing import Final

import orjson
from starlette.requests import Request

from domain.fields import Digest
from domain.users import CreateUser, UserCreated, UserRefused
from gateways.http import parameters, problems
from gateways.http.asking import read_back, settled
from gateways.http.json_bodies import json_object
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.v1.bodies import Faults, Members
from gateways.http.who import Caller
from gateways.log.command_log import NotPromised
from gateways.log.decisions import Asked, Decision
from gateways.stores.keyset import Keyset
from gateways.stores.sealing import place, seal
from projections import users
from projections.users import UserRow
from schemas import topics
from schemas.ids import new_id

ROUTE: Final = "POST /v1/users"
DISPLAY_NAME_CHARACTERS: Final = 256
EXTERNAL_ID_CHARACTERS: Final = 255
TAKEN: Final = {
    "email_taken": "Another user of the account has this e-mail address.",
    "external_id_taken": "Another user of the account has this external id.",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request says of the user to be; `external_id` is empty where there is none."""

    email: str
    display_name: str
    external_id: str
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class Made:
    """The user there is now; `replayed` where an idempotency key stood for them already."""

    row: UserRow
    log_position: str
    replayed: bool


async def make_user(services: Services, request: Request, caller: Caller) -> Made:
    """Makes the user that the request's body tells of. Raises a Problem, and what Decisions.ask raises."""
    wanted = await _wanted(request)
    user = new_id("usr")
    command = _command(services.keyset, caller.owner, user, await services.keyring.create(user), wanted)
    asked = Asked(topics.ACCOUNT_COMMANDS.name, caller.owner, user, command, users.PROJECTION.name)
    try:
        decision = await settled(services.account_decisions, request, asked)
    except (NotPromised, Problem):
        await services.keyring.destroy(user)
        raise
    if not isinstance(decision.event, UserCreated):
        await services.keyring.destroy(user)
        user = _made_before(decision)
    row = await read_back(users.by_id(services.pool, caller.owner, user))
    if row is None:
        raise Problem("gone", "The user that this made has been deleted since.")
    return Made(row, decision.log_position, replayed=user != command.user)


async def _wanted(request: Request) -> Wanted:
    """Raises a Problem (400) that tells all that is wrong."""
    faults = Faults()
    members = Members(await json_object(request), ("email", "displayName", "externalId"), faults)
    wanted = Wanted(
        members.address("email"),
        members.text("displayName", most=DISPLAY_NAME_CHARACTERS),
        members.text("externalId", most=EXTERNAL_ID_CHARACTERS, required=False),
        faults.tried(lambda: parameters.idempotency_key(request)),
    )
    faults.refuse()
    return wanted


def _command(keyset: Keyset, account: str, user: str, data_key: bytes, wanted: Wanted) -> CreateUser:
    key, external_id = wanted.idempotency_key, wanted.external_id
    return CreateUser(
        account=account,
        user=user,
        email=seal(data_key, wanted.email.encode(), place("user", user, "email")),
        email_digest=email_digest(keyset, account, wanted.email),
        display_name=seal(data_key, wanted.display_name.encode(), place("user", user, "displayName")),
        external_id=seal(data_key, external_id.encode(), place("user", user, "externalId")) if external_id else None,
        external_id_digest=external_id_digest(keyset, account, external_id) if external_id else None,
        idempotency_key=keyset.digest("idempotency", account, ROUTE, key) if key else None,
        request=_request_digest(keyset, account, wanted) if key else None,
    )


def email_digest(keyset: Keyset, account: str, email: str) -> Digest:
    """Finds a user of the account by their address, in any case."""
    return keyset.digest("user-email", account, email.lower())


def external_id_digest(keyset: Keyset, account: str, external_id: str) -> Digest:
    """Finds a user of the account by their external id, letter by letter."""
    return keyset.digest("user-external-id", account, external_id)


def _request_digest(keyset: Keyset, account: str, wanted: Wanted) -> Digest:
    """What makes a repetition the same request: what it says, in any order and with any spaces between."""
    said = orjson.dumps([wanted.email, wanted.display_name, wanted.external_id]).decode()
    return keyset.digest("idempotency", "request", account, ROUTE, said)


def _made_before(decision: Decision) -> str:
    """The user that the idempotency key stands for. Raises a Problem where nothing was made."""
    match decision.event:
        case UserRefused(reason="repeated", of=str(earlier)):
            return earlier
        case UserRefused(reason="email_taken" | "external_id_taken" as code, of=other):
            raise Problem(code, TAKEN[code], more={"userId": other})
        case UserRefused(reason="idempotency_key_reused"):
            raise Problem("idempotency_key_reused", "This idempotency key already stands for another request.")
        case _:
            raise problems.unavailable()
