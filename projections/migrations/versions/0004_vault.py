"""The vault of tokens, how far keys are rotated, and what connecting a mailbox needs on its way."""

from alembic import op

revision = "0004"
down_revision = "0003"

KEPT = """
create table kept.vault (
    connection text primary key,
    user_id text not null,
    provider text not null,
    kid text not null,
    wrapped bytea not null,
    version integer not null,
    fingerprint text not null,
    access bytea,
    refresh bytea,
    previous bytea,
    servers bytea,
    expires_at timestamptz,
    lease text,
    leased_until timestamptz,
    created_at timestamptz not null default now(),
    switched_at timestamptz not null default now()
);
create index vault_kid on kept.vault (kid);
create index keyring_kid on kept.keyring (kid);
create table kept.key_rotations (
    key text primary key,
    rows bigint not null default 0,
    began_at timestamptz not null default now(),
    finished_at timestamptz
);
create table kept.connect_tickets (
    ticket_hash text primary key,
    account text not null,
    user_id text not null,
    provider text,
    sealed bytea not null,
    expires_at timestamptz not null,
    used_at timestamptz
);
create index connect_tickets_expiry on kept.connect_tickets (expires_at);
create table kept.consents (
    state_hash text primary key,
    browser_hash text not null,
    provider text not null,
    sealed bytea not null,
    expires_at timestamptz not null,
    used_at timestamptz
);
create index consents_expiry on kept.consents (expires_at);
create table kept.connect_sessions (
    session_hash text primary key,
    account text not null,
    user_id text not null,
    return_url text,
    expires_at timestamptz not null
);
create index connect_sessions_expiry on kept.connect_sessions (expires_at);
"""


def upgrade() -> None:
    connection = op.get_bind()
    for statement in KEPT.split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
