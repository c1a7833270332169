"""Webhooks after Standard Webhooks 1.0: signed, delivered again until they arrive, and never to an address inside."""
