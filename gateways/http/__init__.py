"""The HTTP surface: routes, streams, problem details."""
