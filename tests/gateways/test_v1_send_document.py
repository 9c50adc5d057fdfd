"""What `/openapi.json` says of a mail's attachments is what is taken."""

from typing import Any

import pytest
from pydantic import ValidationError

from gateways.http.problems import Problem
from gateways.http.v1.bodies import Faults
from gateways.http.v1.send_bodies import attachments_of
from gateways.http.v1.send_shapes import A_REQUEST, NewSend


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (None, []),
        ([], []),
        (["att_1", "att_2", "att_1"], ["att_1", "att_2"]),
        (["att_1", {"id": "att_2"}, {"attachmentId": "att_1"}], ["att_1", "att_2"]),
        ("att_1", None),
        ({"id": "att_1"}, None),
        ([{}], None),
        ([{"id": 1}], None),
        ([{"id": "att_1", "attachmentId": "att_1"}], None),
        ([{"name": "att_1"}], None),
        ([["att_1"]], None),
        ([None], None),
    ],
)
def test_attachments_are_taken_as_the_document_says(said: Any, taken: list[str] | None) -> None:
    faults, whole = Faults(), {**A_REQUEST, "attachments": said}
    found = attachments_of(said, faults)
    if taken is None:
        with pytest.raises(Problem):
            faults.refuse()
        with pytest.raises(ValidationError):
            NewSend.model_validate(whole)
    else:
        faults.refuse()
        assert found == taken
        NewSend.model_validate(whole)
