"""Webhooks and their deliveries, as read models."""

from alembic import op

revision = "0007"
down_revision = "0006"

READ = """
create table read.webhooks (
    endpoint text primary key,
    account text not null,
    url text not null,
    description text,
    events text[] not null,
    disabled text,
    key_version integer not null,
    old_versions integer[] not null,
    old_until timestamptz[] not null,
    created_at timestamptz not null,
    partition integer not null,
    position bigint not null
);
create index webhooks_account on read.webhooks (account, position desc);
create table read.webhook_secrets (
    account text primary key,
    key_version integer not null,
    old_versions integer[] not null,
    old_until timestamptz[] not null
);
create table read.deliveries (
    delivery text primary key,
    account text not null,
    endpoint text,
    type text not null,
    message text,
    body text not null,
    url text,
    user_id text,
    status text not null,
    attempts jsonb not null,
    next_at timestamptz,
    created_at timestamptz not null,
    partition integer not null,
    position bigint not null
);
create index deliveries_endpoint on read.deliveries (endpoint, position desc);
create index deliveries_pending on read.deliveries (endpoint) where status = 'pending';
"""


def upgrade() -> None:
    connection = op.get_bind()
    for statement in READ.split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
