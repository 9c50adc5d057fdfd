"""Every bound of the SMTP door, at the limit and one past it; deadlines are the same with small numbers."""

import asyncio
import contextlib
import dataclasses
import time

import pytest

from gateways.mail_in import smtp_data
from gateways.mail_in.smtp import SmtpServer
from gateways.mail_in.smtp_limits import Limits
from gateways.mail_in.smtp_service import network_of
from tests.support.smtp_probe import Probe, RecordingDoor

LETTER = b"Subject: hello\r\n\r\nworld"
# The same deadlines as by default, in hundredths of the time.
HASTY = Limits(connections_per_client=None, idle=0.3, handshake=0.3, data=60.0, data_window=0.6, linger=0.05, tick=0.01)


@contextlib.asynccontextmanager
async def serving(door: RecordingDoor | None = None, base: Limits | None = None, **bounds):
    limits = dataclasses.replace(base or Limits(connections_per_client=None), **bounds)
    server = SmtpServer(door or RecordingDoor(), hostname="mx.test", limits=limits)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace=0)


async def seconds_until_cut(client: Probe) -> tuple[float, bytes]:
    start = time.monotonic()
    return await client.rest(), time.monotonic() - start


def test_the_defaults_are_those_of_the_table():
    limits = Limits()
    assert (limits.message, limits.message_excess, limits.command_line) == (26_214_400, 65_536, 2_048)
    assert (limits.recipients, limits.connections, limits.connections_per_client) == (100, 200, 20)
    assert (limits.idle, limits.idle_when_crowded, limits.crowded) == (300, 10, 0.8)
    assert (limits.data_rate, limits.data_window, limits.data, limits.session) == (1000, 60, 1800, 3600)
    assert (limits.errors, limits.received_headers) == (20, 50)


@pytest.mark.parametrize(("size", "code"), [(2047, "250"), (2048, "250"), (2049, "500 5.5.2")])
async def test_a_command_line_may_be_2048_bytes_long(size, code):
    async with serving() as server, await Probe.greeted(server.port) as client:
        assert (await client.ask("NOOP ".ljust(size - 2, "x"))).startswith(code)
        assert code == "250" or await client.rest() == b""


@pytest.mark.parametrize(("size", "code"), [(999, "250"), (1000, "250"), (1001, "552 5.3.4")])
@pytest.mark.parametrize("known", [True, False])
async def test_a_mail_may_be_as_large_as_the_limit(size, code, known):
    door = RecordingDoor()
    async with serving(door, message=1000) as server, await Probe.greeted(server.port) as client:
        who = "known@in.example" if known else "stranger@in.example"
        assert (await client.mail(b"x" * (size - 2), who)).startswith(code)
        assert (await client.mail(LETTER, who)).startswith("250"), "the session goes on"
    assert len(door.kept) == known * (1 + (code == "250"))


async def test_a_mail_far_beyond_the_limit_is_refused_and_cut():
    door = RecordingDoor()
    async with serving(door, message=1000) as server, await Probe.greeted(server.port) as client:
        await client.envelope()
        reply = asyncio.create_task(client.reply())
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                await client.send(b"x" * 1000)
        assert (await reply).startswith("552 5.3.4")
        assert await client.rest() == b""
    assert door.kept == []


@pytest.mark.parametrize("room", [True, False])
async def test_without_space_for_a_mail_none_is_begun(monkeypatch, room):
    disk = smtp_data.os.statvfs("/")
    needed = Limits().message * 3 // 2
    free = needed // disk.f_frsize + (1 if room else -1)

    class Disk:
        f_bavail, f_frsize = free, disk.f_frsize

    monkeypatch.setattr(smtp_data.os, "statvfs", lambda _place: Disk)
    async with serving() as server, await Probe.greeted(server.port) as client:
        assert (await client.ask("MAIL FROM:<>")).startswith("250" if room else "452 4.3.1")


async def test_so_many_errors_are_answered_and_the_next_one_ends_the_session():
    async with serving() as server, await Probe.greeted(server.port) as client:
        assert {(await client.ask("WHAT"))[:9] for _ in range(20)} == {"500 5.5.1"}
        assert (await client.ask("WHAT")).startswith("421 4.7.0")
        assert await client.rest() == b""


@pytest.mark.parametrize("command", ["NOOP", "RSET", "EHLO x", "HELO x", "HELP", "VRFY x"])
async def test_commands_that_bring_no_mail_closer_are_bounded(command):
    async with serving() as server, await Probe.connect(server.port) as client:
        await client.reply()
        assert {(await client.ask(command))[:1] for _ in range(200)} == {"2"}
        assert (await client.ask(command)).startswith("421 4.7.0")
        assert await client.rest() == b""


async def test_each_mail_brings_new_idle_commands():
    async with serving(idle_commands=3) as server, await Probe.greeted(server.port) as client:
        for _ in range(5):
            assert (await client.ask("RSET")).startswith("250")
            assert (await client.ask("NOOP")).startswith("250")
            assert (await client.mail(LETTER)).startswith("250")


async def test_recipients_beyond_any_reason_end_the_session():
    bounds = {"recipients": 2, "excess_recipients": 3}
    async with serving(**bounds) as server, await Probe.greeted(server.port) as client:
        await client.ask("MAIL FROM:<>")
        codes = [(await client.ask("RCPT TO:<known@in.example>"))[:3] for _ in range(6)]
        assert codes == ["250", "250", "452", "452", "452", "421"]


@pytest.mark.parametrize("bound", ["connections", "connections_per_client"])
async def test_one_connection_too_many_hears_421_and_a_place_that_is_left_is_free_again(bound):
    async with serving(**{bound: 3}) as server:
        inside = [await Probe.greeted(server.port) for _ in range(3)]
        for _ in range(3):
            turned_away = await Probe.connect(server.port)
            assert (await turned_away.rest()).startswith(b"421 4.7.0 ")
            await turned_away.close()
        assert (await inside[0].ask("QUIT")).startswith("221")
        assert await inside[0].rest() == b""
        inside[0] = await Probe.greeted(server.port)
        for client in inside:
            await client.close()


def test_a_client_is_an_ipv4_address_or_an_ipv6_64():
    assert network_of("192.0.2.1") == network_of("::ffff:192.0.2.1") != network_of("192.0.2.2")
    assert network_of("2001:db8:1:2::3") == network_of("2001:db8:1:2:ffff::") != network_of("2001:db8:1:3::3")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")


async def test_single_bytes_do_not_make_a_command_younger():
    async with serving(base=HASTY) as server, await Probe.greeted(server.port) as client:

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    await client.send(b"N")
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        heard, seconds = await seconds_until_cut(client)
        dripping.cancel()
        assert heard.startswith(b"421 4.4.2")
        assert 0.2 < seconds < 3


@pytest.mark.parametrize("open_connections", [8, 9])
async def test_a_crowded_server_has_less_patience(open_connections):
    bounds = {"connections": 10, "idle": 600.0, "idle_when_crowded": 0.1}
    async with serving(base=HASTY, **bounds) as server:
        clients = [await Probe.greeted(server.port) for _ in range(open_connections)]
        crowded = open_connections > 8
        if crowded:
            await asyncio.wait_for(asyncio.wait([asyncio.create_task(clients[0].rest())]), 5)
            assert server.connections < 10
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(clients[0].reader.read(1), 0.4)
        for client in clients:
            client.reset()


@pytest.mark.parametrize(("share", "kept"), [(0.5, False), (2.0, True)])
async def test_a_mail_must_arrive_at_a_thousand_bytes_a_second(share, kept):
    door = RecordingDoor()
    async with serving(door, base=HASTY) as server, await Probe.greeted(server.port) as client:
        await client.envelope()
        reply = asyncio.create_task(client.reply())
        start = time.monotonic()
        sent = 0
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 1.5 and not reply.done():
                due = int((time.monotonic() - start) * 1000 * share)
                await client.send(b"x" * (due - sent))
                sent = due
                await asyncio.sleep(0.02)
            if not reply.done():
                await client.send(b"\r\n.\r\n")
        assert (await reply).startswith("250" if kept else "421 4.4.2")
    assert len(door.kept) == kept


@pytest.mark.parametrize("phase", ["command", "data"])
async def test_a_session_ends_after_its_time_whatever_it_does(phase):
    async with serving(base=HASTY, session=0.2, idle=60.0) as server, await Probe.greeted(server.port) as client:
        if phase == "data":
            await client.envelope()
        heard, seconds = await seconds_until_cut(client)
        assert heard.startswith(b"421 4.4.2 The session")
        assert seconds < 3


async def test_a_mail_that_takes_too_long_is_cut_even_when_it_flows():
    async with serving(base=HASTY, data=0.2, data_rate=0) as server, await Probe.greeted(server.port) as client:
        await client.envelope()
        await client.send(b"x" * 5000)
        heard, _ = await seconds_until_cut(client)
        assert heard.startswith(b"421 4.4.2")


async def test_a_handshake_that_stalls_is_cut():
    async with serving(base=HASTY, idle=60.0) as server, await Probe.greeted(server.port) as client:
        assert (await client.ask("STARTTLS")).startswith("220")
        heard, seconds = await seconds_until_cut(client)
        assert heard == b""
        assert seconds < 3
        async with asyncio.timeout(5):
            while server.connections:
                await asyncio.sleep(0.01)


async def test_a_client_that_does_not_read_its_replies_is_cut():
    async with serving(base=HASTY, idle_commands=10**9) as server:
        client = await Probe.greeted(server.port)
        client.writer.transport.pause_reading()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(10):
                while server.connections:
                    client.writer.write(b"HELP\r\n" * 10_000)
                    await client.writer.drain()
        assert server.connections == 0
        await client.close()
