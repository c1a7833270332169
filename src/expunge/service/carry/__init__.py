"""What is done to a layer: one file a kind of target."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.service.carry.box import Box
from expunge.service.carry.contract import Handler
from expunge.service.carry.dataset import Dataset
from expunge.service.carry.learner import LearnerFolder
from expunge.service.carry.trained import TrainedModel

KINDS: Mapping[str, Handler] = {
    handler.kind: handler for handler in (LearnerFolder(), TrainedModel(), Dataset(), Box())
}
