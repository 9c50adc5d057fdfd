"""Which keyset this installation was made with: one row, because there is one installation."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        "create table kept.installation (one boolean primary key default true check (one), keyset text not null)"
    )
