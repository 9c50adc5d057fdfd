"""Every shape that crosses a process: topics, envelope, commands, events, the API's JSON. Imports only the domain."""
