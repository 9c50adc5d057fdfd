"""Reading mail in child processes that are bounded in time and memory."""
