"""What the log says of itself is no news of anybody's mailbox."""

from domain.outcomes import EventSkipped, InputReset, InputsAdvanced
from gateways.local_servers import Servers
from tests.support.sse_client import sse
from tests.support.streams_house import streams_house


async def test_words_about_the_log_are_told_to_nobody_and_hold_up_nobody(servers: Servers, tmp_path) -> None:
    async with streams_house(servers, tmp_path) as house:
        box = await house.mailbox()
        words = [
            InputsAdvanced({"mailbox.commands": 5, "mail.raw": 2}),
            InputReset("mail.raw", 2, 7, "operator", "it was tried"),
            EventSkipped(10_000, "it was tried"),
        ]
        async with house.serving() as serving, sse(serving.url + box.path, box.bearer) as reader:
            await house.append_all(words, box.owner)
            message = await house.receive(box)
            event = await reader.next()
            assert event is not None
            assert event.facts["message_id"] == message
            assert event.id == house.position(box)
