"""The Gmail fake, judged by Google's own client: by the discovery document that it carries, every method of ours."""

import asyncio
import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.gmail.caller import ALICE, mail, raw
from tests.support.gmail.double import GmailFake
from tests.support.gmail.methods import METHODS

pytestmark = pytest.mark.judges

Service = Any


def service(gmail: GmailFake, token: str = "alice") -> Service:
    """The client as Google builds it, with another address in its document."""
    import googleapiclient
    from google.oauth2.credentials import Credentials
    from googleapiclient.discovery import build_from_document

    folder = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    document = json.loads((folder / "gmail.v1.json").read_text())
    document["rootUrl"] = document["baseUrl"] = document["mtlsRootUrl"] = f"{gmail.url}/"
    return build_from_document(document, credentials=Credentials(token))


def media(content: bytes, *, resumable: bool = False, chunk: int = 256 * 1024) -> Any:
    from googleapiclient.http import MediaIoBaseUpload

    return MediaIoBaseUpload(io.BytesIO(content), "message/rfc822", chunksize=chunk, resumable=resumable)


async def judged(gmail: GmailFake, work: Callable[[Any, Any], Any], token: str = "alice") -> Any:
    """What the client does with `users()`, in a thread of its own."""

    def inside() -> Any:
        with service(gmail, token) as built:
            return work(built.users(), built)

    return await asyncio.to_thread(inside)


async def test_every_method_is_as_the_document_says(gmail: GmailFake) -> None:
    def paths(users: Any, built: Any) -> None:
        document = built._rootDesc["resources"]["users"]
        for method in METHODS:
            *groups, name = method.name.split(".")
            found = document["resources"][groups[0]]["methods"][name] if groups else document["methods"][name]
            assert found["httpMethod"] == method.verb
            assert found["path"].replace("{userId}", "{user}") == f"gmail/v1/users/{{user}}{method.path}"
            assert found.get("supportsMediaUpload", False) is method.uploads
            foreign = {scope for scope in found["scopes"] if ".addons." in scope}
            assert set(found["scopes"]) - foreign == method.scopes, method.name
            if method.uploads:
                assert int(found["mediaUpload"]["maxSize"]) == 36_700_160
                assert found["mediaUpload"]["protocols"]["resumable"]["path"].startswith("/resumable/upload/gmail/v1/")

    await judged(gmail, paths)


async def test_a_mail_from_draft_to_sent(gmail: GmailFake) -> None:
    await gmail.set(indexLag=0, messageId="kept")
    content = mail(head="Bcc: dave@example.test\nX-Postledger-Marker: m1")

    def work(users: Any, built: Any) -> Any:
        drafts, messages = users.drafts(), users.messages()
        assert users.getProfile(userId="me").execute()["emailAddress"] == ALICE
        assert "SENT" in [one["id"] for one in users.labels().list(userId="me").execute()["labels"]]
        draft = drafts.create(userId="me", body={"message": {"raw": raw(b"To: a@b.test\r\n\r\n")}}).execute()
        drafts.update(userId="me", id=draft["id"], body={"message": {"raw": raw(content)}}).execute()
        found = drafts.get(userId=ALICE, id=draft["id"], format="raw").execute()
        assert base64.urlsafe_b64decode(found["message"]["raw"]) == content
        assert [one["id"] for one in drafts.list(userId="me").execute()["drafts"]] == [draft["id"]]
        sent = drafts.send(userId="me", body={"id": draft["id"]}).execute(num_retries=0)
        assert refused(drafts.get(userId="me", id=draft["id"])) == (404, "Requested entity was not found.")
        query = "in:sent rfc822msgid:own@postledger.test"
        assert messages.list(userId="me", q=query).execute()["messages"][0]["id"] == sent["id"]
        for form in ("full", "raw", "minimal", "metadata"):
            told = messages.get(userId="me", id=sent["id"], format=form).execute()
            assert (told["labelIds"], "raw" in told, "payload" in told) == (
                ["SENT"], form == "raw", form in ("full", "metadata"),
            )  # fmt: skip
        assert users.threads().get(userId="me", id=sent["threadId"]).execute()["messages"][0]["id"] == sent["id"]
        assert users.labels().get(userId="me", id="SENT").execute()["messagesTotal"] == 1
        other = drafts.create(userId="me", body={"message": {"raw": raw(content)}}).execute()
        assert drafts.delete(userId="me", id=other["id"]).execute() in ("", b"")
        pages, request = [], drafts.list(userId="me")
        while request is not None:
            answer = request.execute()
            pages.append(answer)
            request = drafts.list_next(request, answer)
        assert pages == [{"resultSizeEstimate": 0}]
        return sent

    sent = await judged(gmail, work)
    (receipt,) = gmail.receipts()
    assert (receipt.id, receipt.marker, len(receipt.recipients)) == (sent["id"], "m1", 2)


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("described", [False, True])
async def test_uploads(gmail: GmailFake, *, resumable: bool, described: bool) -> None:
    text = "ü" if resumable else "x"  # in an upload of two parts that client takes ASCII only
    content = mail(text=text * 500_000)

    def work(users: Any, built: Any) -> None:
        body = {"labelIds": []} if described else None
        request = users.messages().send(userId="me", body=body, media_body=media(content, resumable=resumable))
        answer = None
        while resumable and answer is None:
            progress, answer = request.next_chunk(num_retries=0)
            assert progress is None or 0 < progress.progress() < 1
        answer = answer or request.execute()
        assert answer["labelIds"] == ["SENT"]
        draft = users.drafts().create(userId="me", media_body=media(mail(), resumable=resumable)).execute()
        new = media(mail(subject="new"), resumable=resumable)
        users.drafts().update(userId="me", id=draft["id"], body={}, media_body=new).execute()
        last = media(content, resumable=resumable)
        users.drafts().send(userId="me", body={"id": draft["id"]}, media_body=last).execute()

    await judged(gmail, work)
    assert [one.given == content for one in await gmail.mails()] == [True, True]
    assert [one.method for one in gmail.receipts()] == ["messages.send", "drafts.send"]


def refused(request: Any) -> tuple[int, str]:
    from googleapiclient.errors import HttpError

    with pytest.raises(HttpError) as caught:
        request.execute(num_retries=0)
    return caught.value.status_code, caught.value.reason


async def test_refusals_are_understood(gmail: GmailFake) -> None:
    def work(users: Any, built: Any) -> None:
        send = users.messages().send
        assert refused(send(userId="me", body={"raw": "!!!"}))[0] == 400
        assert refused(send(userId="me", body={"raw": raw(b"Subject: x\r\n\r\n")})) == (
            400,
            "Recipient address required",
        )
        assert refused(send(userId="me", body={"raw": raw(b"To: x\r\n\r\n")})) == (400, "Invalid To header")
        assert refused(users.getProfile(userId="bob@gmail.test"))[0] == 403

    def narrow(users: Any, built: Any) -> None:
        assert refused(users.drafts().list(userId="me")) == (403, "Request had insufficient authentication scopes.")
        assert users.messages().send(userId="me", body={"raw": raw(mail())}).execute()["id"]

    def unknown(users: Any, built: Any) -> None:
        from google.auth.exceptions import RefreshError

        with pytest.raises(RefreshError):  # it takes a 401 for a token that is over, and cannot get another
            users.getProfile(userId="me").execute(num_retries=0)

    await judged(gmail, work)
    await judged(gmail, narrow, "send")
    await judged(gmail, unknown, "nobody's")


async def test_its_own_retries_send_twice(gmail: GmailFake) -> None:
    """Why nobody turns them on: the mail was sent, and the client sends it again."""
    for kind in ("backendError", "rateLimitExceeded", "unavailable"):
        await gmail.fail("messages.send", kind=kind, when="after")

    def work(users: Any, built: Any) -> None:
        users.messages().send(userId="me", body={"raw": raw(mail())}).execute(num_retries=3)

    await judged(gmail, work)
    assert len(gmail.receipts()) == 4
