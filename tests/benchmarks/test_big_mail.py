"""A mail of 14 MiB: how fast it is accepted, what memory it takes, and whether that comes back."""

import asyncio
import statistics
import time

import pytest

from tests.benchmarks.contenders import Mailpit, absent, present, running, until_counted
from tests.benchmarks.mails import letter, with_attachment
from tests.benchmarks.report import Report
from tests.benchmarks.smtp_client import send_many

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]
ROUNDS = 2
MAILS = 5


async def test_a_big_mail_is_taken() -> None:
    """Five, one after the other. Growth is how far the processes' own peaks rose, and PSS when it has been quiet since."""
    report = Report("14 MiB mail")
    report.absent(absent([Mailpit]))
    mail = with_attachment(14 << 20)
    for turn in range(ROUNDS):
        for kind in present([Mailpit]):
            async with running(kind) as contender:
                await send_many(contender.smtp, await contender.boxes(1), 3, letter())
                await asyncio.sleep(2)
                before, cpu = contender.tree.memory(), contender.tree.cpu_seconds()
                pss = contender.tree.pss_by_name()
                accepted, visible, peaks = [], [], []
                for box in await contender.boxes(MAILS):
                    had, began = await contender.count(box), time.perf_counter()
                    accepted.append(await send_many(contender.smtp, [box], 1, mail))
                    visible.append(await until_counted(contender, {box: had + 1}) - began)
                    peaks.append(contender.tree.memory().peak - before.peak)
                cpu = contender.tree.cpu_seconds() - cpu
                await asyncio.sleep(10)
                after, now = contender.tree.memory(), contender.tree.pss_by_name()
                report.add(
                    kind.name,
                    round=turn,
                    mib_on_the_wire=round(mail.mebibytes, 1),
                    accepted_ms=round(statistics.median(accepted) * 1e3, 1),
                    visible_ms=round(statistics.median(visible) * 1e3, 1),
                    cpu_ms_per_mail=round(cpu / MAILS * 1e3, 1),
                    pss_before_mib=before.pss,
                    grown_after_1_mib=round(peaks[0], 1),
                    grown_after_5_mib=round(peaks[-1], 1),
                    grown_times_its_size=round(peaks[-1] / mail.mebibytes, 2),
                    pss_kept_10_s_later_mib=round(after.pss - before.pss, 1),
                    pss_kept_by_process={name: round(mib - pss.get(name, 0), 1) for name, mib in now.items()},
                )
    report.compare("accepted_ms")
    report.compare("grown_after_5_mib")
