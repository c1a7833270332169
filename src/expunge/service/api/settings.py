"""Settings of the API, from a YAML file beside the policy.

development: false                 # true: webhooks may go to this machine, over http
opendsr: {domain: privacy.example.com, identity_types: [controller_customer_id]}
access:
  secure: true                     # reached over https
  session_hours: 8
  limits: {key_per_second: 200, key_burst: 400, body_bytes: 1000000}
  oidc:
    issuer: https://login.example.com
    client_id: expunge
    client_secret_variable: EXPUNGE_OIDC_SECRET
    redirect_uri: https://privacy.example.com/sign-in/back
    role_claim: groups
    roles: {privacy-team: operator, privacy-leads: approver, audit: auditor}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from expunge.errors import RequestError
from expunge.request import Strict, explain, known_fields
from expunge.service.access.gate import AccessPart
from expunge.service.access.limits import LimitsPart
from expunge.service.access.oidc import OidcPart


class OpenDsrPart(Strict):
    """The OpenDSR profile.

    Args:
        domain: of this processor, for the header ``X-OpenDSR-Processor-Domain``. identity_types: those that are owners
            in the data here. certificate, key: PEM files that answers are signed with; None: they are not signed.
    """

    domain: str = Field("localhost", pattern=r"^[a-z0-9.-]{1,253}$")
    identity_types: tuple[str, ...] = ("controller_customer_id", "email")
    certificate: str | None = None
    key: str | None = None


class ApiPart(Strict):
    """Settings of the API.

    Args:
        access: keys, sessions, limits. development: webhooks may go to this machine, over http. title: of the document.
    """

    access: AccessPart = AccessPart()
    opendsr: OpenDsrPart = OpenDsrPart()
    development: bool = False
    title: str = "expunge"

    @classmethod
    def read(cls, path: Path) -> ApiPart:
        """The settings in a YAML file.

        Raises:
            RequestError: not there, not readable, or a field is wrong.
        """
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RequestError(f"cannot read {path} ({error.strerror})", "Give the path of a YAML file") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RequestError(f"{path} is not YAML", "Correct it; docs/api.md shows one") from error
        if not isinstance(value, Mapping):
            raise RequestError(f"{path} is not a mapping of fields", "See docs/api.md")
        try:
            return cls.model_validate(dict(value))
        except ValidationError as error:
            names = known_fields(cls, OpenDsrPart, AccessPart, LimitsPart, OidcPart)
            raise RequestError(
                f"{path} does not hold valid settings: {explain(error, names)}", "Correct those fields; see docs/api.md"
            ) from error
