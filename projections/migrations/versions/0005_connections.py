"""Users and their connections, as read models."""

from alembic import op

revision = "0005"
down_revision = "0004"

READ = """
create table read.users (
    user_id text primary key,
    account text not null,
    email text,
    email_digest text not null,
    display_name text,
    external_id text,
    external_id_digest text,
    created_at timestamptz not null,
    deleted_at timestamptz,
    partition integer not null,
    position bigint not null
);
create index users_account on read.users (account, position desc) where deleted_at is null;
create table read.connections (
    connection text primary key,
    user_id text not null,
    owner text not null,
    provider text not null,
    auth text not null,
    account text not null,
    account_digest text not null,
    subject_digest text,
    scopes text[] not null,
    missing_scopes text[] not null,
    state text not null,
    token_version integer not null,
    token_fingerprint text not null,
    token_expires_at timestamptz,
    connected_at timestamptz not null,
    last_used_at timestamptz,
    last_error text,
    last_error_at timestamptz,
    revoked_at timestamptz,
    at_provider text,
    refresh_due timestamptz,
    partition integer not null,
    position bigint not null
);
create index connections_user on read.connections (user_id, provider, account_digest);
create index connections_owner on read.connections (owner, connection desc);
create index connections_due on read.connections (refresh_due) where refresh_due is not null;
"""


def upgrade() -> None:
    connection = op.get_bind()
    for statement in READ.split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
