"""The trace of a send, which timers continue; of a send that was asked for before, none is known."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.get_bind().exec_driver_sql("alter table read.sends add column traceparent text")
