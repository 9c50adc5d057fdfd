"""Other people's mail services: Gmail, Outlook, and any server of SMTP and IMAP."""
