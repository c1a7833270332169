"""What every page stands in: who looks, what they may, the form they sent, and the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from markupsafe import Markup
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from expunge.errors import NotFound, RequestError
from expunge.service.access.gate import UNKNOWN_ADDRESS, Access
from expunge.service.access.sessions import Session
from expunge.service.dashboard import wording
from expunge.service.dashboard.flash import COOKIE, Flash, pack, unpack
from expunge.service.dashboard.render import templates
from expunge.service.entities import Actor
from expunge.service.permissions import ALLOWED
from expunge.service.service import Service
from expunge.service.trail import Trail

SIGN_IN = "/sign-in"


@dataclass(frozen=True)
class Place:
    """A page that the navigation leads to; permission: of `ALLOWED`."""

    path: str
    name: str
    permission: str


NAVIGATION = (
    Place("/requests", "Requests", "list"),
    Place("/calendar", "Calendar", "list"),
    Place("/models", "Models", "see_registry"),
    Place("/policy", "Policy", "see_policy"),
    Place("/certificates", "Certificates", "see_certificate"),
    Place("/audit", "Audit trail", "see_audit"),
    Place("/system", "System", "see_metrics"),
)


@dataclass(frozen=True, kw_only=True)
class Pages:
    """What the pages work with."""

    service: Service
    access: Access
    trail: Trail = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trail", Trail(self.service.database, self.service.clock))


@dataclass(frozen=True)
class PageOf:
    """A line of the table of pages.

    Args:
        permission: of `ALLOWED`; None: for everybody, signed in or not. handle: makes the answer.
    """

    method: Literal["GET", "POST"]
    path: str
    permission: str | None
    handle: Callable[[Visit], Response]


@dataclass(kw_only=True)
class Visit:
    """One request of a browser.

    Args:
        session: None for somebody who has not signed in. form: what was sent; None for a page that is only looked at.
    """

    pages: Pages
    request: Request
    session: Session | None
    form: FormData | None = None
    now: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.pages.service.clock()

    # --- who and what -------------------------------------------------------------------------------------------------

    @property
    def service(self) -> Service:
        return self.pages.service

    @property
    def actor(self) -> Actor:
        assert self.session is not None, "only pages without a permission are made for nobody"
        return self.session.actor

    @property
    def staff(self) -> bool:
        """Whether the visitor is of the house, and no subject."""
        return self.actor.role != "subject"

    def may(self, permission: str) -> bool:
        return self.session is not None and self.session.actor.role in ALLOWED[permission]

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else UNKNOWN_ADDRESS

    @property
    def partial(self) -> bool:
        """Whether a script asks for a part of the page that it has."""
        return self.request.headers.get("hx-request-type") == "partial"

    def part(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    # --- the form -----------------------------------------------------------------------------------------------------

    def sent(self, name: str) -> str:
        """A field's text without white space around; nothing where there is none."""
        value = None if self.form is None else self.form.get(name)
        return value.strip() if isinstance(value, str) else ""

    def sent_all(self, name: str) -> list[str]:
        """Every value of a field."""
        values = [] if self.form is None else self.form.getlist(name)
        return [value.strip() for value in values if isinstance(value, str) and value.strip()]

    def sent_lines(self, name: str) -> list[str]:
        """A field's lines, each once, without empty ones."""
        return list(dict.fromkeys(line.strip() for line in self.sent(name).splitlines() if line.strip()))

    def sent_file(self, name: str) -> bytes | None:
        """An uploaded file's bytes; None where none was chosen."""
        value = None if self.form is None else self.form.get(name)
        if not isinstance(value, UploadFile):
            return None
        content = value.file.read()
        return content or None

    def sent_items(self) -> list[tuple[str, str]]:
        items = [] if self.form is None else self.form.multi_items()
        return [(name, value) for name, value in items if isinstance(value, str)]

    # --- the answer ---------------------------------------------------------------------------------------------------

    def url(self, path: str) -> str:
        """The address of a page of ours, wherever the pages are mounted."""
        return str(self.request.scope.get("root_path", "")).rstrip("/") + path

    def page(self, template: str, *, status: int = 200, **told: Any) -> Response:
        """A page, and what was told of the step before it."""
        flash = None
        cookie = self.request.cookies.get(COOKIE)
        if self.session is not None and cookie is not None and not self.partial:
            flash = unpack(cookie, self.session.csrf)
        text = templates().get_template(template).render(self._frame(flash), **told)
        answer = HTMLResponse(text, status, headers={"Vary": "HX-Request-Type"})
        if cookie is not None and not self.partial:
            answer.headers.append("Set-Cookie", self._cookie(COOKIE, "", 0))
        return answer

    def _frame(self, flash: Flash | None) -> Mapping[str, Any]:
        csrf = Markup("")
        if self.session is not None:
            csrf = Markup('<input type="hidden" name="csrf" value="{}">').format(self.session.csrf)
        return {
            "url": self.url,
            "csrf": csrf,
            "flash": flash,
            "now": self.now,
            "may": self.may,
            "role": None if self.session is None else self.session.actor.role,
            "navigation": [place for place in NAVIGATION if self.may(place.permission)],
            "here": self.request.url.path,
            "due": self.due,
        }

    def due(self, at: datetime, regime: str) -> Markup:
        """A due moment in the zone of its regime."""
        return wording.due(at, self.zone(regime))

    def zone(self, regime: str) -> str:
        known = self.service.policy.regimes.get(regime)  # a policy may have lost one that requests still have
        return "UTC" if known is None else known.zone

    def go(self, path: str, flash: Flash | None = None) -> Response:
        """To another page, after a form: loading that one again sends nothing twice."""
        answer = RedirectResponse(self.url(path), 303)
        if flash is not None and self.session is not None:
            answer.headers.append("Set-Cookie", self._cookie(COOKIE, pack(flash, self.session.csrf), 60))
        return answer

    def _cookie(self, name: str, value: str, seconds: int) -> str:
        tail = "; Secure" if self.pages.access.part.secure else ""
        return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{tail}"

    def to_sign_in(self) -> Response:
        """Where somebody goes who is not signed in (any more), and comes back from."""
        if self.partial:  # a script would put the whole sign-in page into a part of this one
            return Response(status_code=401, headers={"HX-Redirect": self.url(SIGN_IN)})
        path = self.request.url.path.removeprefix(self.request.scope.get("root_path", ""))
        query = f"?{self.request.url.query}" if self.request.url.query else ""
        back = "" if path in ("/", "") else f"?next={quote(path + query, safe='/')}"
        return self.go(SIGN_IN + back)

    def asked_id(self, name: str, kind: str) -> str:
        """An id of the path; one that cannot be one is not there, like any other that is not.

        Raises:
            NotFound.
        """
        text = self.part(name)
        if not text.isascii() or not text.isprintable() or len(text) > 100:
            raise NotFound(kind)
        return text


def check_text(items: Iterable[tuple[str, str]]) -> None:
    """
    Raises:
        RequestError: a text that no database keeps.
    """
    for name, value in items:
        if any(c == "\x00" or "\ud800" <= c <= "\udfff" for c in name + value):
            raise RequestError("a field holds characters that are no text", "Type it again instead of pasting it")
