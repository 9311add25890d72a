"""Django's PostgreSQL backend with a pool that asks the server less often whether a connection still works."""
