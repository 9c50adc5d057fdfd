"""Appending to the log, reading it back, following it."""
