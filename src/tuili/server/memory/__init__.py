"""Memory that a client or another process shares with the server."""
