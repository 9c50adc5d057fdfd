"""What would still be true with no computer: rules, events, states. Pure: no clock, no I/O, no framework."""
