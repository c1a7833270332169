"""Keys of programs."""

from __future__ import annotations

from dataclasses import asdict

from expunge.service.api.answers import KeyMade, KeyOut, KeysOut
from expunge.service.api.bodies import KeyBody
from expunge.service.api.context import Asker, Here, router, serve
from expunge.service.api.wire import KeyId

routes = router()


@serve(routes, "make_key", response_model=KeyMade)
def make_key(body: KeyBody, here: Here, actor: Asker) -> KeyMade:
    """An approver's by an approver, any other by an operator: so nobody can be both pairs of four eyes."""
    key, text = here.access.keys.make(actor, body.role, body.name, identity=body.identity, days=body.days)
    return KeyMade(**asdict(key), key=text)


@serve(routes, "list_keys", response_model=KeysOut)
def list_keys(here: Here, actor: Asker) -> KeysOut:
    return KeysOut(items=[KeyOut(**asdict(key)) for key in here.access.keys.list(actor)])


@serve(routes, "revoke_key")
def revoke_key(key_id: KeyId, here: Here, actor: Asker) -> None:
    """At once; sessions that were begun with it end too."""
    here.access.keys.revoke(actor, key_id)
