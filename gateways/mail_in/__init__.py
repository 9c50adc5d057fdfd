"""Mail arriving from outside: SMTP and SES."""
