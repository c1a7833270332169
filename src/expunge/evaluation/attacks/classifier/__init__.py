"""Attacks on classifiers: explicit table, name -> class. Adding one touches its file, a line here, test and page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.errors import RequestError, UnknownName
from expunge.evaluation.attacks.classifier.contract import ClassifierAttack
from expunge.evaluation.attacks.classifier.lira import Lira
from expunge.evaluation.attacks.classifier.population_loss import PopulationLoss
from expunge.evaluation.attacks.classifier.reconstruction import Reconstruction
from expunge.evaluation.attacks.classifier.relearn_classifier import RelearnClassifier
from expunge.evaluation.attacks.classifier.rmia import Rmia

CLASSIFIER_ATTACKS: dict[str, type[ClassifierAttack]] = {
    RelearnClassifier.name: RelearnClassifier,
    PopulationLoss.name: PopulationLoss,
    Rmia.name: Rmia,
    Lira.name: Lira,
    Reconstruction.name: Reconstruction,
}


def make_classifier_attack(name: str, settings: Mapping[str, Any] | None = None) -> ClassifierAttack:
    """An attack with some settings.

    Raises:
        UnknownName: no such attack. RequestError: a setting it does not have, or out of range.
    """
    if name not in CLASSIFIER_ATTACKS:
        raise UnknownName("attack on classifiers", name, CLASSIFIER_ATTACKS)
    try:
        return CLASSIFIER_ATTACKS[name](**(settings or {}))
    except TypeError as error:
        raise RequestError(f"{name} does not take these settings ({error})", "Correct them") from error
