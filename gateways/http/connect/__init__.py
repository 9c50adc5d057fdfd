"""Connecting a user's mailbox: tickets, consent, callbacks, and a page to do it on. `routes.py` is where to begin."""
