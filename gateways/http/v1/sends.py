"""Mails that go out by users' own mailboxes: asking for one, looking what has become of it, and changing one's mind.

A mail is sealed under its user's data key, for `place("send", send, "message")`, its callback for `"callback"`.
"""

import re
from typing import Any, Final, cast, get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.send_commands import CancelSend, MoveSend, RedriveSend
from domain.send_events import SendCommandRefused
from gateways.http import parameters, problems
from gateways.http.asking import read_back, settled
from gateways.http.edge import Shortcut
from gateways.http.json_bodies import json_object
from gateways.http.operations import json_response, list_response
from gateways.http.parameters import USER_ID
from gateways.http.positions import LOG_POSITION, after_position
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.v1 import operations, pages, send_operations
from gateways.http.v1.bodies import Faults, Members
from gateways.http.v1.new_sends import make_send
from gateways.http.v1.queries import query_of
from gateways.http.v1.send_bodies import moment, when
from gateways.http.v1.send_json import SendsShown
from gateways.http.v1.send_operations import LARGEST_PAGE, PATH, QUERY, STATUSES
from gateways.http.v1.send_waits import Ends, preferred_wait
from gateways.http.v1.users import NO_STORE
from gateways.http.who import account_caller
from gateways.log.decisions import Asked, Decision
from projections import send_grounds, send_lists, sends
from projections.send_lists import SendRow
from schemas import topics
from schemas.ids import ALPHABET

SEND_ID: Final = re.compile(f"snd_[{ALPHABET}]{{26}}")
"""placeholder"""
