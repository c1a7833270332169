"""Head to head: one request in every form that can serve it, under the same attacks."""
