"""The Graph fake, judged by Microsoft's own client: every route of ours, called by the SDK as it comes (but for retries)."""

import base64
import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.graph.caller import ALICE, BOB, TOKENS, mime
from tests.support.graph.double import GraphFake
from tests.support.waiting import until

pytestmark = [pytest.mark.judges, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ID = "<judged-1@postledger.test>"
PIECE = 320 * 1024
Client = Any


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[GraphFake]:
    async with GraphFake(TOKENS) as graph:
        yield graph


@pytest.fixture
async def graph(running: GraphFake) -> GraphFake:
    await running.reset()
    return running


@pytest.fixture
async def client(graph: GraphFake) -> AsyncIterator[Client]:
    async with httpx().AsyncClient(trust_env=False) as http:
        yield sdk(graph, http)


def httpx() -> Any:
    import httpx as client

    return client


def sdk(graph: GraphFake, http: Any, token: str = "alice") -> Client:
    from kiota_abstractions.authentication import AccessTokenProvider, AllowedHostsValidator
    from kiota_abstractions.authentication.base_bearer_token_authentication_provider import (
        BaseBearerTokenAuthenticationProvider,
    )
    from kiota_http.middleware.options import RetryHandlerOption
    from msgraph import GraphRequestAdapter, GraphServiceClient
    from msgraph.graph_request_adapter import options as as_it_comes
    from msgraph_core import GraphClientFactory

    class Known(AccessTokenProvider):
        async def get_authorization_token(self, uri: str, additional_authentication_context: Any = None) -> str:
            return token

        def get_allowed_hosts_validator(self) -> AllowedHostsValidator:
            return AllowedHostsValidator([])

    never = RetryHandlerOption(max_retries=0, should_retry=False)
    options = {**as_it_comes, RetryHandlerOption.get_key(): never}
    with_middleware = GraphClientFactory.create_with_default_middleware(options=options, client=http)
    adapter = GraphRequestAdapter(BaseBearerTokenAuthenticationProvider(Known()), client=with_middleware)
    adapter.base_url = graph.url
    return GraphServiceClient(request_adapter=adapter)


def preferring(**parameters: Any) -> Any:
    from kiota_abstractions.base_request_configuration import RequestConfiguration

    asked: Any = RequestConfiguration(query_parameters=parameters.get("parameters"))
    asked.headers.add("Prefer", 'IdType="ImmutableId"')
    return asked


def letter(**words: Any) -> Any:
    from msgraph.generated.models.body_type import BodyType
    from msgraph.generated.models.email_address import EmailAddress
    from msgraph.generated.models.item_body import ItemBody
    from msgraph.generated.models.message import Message
    from msgraph.generated.models.recipient import Recipient

    to = [Recipient(email_address=EmailAddress(address=BOB, name="Bob"))]
    body = ItemBody(content_type=BodyType.Html, content="<p>hi</p>")
    return Message(**({"subject": "judged", "body": body, "to_recipients": to} | words))


async def refused(work: Any) -> Any:
    from msgraph.generated.models.o_data_errors.o_data_error import ODataError

    with pytest.raises(ODataError) as caught:
        await work
    return caught.value


async def test_a_draft_is_made_changed_sent_and_found(graph: GraphFake, client: Client) -> None:
    made = await client.me.messages.post(letter(internet_message_id=ID), preferring())
    assert (made.is_draft, made.internet_message_id) == (True, ID)
    one = client.me.messages.by_message_id(made.id)
    changed = await one.patch(letter(subject="changed"), preferring())
    assert (changed.id, changed.subject) == (made.id, "changed")
    await one.send.post(preferring())

    async def arrived() -> bool:
        return not (await one.get(preferring())).is_draft

    await until(arrived)
    found = await one.get(preferring())
    assert (found.id, found.from_.email_address.address) == (made.id, ALICE)
    folder = await client.me.mail_folders.by_mail_folder_id("sentitems").get()
    assert (folder.id, folder.total_item_count) == (found.parent_folder_id, 1)
    names = [folder.display_name for folder in (await client.me.mail_folders.get()).value]
    assert {"Drafts", "Sent Items"} <= set(names)
    raw = await one.content.get(preferring())
    assert b"Message-ID: " + ID.encode() in raw
    await one.delete(preferring())
    error = await refused(one.get(preferring()))
    assert (error.response_status_code, error.error.code) == (404, "ErrorItemNotFound")
    assert error.error.inner_error.request_id
    assert [mail["internetMessageId"] for mail in graph.receipts()] == [ID]


async def test_other_ids_change(client: Client) -> None:
    from msgraph.generated.users.item.messages.item.move.move_post_request_body import MovePostRequestBody

    made = await client.me.messages.post(letter())
    moved = await client.me.messages.by_message_id(made.id).move.post(MovePostRequestBody(destination_id="inbox"))
    assert moved.id != made.id
    assert (await refused(client.me.messages.by_message_id(made.id).get())).response_status_code == 404


async def test_lists_are_filtered_and_paged(client: Client) -> None:
    from msgraph.generated.users.item.messages.messages_request_builder import MessagesRequestBuilder
    from msgraph_core import PageIterator

    for number in range(5):
        await client.me.messages.post(letter(internet_message_id=f"<{number}@x.test>"))
    query = MessagesRequestBuilder.MessagesRequestBuilderGetQueryParameters
    asked = query(filter="internetMessageId eq '<3@x.test>'", select=["id", "isDraft", "internetMessageId"])
    found = (await client.me.messages.get(preferring(parameters=asked))).value
    assert [(one.internet_message_id, one.is_draft, one.subject) for one in found] == [("<3@x.test>", True, None)]
    first = await client.me.messages.get(preferring(parameters=query(top=2)))
    seen: list[str] = []
    pages = PageIterator(first, client.request_adapter)
    await pages.iterate(lambda one: bool(seen.append(one.internet_message_id) or True))
    assert sorted(seen) == [f"<{number}@x.test>" for number in range(5)]
    folder = client.me.mail_folders.by_mail_folder_id("drafts")
    assert len((await folder.messages.get()).value) == 5


async def test_send_mail_of_both_kinds(graph: GraphFake, client: Client) -> None:
    from msgraph.generated.users.item.send_mail.send_mail_post_request_body import SendMailPostRequestBody

    await client.me.send_mail.post(SendMailPostRequestBody(message=letter(), save_to_sent_items=False))
    asked = client.me.send_mail.to_post_request_information(SendMailPostRequestBody(message=letter()))
    asked.headers.remove("Content-Type")
    asked.set_stream_content(mime(Message_ID=ID), "text/plain")
    await client.request_adapter.send_no_response_content_async(asked, {})
    assert [mail["internetMessageId"] == ID for mail in graph.receipts()] == [False, True]


async def test_attachments_small_and_large(graph: GraphFake, client: Client) -> None:
    from msgraph.generated.models.attachment_item import AttachmentItem
    from msgraph.generated.models.attachment_type import AttachmentType
    from msgraph.generated.models.file_attachment import FileAttachment
    from msgraph.generated.users.item.messages.item.attachments.create_upload_session import (
        create_upload_session_post_request_body as body,
    )

    made = await client.me.messages.post(letter())
    files = client.me.messages.by_message_id(made.id).attachments
    small = FileAttachment(odata_type="#microsoft.graph.fileAttachment", name="small.txt", content_bytes=b"small")
    posted = await files.post(small)
    assert (posted.size, posted.name) == (5, "small.txt")
    large = os.urandom(4 << 20)
    item = AttachmentItem(attachment_type=AttachmentType.File, name="large.bin", size=len(large))
    session = await files.create_upload_session.post(body.CreateUploadSessionPostRequestBody(attachment_item=item))
    assert session.next_expected_ranges == ["0"]
    async with aiohttp.ClientSession() as http:  # the SDK's own uploader sends a token along; what it sends is refused
        for first in range(0, len(large), 10 * PIECE):
            piece = large[first : first + 10 * PIECE]
            spread = f"bytes {first}-{first + len(piece) - 1}/{len(large)}"
            async with http.put(session.upload_url, data=piece, headers={"Content-Range": spread}) as told:
                assert told.status == (201 if first + len(piece) == len(large) else 200)
    listed = (await files.get()).value
    assert [(one.name, len(one.content_bytes)) for one in listed] == [("small.txt", 5), ("large.bin", len(large))]
    one = await files.by_attachment_id(posted.id).get()
    assert one.content_bytes in {b"small", base64.b64encode(b"small")}, "as the SDK's version has it"
    await files.by_attachment_id(posted.id).delete()
    await client.me.messages.by_message_id(made.id).send.post()
    assert [one["name"] for one in graph.receipts()[0]["attachments"]] == ["large.bin"]


async def test_who_it_is_and_a_batch(client: Client) -> None:
    from msgraph_core.requests.batch_request_content import BatchRequestContent
    from msgraph_core.requests.batch_request_item import BatchRequestItem

    assert (await client.me.get()).mail == ALICE
    asked = [client.me.to_get_request_information(), client.me.messages.by_message_id("x").to_get_request_information()]
    content = BatchRequestContent()
    for one in asked:
        one.path_parameters["baseurl"] = client.request_adapter.base_url
        item = BatchRequestItem(one)
        item.url = item.url.removeprefix(client.request_adapter.base_url)  # Graph wants it relative; the SDK forgets
        content.add_request(item.id, item)
    answer = await client.batch.post(content)
    assert sorted(one.status for one in answer.responses.values()) == [200, 404]


@pytest.mark.parametrize(
    ("token", "failure", "status", "code"),
    [
        ("nobody", {}, 401, "InvalidAuthenticationToken"),
        ("reads", {}, 403, "ErrorAccessDenied"),
        ("alice", {"status": 429, "retryAfter": 1}, 429, "ApplicationThrottled"),
        ("alice", {"status": 503, "retryAt": 1}, 503, "ServiceUnavailable"),
        ("alice", {"status": 403, "code": "ErrorSendAsDenied"}, 403, "ErrorSendAsDenied"),
    ],
)
async def test_the_sdk_reads_our_errors(
    graph: GraphFake, token: str, failure: dict[str, Any], status: int, code: str
) -> None:
    if failure:
        await graph.fail("messages.create", **failure)
    async with httpx().AsyncClient(trust_env=False) as http:
        error = await refused(sdk(graph, http, token).me.messages.post(letter()))
    assert (error.response_status_code, error.error.code) == (status, code)
    assert (await graph.told())["counts"] == {"messages.create": 1}, "and did not try again"
