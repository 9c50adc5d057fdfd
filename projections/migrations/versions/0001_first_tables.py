"""The first tables: what is kept beside the log, and the read models.

What a migration once did never changes: the tables stand here as they were, not as the projections declare them today.
"""

from alembic import op

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
    claims integer not null default 1,
    primary key (timer, due)
);
create unlogged table kept.rates (
    bucket text not null,
    window_start timestamptz not null,
    used integer not null,
    primary key (bucket, window_start)
);
"""

READ = """
create table mailboxes (
    mailbox text primary key,
    owner text not null,
    address_digest text not null unique,
    address text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    plan text not null,
    live_messages integer not null,
    token_version integer not null,
    ended text,
    ended_at timestamptz,
    partition integer not null,
    position bigint not null
);
create index mailboxes_owner on mailboxes (owner, position desc);
create table messages (
    message text primary key,
    mailbox text not null,
    number integer not null,
    received_at timestamptz not null,
    size bigint not null,
    sha256 text not null,
    via text not null,
    envelope text not null,
    state text not null,
    summary text,
    content text,
    content_blob text,
    has_attachments boolean not null,
    raw_partition integer not null,
    raw_offset bigint not null,
    raw_blob text,
    is_read boolean not null default false,
    partition integer not null,
    position bigint not null,
    shown_at bigint
);
alter table messages alter content set storage external, alter summary set storage external;
create index messages_shown on messages (mailbox, shown_at desc);
create table timers (
    timer text primary key,
    kind text not null,
    due timestamptz not null,
    subject text not null,
    key text not null
);
create index timers_due on timers (due);
create table feed (
    partition integer not null,
    position bigint not null,
    topic text not null,
    owner text not null,
    mailbox text not null,
    message text,
    type text not null,
    at timestamptz not null,
    summary text,
    envelope text,
    primary key (topic, partition, position)
);
create index feed_mailbox on feed (mailbox, position);
create index feed_owner on feed (owner, topic, partition, position);
alter table feed alter summary set storage external, alter envelope set storage external;
create table accounts (
    account text primary key,
    plan text not null
);
create table api_keys (
    key text primary key,
    account text not null,
    prefix text not null,
    hash text not null unique,
    scopes text[] not null
);
create table plans (
    name text primary key,
    default_ttl_minutes integer not null,
    longest_ttl_minutes integer not null,
    live_mailboxes integer not null,
    live_messages integer not null,
    position bigint not null
);
"""


def upgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql("set search_path to read, kept")
    for ddl in (KEPT, READ):
        for statement in ddl.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
