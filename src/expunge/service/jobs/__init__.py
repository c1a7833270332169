"""Durable jobs: what was begun is finished, whoever is killed meanwhile. `port` is all that callers need to read."""
