"""Connected accounts: users and their connections, in camelCase under `/v1`."""
