"""What streams tell of sends and of connections, as read models."""

from alembic import op

revision = "0011"
down_revision = "0010"

FEED = """
create table read.{0} (
    partition integer not null,
    position bigint not null,
    owner text not null,
    user_id text not null,
    send text,
    connection text,
    type text not null,
    status text not null,
    at timestamptz not null,
    next_at timestamptz,
    code text,
    primary key (partition, position)
);
create index {0}_owner on read.{0} (owner, partition, position);
"""
STATES = """
create table read.connection_feed_states (
    connection text primary key,
    owner text not null,
    state text not null
);
"""


def upgrade() -> None:
    connection = op.get_bind()
    for statement in (FEED.format("send_feed") + FEED.format("connection_feed") + STATES).split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
