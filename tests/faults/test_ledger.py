"""What a client heard survives whatever happens to the client."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.ledger import Ledger, Operation, read

ROOT = Path(__file__).resolve().parents[2]


def test_operations_are_read_back_with_what_was_heard(tmp_path):
    with Ledger(tmp_path / "one") as ledger:
        ledger.sent("op_1", "mbx_1", "a" * 64)
        ledger.sent("op_2", "mbx_1", "b" * 64)
        ledger.sent("op_3", "mbx_2", kind="create")
        ledger.answered("op_2", "fail")
        ledger.answered("op_1", "ok")
    one, two, three = read(tmp_path / "one")
    assert (one.id, one.mailbox, one.sha256, one.outcome, one.kind) == ("op_1", "mbx_1", "a" * 64, "ok", "mail")
    assert one.t_reply is not None
    assert one.t_send <= one.t_reply
    assert two.outcome == "fail"
    assert three == Operation("op_3", "mbx_2", "", three.t_send, None, "info", "create")


def test_an_operation_without_an_answer_is_unknown(tmp_path):
    with Ledger(tmp_path / "one") as ledger:
        ledger.sent("op_1", "mbx_1", "a" * 64)
    assert [operation.outcome for operation in read(tmp_path / "one")] == ["info"]


def test_ledgers_of_several_clients_are_one_list_in_the_order_of_sending(tmp_path):
    with Ledger(tmp_path / "one") as one, Ledger(tmp_path / "two") as two:
        one.sent("op_1", "mbx_1")
        two.sent("op_2", "mbx_1")
        one.sent("op_3", "mbx_1")
    assert [operation.id for operation in read(tmp_path / "two", tmp_path / "one")] == ["op_1", "op_2", "op_3"]


def test_a_line_cut_short_is_no_answer(tmp_path):
    with Ledger(tmp_path / "one") as ledger:
        ledger.sent("op_1", "mbx_1")
        ledger.answered("op_1", "ok")
    whole = (tmp_path / "one").read_bytes()
    (tmp_path / "one").write_bytes(whole[:-3])
    assert [operation.outcome for operation in read(tmp_path / "one")] == ["info"]


def test_a_ledger_that_contradicts_itself_is_refused(tmp_path):
    with Ledger(tmp_path / "one") as ledger, Ledger(tmp_path / "two") as other:
        ledger.sent("op_1", "mbx_1")
        other.answered("op_9", "ok")
        with pytest.raises(ValueError, match="never sent"):
            read(tmp_path / "one", tmp_path / "two")
        other.sent("op_1", "mbx_1")
        with pytest.raises(ValueError, match="sent twice"):
            read(tmp_path / "one", tmp_path / "two")


CLIENT = """
import sys
from pathlib import Path
from tests.faults.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]))
for number in range(10**9):
    ledger.sent(f"op_{number}", "mbx_1", "a" * 64)
    ledger.answered(f"op_{number}", "ok")
    print(number, flush=True)
"""


def test_a_killed_client_has_lost_no_answer_it_had_heard(tmp_path):
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(tmp_path / "one")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert client.stdout
    heard = [int(client.stdout.readline()) for _ in range(500)]
    client.kill()
    heard += [int(line) for line in client.stdout.read().split()]
    assert client.wait() == -signal.SIGKILL
    client.stdout.close()
    answered = {operation.id for operation in read(tmp_path / "one") if operation.outcome == "ok"}
    assert {f"op_{number}" for number in heard} <= answered
