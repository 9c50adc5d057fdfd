"""The first tables: what is kept beside the log, and the read models."""

from alembic import op

from projections import accounts, feed, mailboxes, messages, timers

revision = "0001"
down_revision = None

KEPT = """
create schema if not exists read;
create schema if not exists kept;
create table kept.logs (
    topic text not null,
    partition integer not null,
    log text not null,
    primary key (topic, partition)
);
create table kept.checkpoints (
    name text not null,
    topic text not null,
    partition integer not null,
    position bigint not null,
    at timestamptz not null default now(),
    primary key (name, topic, partition)
);
create table kept.decider_checkpoints (
    context text not null,
    partition integer not null,
    events_end bigint not null,
    inputs text not null,
    now_ms bigint not null,
    at timestamptz not null default now(),
    primary key (context, partition)
);
create table kept.decider_state (
    context text not null,
    partition integer not null,
    kind text not null,
    id text collate "C" not null,
    document text not null,
    primary key (context, partition, kind, id)
);
create index decider_state_within on kept.decider_state (context, partition, id text_pattern_ops);
create table kept.keyring (
    subject text primary key,
    kid text not null,
    wrapped bytea not null,
    created_at timestamptz not null default now()
);
create table kept.timer_claims (
    timer text not null,
    due timestamptz not null,
    claimed_until timestamptz not null,
    primary key (timer, due)
);
create unlogged table kept.rates (
    bucket text not null,
    window_start timestamptz not null,
    used integer not null,
    primary key (bucket, window_start)
);
"""


def upgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql("set search_path to read, kept")
    for ddl in (KEPT, mailboxes.DDL, messages.DDL, timers.DDL, feed.DDL, accounts.DDL):
        for statement in ddl.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
