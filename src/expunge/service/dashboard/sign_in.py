"""Signing in with a key or at an issuer, and out again."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from expunge.errors import NotFound, NotSignedIn
from expunge.service.access.oidc import COOKIE as WAY
from expunge.service.access.sessions import check_csrf
from expunge.service.dashboard.frame import SIGN_IN, PageOf, Visit

HOME = "/requests"


def home(visit: Visit) -> Response:
    return visit.go(HOME)


def ask(visit: Visit) -> Response:
    """The form; whoever is signed in already goes on."""
    cookie = visit.request.cookies.get(visit.pages.access.sessions.cookie)
    if cookie:
        try:
            visit.pages.access.sessions.find(cookie)
            return visit.go(_next(visit.request.query_params.get("next", "")))
        except NotSignedIn:
            pass
    return _form(visit, visit.request.query_params.get("next", ""))


def _form(visit: Visit, after: str, wrong: str = "") -> Response:
    return visit.page(
        "sign_in.html.j2",
        status=401 if wrong else 200,
        after=_next(after),
        wrong=wrong,
        oidc=visit.pages.access.oidc is not None,
    )


def enter(visit: Visit) -> Response:
    """With a key."""
    after = visit.sent("next")
    try:
        value, _ = visit.pages.access.sign_in(visit.sent("key"), visit.address)
    except NotSignedIn:
        # which of the two it was is not told
        return _form(visit, after, "This key is not known, or no longer in force.")
    answer = visit.go(_next(after))
    answer.headers.append("Set-Cookie", visit.pages.access.sessions.set_cookie(value))
    return answer


def to_issuer(visit: Visit) -> Response:
    oidc = visit.pages.access.oidc
    if oidc is None:
        raise NotFound("way to sign in")
    url, way = oidc.begin()
    answer = RedirectResponse(url, 303)
    answer.headers.append("Set-Cookie", oidc.set_cookie(way))
    return answer


def from_issuer(visit: Visit) -> Response:
    """Back from there."""
    oidc = visit.pages.access.oidc
    if oidc is None:
        raise NotFound("way to sign in")
    try:
        actor = oidc.finish(visit.request.query_params, visit.request.cookies.get(WAY))
    except NotSignedIn as error:
        answer = _form(visit, "", f"{error.cause[:1].upper()}{error.cause[1:]}.")
    else:
        value, _ = visit.pages.access.sessions.start(actor)
        answer = visit.go(HOME)
        answer.headers.append("Set-Cookie", visit.pages.access.sessions.set_cookie(value))
    answer.headers.append("Set-Cookie", oidc.clear_cookie())
    return answer


def leave(visit: Visit) -> Response:
    """Sign out. Without a session there is nothing to do, and nothing to forge."""
    sessions = visit.pages.access.sessions
    value = visit.request.cookies.get(sessions.cookie)
    try:
        session = sessions.find(value)
    except NotSignedIn:
        return visit.go(SIGN_IN)
    check_csrf(session, visit.sent("csrf"))
    sessions.end(value)
    answer = visit.go(SIGN_IN)
    answer.headers.append("Set-Cookie", sessions.clear_cookie())
    return answer


def _next(path: str) -> str:
    """Where to go on; never to another site."""
    own = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if own and path.isascii() and not path.startswith(SIGN_IN) and len(path) <= 2000 else HOME


PAGES = (
    PageOf("GET", "/", None, home),
    PageOf("GET", SIGN_IN, None, ask),
    PageOf("POST", SIGN_IN, None, enter),
    PageOf("GET", "/sign-in/issuer", None, to_issuer),
    PageOf("GET", "/sign-in/back", None, from_issuer),
    PageOf("POST", "/sign-out", None, leave),
)
