"""Sends and their attempts, as read models; and who uses a mailbox at the moment."""

from alembic import op

revision = "0008"
down_revision = "0007"

READ = """
create table read.sends (
    send text primary key,
    user_id text not null,
    owner text not null,
    status text not null,
    message_id text not null,
    message text,
    blob text,
    callback text,
    attachments text[] not null,
    recipients integer not null,
    size integer not null,
    named text,
    connection text,
    provider text,
    created_at timestamptz not null,
    scheduled_at timestamptz,
    next_at timestamptz,
    sent_at timestamptz,
    ended_at timestamptz,
    code text,
    provider_message_id text,
    thread_id text,
    attempt integer not null,
    due timestamptz,
    due_kind text,
    partition integer not null,
    position bigint not null,
    key_digest text,
    body_digest text not null
);
create index sends_user on read.sends (user_id, send desc);
create index sends_owner on read.sends (owner, send desc);
create index sends_due on read.sends (due) where due is not null;
create index sends_open on read.sends (status) where status not in ('sent', 'failed', 'cancelled');
create index sends_waiting on read.sends (connection) where status in ('queued', 'deferred');
create index sends_scheduled on read.sends (user_id) where status = 'scheduled';
create index sends_key on read.sends (key_digest) where key_digest is not null;
create table read.send_attempts (
    send text not null,
    number integer not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    outcome text not null,
    code text,
    counted boolean,
    said text,
    refused text,
    primary key (send, number)
);
create table read.send_refusals (
    send text primary key,
    reason text not null,
    of_send text
);
alter table read.sends alter message set storage external
"""
#: Lost with a crash, as it should be: whoever held a slot is gone then as well.
KEPT = """
create unlogged table kept.mailbox_slots (
    mailbox text not null,
    slot integer not null,
    holder text not null,
    held_until timestamptz not null,
    primary key (mailbox, slot)
);
"""


def upgrade() -> None:
    connection = op.get_bind()
    for statement in (READ + ";\n" + KEPT).split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
