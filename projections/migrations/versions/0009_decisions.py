"""What came of commands, and what is asked of deliveries by mail, as read models."""

from alembic import op

revision = "0009"
down_revision = "0008"

CONTEXTS = ("account", "connection", "send", "webhook")
DECISIONS = """
create table read.{0}_decisions (
    command text primary key,
    subject text not null,
    reason text,
    instead text,
    at timestamptz not null,
    partition integer not null,
    position bigint not null
);
create index {0}_decisions_kept on read.{0}_decisions (partition, at);
"""
REST = """
create index deliveries_message on read.deliveries (message, position desc) where message is not null;
create index deliveries_callbacks on read.deliveries (account, position desc) where endpoint is null;
drop table read.send_refusals;
"""


def upgrade() -> None:
    connection = op.get_bind()
    for statement in ("".join(DECISIONS.format(context) for context in CONTEXTS) + REST).split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
