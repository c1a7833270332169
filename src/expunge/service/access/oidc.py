"""Single sign-on with OpenID Connect: authorisation code with PKCE, through authlib.

Who somebody is at the issuer is never stored: the actor is a keyed hash of issuer and subject. What must outlive the
visit to the issuer (state, nonce, verifier) travels in a cookie that is sealed, so any process can go on from there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from expunge.errors import NotSignedIn, RequestError, RunError, TamperedEvidence
from expunge.request import Strict
from expunge.service.clock import Clock
from expunge.service.entities import Actor
from expunge.service.identity import Identities
from expunge.service.words import ROLES, Role

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import OAuth2Client

SEAL = "sign-in"
COOKIE = "expunge_sign_in"
WAY_SECONDS = 600
KNOWN_SECONDS = 3600.0
ANEW_SECONDS = 30.0
LEEWAY_SECONDS = 60
CALL_SECONDS = 10.0
# signatures by a key pair alone: `none`, or a secret shared by many, would let others sign
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")


class OidcPart(Strict):
    """An issuer, and what its claims mean here.

    Args:
        issuer: its URL, as in its tokens. client_secret_variable: the environment variable with the secret; None: a
            public client. redirect_uri: of this service. role_claim: name of the claim (a text or a list) whose values
            `roles` maps to roles; whoever has none of them stays outside. identity_claim: for the role subject, the
            claim that is their identity in the data. development: the issuer may use http.
    """

    issuer: str
    client_id: str
    client_secret_variable: str | None = None
    redirect_uri: str
    scopes: tuple[str, ...] = ("openid",)
    role_claim: str = "groups"
    roles: Mapping[str, Role] = Field(min_length=1)
    identity_claim: str = "sub"
    development: bool = False

    @model_validator(mode="after")
    def _safe(self) -> OidcPart:
        if "openid" not in self.scopes:
            raise ValueError("scopes must hold openid")
        for url in (self.issuer, self.redirect_uri):
            if urlsplit(url).scheme != "https" and not self.development:
                raise ValueError("issuer and redirect_uri must use https")
        return self


class Oidc:
    """Sign-in at one issuer.

    Args:
        client: keyword arguments of authlib's client, such as a transport. tick: seconds that only grow.
    """

    def __init__(
        self,
        part: OidcPart,
        identities: Identities,
        clock: Clock,
        *,
        client: Mapping[str, Any] | None = None,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self.part, self.identities, self.clock = part, identities, clock
        self._client_options, self._tick = dict(client or {}), tick
        self._known: dict[str, tuple[float, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def begin(self) -> tuple[str, str]:
        """(the issuer's page to go to, the value of a cookie to set).

        Raises:
            RunError: the issuer cannot be asked.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with self._client() as client:
            url, _ = client.create_authorization_url(
                self._metadata()["authorization_endpoint"], state=state, code_verifier=verifier, nonce=nonce
            )
        way = {"state": state, "nonce": nonce, "verifier": verifier, "until": self.clock().timestamp() + WAY_SECONDS}
        return str(url), self.identities.seal(SEAL, json.dumps(way))

    def set_cookie(self, value: str) -> str:
        """The header ``Set-Cookie`` for the way there and back."""
        tail = "" if self.part.development else "; Secure"
        return f"{COOKIE}={value}; Path=/; Max-Age={WAY_SECONDS}; HttpOnly; SameSite=Lax{tail}"

    def clear_cookie(self) -> str:
        """The header that removes it."""
        tail = "" if self.part.development else "; Secure"
        return f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{tail}"

    def finish(self, query: Mapping[str, str], cookie: str | None) -> Actor:
        """Who has come back.

        Args:
            query: of the redirect: `code` and `state`. cookie: the value that `begin` gave.

        Raises:
            NotSignedIn: this browser did not begin it, or too long ago; the issuer refused; the token is not for us, or
                has none of the roles. RunError: the issuer cannot be asked.
        """
        way = self._way(cookie)
        if not hmac.compare_digest(way["state"].encode(), query.get("state", "").encode("utf-8", "surrogatepass")):
            raise NotSignedIn("the sign-in was not begun in this browser")
        if query.get("iss", self.part.issuer) != self.part.issuer or "code" not in query:
            raise NotSignedIn("the issuer has not signed anybody in")
        token = self._exchange(query["code"], way["verifier"])
        return self._actor(self._claims(token, way["nonce"]))

    def _way(self, cookie: str | None) -> dict[str, Any]:
        try:
            way = json.loads(self.identities.unseal(SEAL, cookie or ""))
        except (TamperedEvidence, ValueError, TypeError):
            raise NotSignedIn("the sign-in was not begun in this browser") from None
        if way["until"] < self.clock().timestamp():
            raise NotSignedIn("the sign-in took too long")
        return dict(way)

    def _exchange(self, code: str, verifier: str) -> dict[str, Any]:
        from authlib.integrations.base_client import OAuthError

        url = self._metadata()["token_endpoint"]
        with self._client() as client:
            try:
                return dict(client.fetch_token(url, code=code, code_verifier=verifier))
            except OAuthError:
                raise NotSignedIn("the issuer does not know this sign-in") from None
            except Exception as error:  # of the network: its words may hold the code
                raise _unreachable(error) from None

    def _claims(self, token: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """The claims of the ID token, all of them checked."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            raw = str(token["id_token"])
            read = jwt.decode(raw, self._keys(raw), algorithms=list(ALGORITHMS))
            claims = CodeIDToken(
                read.claims,
                read.header,
                options={
                    "iss": {"essential": True, "value": self.part.issuer},
                    "aud": {"essential": True, "value": self.part.client_id},
                },
                params={"nonce": nonce, "client_id": self.part.client_id, "access_token": token.get("access_token")},
            )
            claims.validate(now=int(self.clock().timestamp()), leeway=LEEWAY_SECONDS)
        except (JoseError, KeyError, ValueError, TypeError):
            raise NotSignedIn("the issuer's token is not valid here") from None
        return dict(claims)

    def _actor(self, claims: Mapping[str, Any]) -> Actor:
        told = claims.get(self.part.role_claim)
        values = [told] if isinstance(told, str) else told if isinstance(told, list) else []
        found = {self.part.roles[value] for value in values if isinstance(value, str) and value in self.part.roles}
        if not found:
            raise NotSignedIn("nobody with these groups has a role here")
        # the least of several that decide: one person in two roles would be four eyes
        role = next(one for one in ROLES if one in found)
        token = None
        if role == "subject":
            identity = claims.get(self.part.identity_claim)
            unsure = self.part.identity_claim == "email" and claims.get("email_verified") is not True
            if not isinstance(identity, str) or not identity or unsure:
                raise NotSignedIn("the token does not say who the subject is")
            token = self.identities.token(identity)
        return Actor(id=self._actor_id(str(claims["sub"])), role=role, subject_token=token)

    def _actor_id(self, subject: str) -> str:
        """A keyed hash under the oldest key, so that a rotation makes nobody a second person."""
        tagged = self.identities.tokens(hashlib.sha256(f"{self.part.issuer}\x00{subject}".encode()).hexdigest())[-1]
        return "oidc_" + base64.b32encode(hashlib.sha256(tagged.encode()).digest()[:16]).decode().rstrip("=").lower()

    # --- what the issuer says of itself -------------------------------------------------------------------------------

    def _metadata(self) -> dict[str, Any]:
        url = self.part.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = self._get(url, KNOWN_SECONDS)
        if found.get("issuer") != self.part.issuer:
            raise RunError("the issuer calls itself something else", "Set `issuer` to the name in its metadata")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            scheme = urlsplit(str(found.get(name, ""))).scheme
            if scheme != "https" and not (self.part.development and scheme == "http"):
                raise RunError(f"the issuer's {name} does not use https", "Ask whoever runs it")
        return found

    def _keys(self, token: str) -> Any:
        from joserfc.jwk import KeySet

        url = str(self._metadata()["jwks_uri"])
        found = KeySet.import_key_set(self._get(url, KNOWN_SECONDS))  # type: ignore[arg-type]
        wanted = _header(token).get("kid")
        if wanted is not None and all(key.kid != wanted for key in found.keys):
            # the issuer may have a new key; whoever sends made-up names makes us ask once in a while
            found = KeySet.import_key_set(self._get(url, ANEW_SECONDS))  # type: ignore[arg-type]
        return found

    def _get(self, url: str, oldest: float) -> dict[str, Any]:
        with self._lock:
            at, known = self._known.get(url, (0.0, {}))
            if known and self._tick() - at < oldest:
                return known
            with self._client() as client:
                try:
                    reply = client.request("GET", url, withhold_token=True)
                    reply.raise_for_status()
                    found = reply.json()
                except Exception as error:
                    raise _unreachable(error) from None
            if not isinstance(found, dict):
                raise RunError("the issuer's metadata is no JSON object", "Check `issuer`")
            self._known[url] = (self._tick(), found)
            return found

    def _client(self) -> OAuth2Client:
        from authlib.integrations.httpx_client import OAuth2Client

        variable = self.part.client_secret_variable
        secret = os.environ.get(variable) if variable else None
        if variable and not secret:
            raise RequestError(f"the environment variable {variable} is empty", "Set it to the client's secret")
        return OAuth2Client(
            client_id=self.part.client_id,
            client_secret=secret,
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            scope=" ".join(self.part.scopes),
            redirect_uri=self.part.redirect_uri,
            code_challenge_method="S256",
            **{"timeout": CALL_SECONDS, "trust_env": False, "verify": _tls(), **self._client_options},
        )


@cache
def _tls() -> ssl.SSLContext:
    """The system's certificates, read once."""
    return ssl.create_default_context()


def _header(token: str) -> dict[str, Any]:
    first = token.split(".")[0]
    found = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    return found if isinstance(found, dict) else {}


def _unreachable(error: Exception) -> RunError:
    return RunError(f"the issuer cannot be asked ({type(error).__name__})", "Check that it is running, and try again")
