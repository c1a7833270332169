"""The outermost layer of the pages: headers that keep a browser careful, and bodies of bounded size."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# No script and no style stands in a page: whatever somebody smuggles into one is not run.
POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # with no-referrer a browser would hide where a form came from, and that is looked at
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class TooLarge(Exception):
    """More was sent than is taken."""


class PageShell:
    """
    Args:
        app: what is inside. body_bytes: largest body.
    """

    def __init__(self, app: ASGIApp, body_bytes: int) -> None:
        self._app, self._limit = app, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise TooLarge
            return message

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message.get("headers", ())}
                headers = [*message.get("headers", ()), *(pair for pair in HEADERS if pair[0] not in present)]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, bounded, careful)
