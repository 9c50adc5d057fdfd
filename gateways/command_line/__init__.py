"""The command line: words for the people who run an installation."""
