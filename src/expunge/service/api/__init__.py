"""The interface of the control plane for programs: HTTP, JSON, OpenAPI."""
