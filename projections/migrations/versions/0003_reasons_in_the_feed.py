"""The feed says why a message was rejected. Rows of before stay without a reason until `replay feed`."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.get_bind().exec_driver_sql("alter table read.feed add column if not exists reason text")
