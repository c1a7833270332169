"""The exposure timeline: from the receipt on, how strongly each target was kept from telling of the subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from expunge.service.entities import Exposed, Layer, Request
from expunge.service.words import LAYER_DONE, STAGES

AFTER = {"suppress": "suppressed", "approximate": "approximate", "exact": "gone"}


def exposure_of(request: Request, layers: Sequence[Layer]) -> list[Exposed]:
    """Stretches of time by target, in order. A stage counts from the moment it ended well, and never backwards.

    A box stands before a model and holds nothing itself, so a suppression at a box counts for the targets that it
    fronts: `Layer.outcome` names them under ``fronts``.
    """
    told: list[Exposed] = []
    holders = sorted({one.target for one in layers if one.kind != "box"})
    boxes = [one for one in layers if one.kind == "box"]
    for target in holders or sorted({one.target for one in boxes}):
        own = [one for one in layers if one.target == target]
        fronts = [one for one in boxes if one.target != target and target in one.outcome.get("fronts", ())]
        told += _stretches(target, request.received_at, [*own, *fronts])
    return told


def _stretches(target: str, start: datetime, layers: Sequence[Layer]) -> list[Exposed]:
    done = [(one.ended_at, one.stage) for one in layers if one.status in LAYER_DONE and one.ended_at is not None]
    told = [Exposed(target=target, state="in_force", start=start, to=None)]
    strongest = -1
    for ended, stage in sorted(done):
        if STAGES.index(stage) <= strongest:
            continue
        strongest = STAGES.index(stage)
        told[-1] = replace(told[-1], to=ended)
        told.append(Exposed(target=target, state=AFTER[stage], start=ended, to=None))
    if strongest == len(STAGES) - 1:
        told[-1] = replace(told[-1], to=told[-1].start)
    return told
