"""Postgres, keyring, blobs: operational tables that are not rebuilt from the log."""
