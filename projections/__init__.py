"""FastStream consumers that fold events into Postgres tables, and nothing else. Read projector.py first."""
