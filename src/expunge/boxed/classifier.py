"""A small frozen classifier of texts: hashed letter n-grams and a logistic regression, fitted when the rules are read.

It lives in memory only: weights over hashed n-grams of a handful of secrets would give them away on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import RequestError

FEATURES = 2**16


@dataclass(frozen=True, kw_only=True, repr=False)
class Lesson:
    """Ordinary texts, which must not be kept back.

    Args:
        texts: at least 2. where: the file they come from, for messages.
    """

    texts: tuple[str, ...]
    where: str


class Classifier:
    """Args:
    weights, bias: of the logistic regression; None where there was nothing to learn: then nothing is ever kept back.
    """

    def __init__(self, weights: np.ndarray | None, bias: float) -> None:
        self._weights, self._bias = weights, bias

    def score(self, text: str) -> float:
        """Probability, by the classifier, that a text is of the kind that must not be told; 0 without examples."""
        if self._weights is None:
            return 0.0
        row = _vectors([text])
        return float(1 / (1 + np.exp(-(row @ self._weights + self._bias)))[0])


def fit_classifier(marked: Sequence[str], lesson: Lesson) -> Classifier:
    """Deterministic in the texts.

    Raises:
        RequestError: fewer than 2 ordinary texts.
    """
    if len(lesson.texts) < 2:
        raise RequestError(f"{lesson.where} has {len(lesson.texts)} ordinary texts", "Give at least 2, better 50")
    if not marked:
        return Classifier(None, 0.0)
    from sklearn.linear_model import LogisticRegression

    labels = np.r_[np.ones(len(marked)), np.zeros(len(lesson.texts))]
    fitted = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500)
    fitted.fit(_vectors([*marked, *lesson.texts]), labels)
    return Classifier(fitted.coef_[0], float(fitted.intercept_[0]))


def _vectors(texts: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    from expunge.filters.normal import normal_form

    hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), n_features=FEATURES, alternate_sign=True)
    return hashed.transform([normal_form(t) for t in texts])


def read_lesson(path: str | Path, column: str) -> Lesson:
    """Ordinary texts from JSON lines, a JSON or YAML list: strings, or mappings with a field `column`.

    Raises:
        RequestError: not there, or not of that form.
    """
    import json

    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        rows = (
            [json.loads(s) for s in text.splitlines() if s.strip()] if path.suffix == ".jsonl" else yaml.safe_load(text)
        )
    except (OSError, ValueError, yaml.YAMLError):
        raise RequestError(f"cannot read ordinary texts from {path}", "Give JSON lines, or a list in YAML") from None
    texts = [r.get(column) if isinstance(r, dict) else r for r in rows] if isinstance(rows, list) else [None]
    if not all(isinstance(t, str) for t in texts):
        raise RequestError(f"not every entry of {path} is a text or has a field {column}", "Correct the file")
    return Lesson(texts=tuple(str(t) for t in texts), where=str(path))
