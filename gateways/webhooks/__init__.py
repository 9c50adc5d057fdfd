"""Webhooks out: signing what we tell, and asking receivers (Standard Webhooks)."""
