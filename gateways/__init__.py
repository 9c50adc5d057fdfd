"""Speak other people's languages: HTTP, SMTP, SNS, Kafka, Postgres. They never import handlers."""
