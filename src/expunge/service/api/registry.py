"""The registry, and who must not be learned from again."""

from __future__ import annotations

from dataclasses import asdict

from expunge.service.api.answers import LineageOut, SuppressionOut, TargetOut, TargetsOut
from expunge.service.api.bodies import SuppressionBody, TargetBody
from expunge.service.api.context import Asker, Here, router, serve
from expunge.service.api.wire import TargetId
from expunge.service.registry import Target

routes = router()


def told(target: Target) -> TargetOut:
    values = {name: value for name, value in asdict(target).items() if name in TargetOut.model_fields}
    return TargetOut.model_validate({**values, "made_from": list(target.made_from)})


@serve(routes, "register_target", response_model=TargetOut)
def register_target(body: TargetBody, here: Here, actor: Asker) -> TargetOut:
    """Its owners are read and indexed as keyed hashes. The same again indexes it anew."""
    target = here.service.registry.register(Target(**{**body.model_dump(), "made_from": tuple(body.made_from)}))
    here.trail.tell(actor, "register_target", f"target:{target.id}")
    return told(target)


@serve(routes, "list_targets", response_model=TargetsOut)
def list_targets(here: Here, actor: Asker) -> TargetsOut:
    registry = here.service.registry
    return TargetsOut(items=[told(target) for target in registry.targets(retired=True)], kinds=sorted(registry.kinds))


@serve(routes, "get_target", response_model=TargetOut)
def get_target(target_id: TargetId, here: Here, actor: Asker) -> TargetOut:
    return told(here.service.registry.get(target_id))


@serve(routes, "reindex_target", response_model=TargetOut)
def reindex_target(target_id: TargetId, here: Here, actor: Asker) -> TargetOut:
    here.service.registry.reindex(target_id)
    here.trail.tell(actor, "reindex_target", f"target:{target_id}")
    return told(here.service.registry.get(target_id))


@serve(routes, "retire_target")
def retire_target(target_id: TargetId, here: Here, actor: Asker) -> None:
    """It is found no more; its history stays."""
    here.service.registry.retire(target_id)
    here.trail.tell(actor, "retire_target", f"target:{target_id}")


@serve(routes, "get_lineage", response_model=LineageOut)
def get_lineage(here: Here, actor: Asker) -> LineageOut:
    """`from`: ids of what each was made from."""
    return LineageOut(items=here.service.registry.lineage())


@serve(routes, "check_suppression", response_model=SuppressionOut)
def check_suppression(body: SuppressionBody, here: Here, actor: Asker) -> SuppressionOut:
    """Ask before rows are learned from. What is sent is hashed and kept nowhere."""
    here.trail.tell(actor, "check_suppression")
    return SuppressionOut(blocked=here.service.suppression.blocked(body.identities))
