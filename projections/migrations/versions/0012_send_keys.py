"""Which mail an idempotency key names before anything is decided on it."""

from alembic import op

revision = "0012"
down_revision = "0011"

#: Lost with a crash: until it is decided a repetition then asks for another mail, of which one comes to be.
KEPT = """
create unlogged table kept.send_keys (
    key_digest text primary key,
    send text not null,
    at timestamptz not null default now()
);
create index send_keys_age on kept.send_keys (at)
"""


def upgrade() -> None:
    for statement in KEPT.split(";\n"):
        op.get_bind().exec_driver_sql(statement)
