"""Attachments of users, as a read model."""

from alembic import op

revision = "0006"
down_revision = "0005"

READ = """
create table read.attachments (
    attachment text primary key,
    user_id text not null,
    account text not null,
    blob text not null,
    size bigint not null,
    sha256 text not null,
    mime text not null,
    name text,
    created_at timestamptz not null,
    expires_at timestamptz,
    due_at timestamptz,
    deleted_at timestamptz,
    partition integer not null,
    position bigint not null
);
create index attachments_account on read.attachments (account, position desc) where deleted_at is null;
create index attachments_user on read.attachments (user_id, position desc);
create index attachments_due on read.attachments (due_at) where due_at is not null;
"""


def upgrade() -> None:
    connection = op.get_bind()
    for statement in READ.split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
