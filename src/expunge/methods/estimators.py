"""scikit-learn's conventions around learners that were built to forget: `fit`, `forget`, `predict`, numpy in and out.

Each class here has the hyper-parameters of one learner, under the same names and with the same defaults, and
scikit-learn's own estimator checks pass for it. Beyond the conventions there are three things: `fit` takes `ids` and
`owners`, `forget` and `forget_owner` make the fitted estimator forget and say with which guarantee, and `state_` is
what the learner remembers.

Labels may be of any kind; inside, classes are numbers in the order of `classes_`. When the last record of a class is
forgotten the classes are numbered anew and the rest is fitted again, since `classes_` would otherwise tell of it.

What a step before the estimator in a pipeline has learned (the means of a scaler) it does not forget.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from time import process_time
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin, RegressorMixin
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from expunge.data.records import Array, Records
from expunge.errors import RequestError, UnknownIds
from expunge.methods.exact.dare import DareForest
from expunge.methods.exact.dckmeans import ROOT, DivideAndConquerKMeans
from expunge.methods.exact.knn import NearestNeighbours
from expunge.methods.exact.naive_bayes import NaiveBayes
from expunge.methods.exact.qkmeans import QuantisedKMeans
from expunge.methods.exact.ridge import Ridge
from expunge.methods.exact.statistical_query import StatisticalQuery
from expunge.methods.learner import LearnedModel, Learner, State
from expunge.result import Unlearned

__all__ = [
    "ESTIMATORS",
    "DareForestClassifier",
    "DivideAndConquerKMeansClusterer",
    "ForgettingEstimator",
    "NaiveBayesClassifier",
    "NearestNeighboursClassifier",
    "QuantisedKMeansClusterer",
    "RidgeRegressor",
    "StatisticalQueryClassifier",
]

FLOATS = (np.float64, np.float32)


class ForgettingEstimator(BaseEstimator):  # type: ignore[misc]
    """What all of them share. A subclass names its learner and writes out ``__init__``, as scikit-learn asks.

    Attributes:
        state_: what was learned and the remaining rows (`expunge.methods.learner.State`); a bitwise exact learner's
            ``state_.digest()`` equals that of a fit on what remains, with the same ids.
        learner_: the learner that made it. n_features_in_, feature_names_in_: see scikit-learn.
    """

    learner_class: ClassVar[type[Learner]]
    state_: State
    learner_: Learner
    _seed: ClassVar[int] = 0

    def forget(self, ids: Collection[str] | str | int) -> Unlearned:
        """Forget the records of `ids`, in place. Numbers are taken as their decimal strings.

        Returns:
            The outcome: guarantee, cost, trace and the model, which predicts class numbers, not labels.

        Raises:
            NotFittedError. EmptyForgetSet, UnknownIds, EmptyRetainSet: nothing has changed then.
        """
        check_is_fitted(self)
        wanted = [str(i) for i in ([ids] if isinstance(ids, str | int | np.integer) else ids)]
        return self._forget(self.learner_.check_ids(self.state_, wanted))

    def forget_owner(self, owner: str | int) -> Unlearned:
        """Forget all records of `owner`; the first call makes an index of owners, O(n).

        Raises:
            NotFittedError, EmptyRetainSet. DataError: `fit` was not told the owners. UnknownIds: nobody of that name.
        """
        check_is_fitted(self)
        rows = self.state_.rows
        own = rows.table.ids[rows.of_owner(str(owner))].tolist()
        if not own:
            raise UnknownIds("owners", [str(owner)], "the learner's records")
        return self.forget(own)

    def _forget(self, ids: tuple[str, ...]) -> Unlearned:
        self.state_, unlearned = self.learner_.forget(self.state_, ids)
        return unlearned

    def _learn(self, x: Array, y: Array | None, ids: Any, owners: Any) -> Self:
        columns = {"x": x} if y is None else {"x": x, "y": y}
        records = Records(
            ids=_names(np.arange(len(x)) if ids is None else ids),
            columns=columns,
            owners=None if owners is None else _names(owners),
        )
        learner = self._learner()
        self.state_ = learner.fit(records, seed=self._checked_seed())
        self.learner_ = learner
        return self

    def _learner(self) -> Learner:
        return self.learner_class(**{f.name: getattr(self, f.name) for f in fields(self.learner_class)})  # type: ignore[arg-type]

    def _checked_seed(self) -> int:
        seed = getattr(self, "random_state", self._seed)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise RequestError(
                f"random_state is {seed!r}, expected a whole number ≥ 0",
                "Give a number: what is drawn must be drawn again when a record is forgotten",
            )
        return int(seed)

    def _features(self, x: Any) -> Array:
        check_is_fitted(self)
        return np.asarray(validate_data(self, x, reset=False, dtype=FLOATS))


def _names(values: Any) -> Array:
    """Strings for ids or owners."""
    array = np.asarray(values)
    if array.dtype.kind in "iu" and array.size:
        # at the width they need: numpy reserves 21 characters for each
        return array.astype(f"U{max(len(str(array.min())), len(str(array.max())))}")
    return array.astype(str)


class _Classifier(ClassifierMixin, ForgettingEstimator):  # type: ignore[misc]
    """Attributes: classes_, (classes,) the labels, sorted."""

    def fit(self, X: Any, y: Any, ids: Any = None, owners: Any = None) -> Self:
        """Learn from (n, d) features and (n,) labels.

        Args:
            ids: (n,) strings or numbers, unique; the row numbers "0", "1", … if none are given.
            owners: (n,) whose record it is; needed for `forget_owner` only.

        Raises:
            ValueError: what scikit-learn refuses. DataError: a repeated id, another number of ids than rows.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        if get_tags(self).input_tags.positive_only:
            check_non_negative(X, type(self).__name__)
        classes, numbers = np.unique(y, return_inverse=True)
        self._learn(X, numbers.astype(np.int64), ids, owners)
        self.classes_ = classes
        self._counts = np.bincount(numbers, minlength=len(classes))
        return self

    def predict(self, X: Any) -> Array:
        """(n,) labels for (n, d) features."""
        x = self._features(X)
        return np.asarray(self.classes_[self.learner_.predict(self.state_, x)])

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """(n, classes) probabilities, in the order of `classes_`: the softmax of the learner's scores."""
        x = self._features(X)
        scores = np.asarray(self.learner_.scores(self.state_, x), np.float64)
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def _forget(self, ids: tuple[str, ...]) -> Unlearned:
        rows = self.state_.rows
        gone = np.bincount(rows.column("y")[rows.at(ids)], minlength=len(self._counts))
        unlearned = super()._forget(ids)
        self._counts = self._counts - gone
        return unlearned if self._counts.all() else self._renumber(unlearned)

    def _renumber(self, unlearned: Unlearned) -> Unlearned:
        """Fit what remains with the classes that remain."""
        started = process_time()
        here = np.flatnonzero(self._counts)
        rest = self.state_.rows.records()
        columns = {"x": rest.x, "y": np.searchsorted(here, rest.y)}
        state = self.learner_.fit(Records(ids=rest.ids, columns=columns, owners=rest.owners), seed=self.state_.seed)
        self.state_, self.classes_, self._counts = state, self.classes_[here], self._counts[here]
        cost = unlearned.cost
        return replace(
            unlearned,
            model=LearnedModel(self.learner_, state),
            cost=replace(
                cost, seconds=cost.seconds + process_time() - started, examples=cost.examples + len(state.rows)
            ),
            trace=(*unlearned.trace, {"event": "classes numbered anew", "classes": len(here)}),
        )


class _Regressor(RegressorMixin, ForgettingEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any, ids: Any = None, owners: Any = None) -> Self:
        """Learn from (n, d) features and (n,) targets.

        Args:
            ids: (n,) strings or numbers, unique; the row numbers "0", "1", … if none are given.
            owners: (n,) whose record it is; needed for `forget_owner` only.

        Raises:
            ValueError: what scikit-learn refuses. DataError: a repeated id, another number of ids than rows.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, y_numeric=True)
        return self._learn(X, np.asarray(y, np.float64), ids, owners)

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """(n,) values for (n, d) features."""
        x = self._features(X)
        return np.asarray(self.learner_.predict(self.state_, x))


class _Clusterer(ClusterMixin, ForgettingEstimator):  # type: ignore[misc]
    """Attributes: labels_, (remaining rows,) the cluster of each, in the order they came; computed when asked for."""

    def fit(self, X: Any, y: Any = None, ids: Any = None, owners: Any = None) -> Self:
        """Find clusters among (n, d) features.

        Args:
            y: ignored. ids: (n,) strings or numbers, unique; the row numbers "0", "1", … if none are given.
            owners: (n,) whose record it is; needed for `forget_owner` only.

        Raises:
            ValueError: what scikit-learn refuses, and fewer rows than clusters. DataError: a repeated id, another
            number of ids than rows.
        """
        clusters = getattr(self, "clusters", 1)
        X = validate_data(self, X, dtype=FLOATS, ensure_min_samples=clusters if isinstance(clusters, int) else 1)
        return self._learn(X, None, ids, owners)

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """(n,) cluster numbers for (n, d) features."""
        x = self._features(X)
        return np.asarray(self.learner_.predict(self.state_, x))

    @property
    def labels_(self) -> npt.NDArray[np.int64]:
        check_is_fitted(self)
        return np.asarray(self.learner_.predict(self.state_, self.state_.rows.records().x))


class RidgeRegressor(_Regressor):
    """Linear regression with a quadratic penalty that forgets a row in O(d²): `expunge.methods.exact.ridge.Ridge`.

    Attributes:
        coef_: (d,). intercept_: a number.
    """

    learner_class = Ridge

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        fit_intercept: bool = True,
        smallest_remainder: float = 1e-3,
        tolerance: float = 1e-9,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.smallest_remainder = smallest_remainder
        self.tolerance = tolerance

    @property
    def coef_(self) -> npt.NDArray[np.float64]:
        check_is_fitted(self)
        return np.array(self.state_.parts["model"]["coefficients"])

    @property
    def intercept_(self) -> float:
        check_is_fitted(self)
        return float(self.state_.parts["model"]["intercept"][0])


class NearestNeighboursClassifier(_Classifier):
    """k nearest neighbours that forgets a row by erasing it: `expunge.methods.exact.knn.NearestNeighbours`.

    `random_state` decides which of several equally far records come first.
    """

    learner_class = NearestNeighbours

    def __init__(self, *, neighbours: int = 5, smoothing: float = 1.0, random_state: int = 0) -> None:
        self.neighbours = neighbours
        self.smoothing = smoothing
        self.random_state = random_state


class NaiveBayesClassifier(_Classifier):
    """Naive Bayes from exact sums: `expunge.methods.exact.naive_bayes.NaiveBayes`."""

    learner_class = NaiveBayes

    def __init__(
        self,
        *,
        likelihood: Literal["gaussian", "multinomial", "bernoulli"] = "gaussian",
        alpha: float = 1.0,
        var_smoothing: float = 1e-9,
        prior_smoothing: float = 1.0,
        threshold: float = 0.0,
        step: float = NaiveBayes.step,
    ) -> None:
        self.likelihood = likelihood
        self.alpha = alpha
        self.var_smoothing = var_smoothing
        self.prior_smoothing = prior_smoothing
        self.threshold = threshold
        self.step = step

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.likelihood == "multinomial"
        # features that are no counts are not what it is made for; scikit-learn says the same of its own
        tags.classifier_tags.poor_score = self.likelihood == "multinomial"
        return tags


class StatisticalQueryClassifier(_Classifier):
    """Logistic regression that converges again: `expunge.methods.exact.statistical_query.StatisticalQuery`.

    Not exact: its outcomes are ``Empirical``, with a bound on the distance in ``state_.facts``.
    """

    learner_class = StatisticalQuery

    def __init__(self, *, l2: float = 1e-2, tolerance: float = 1e-8, iterations: int = 100) -> None:
        self.l2 = l2
        self.tolerance = tolerance
        self.iterations = iterations


class DareForestClassifier(_Classifier):
    """A random forest that regrows only the subtrees whose split changes: `expunge.methods.exact.dare.DareForest`."""

    learner_class = DareForest

    def __init__(
        self,
        *,
        trees: int = 100,
        max_depth: int | None = None,
        random_depth: int = 0,
        thresholds: int = 25,
        attributes: int | None = None,
        criterion: str = "gini",
        min_samples_split: int = 2,
        cache_above: int = 1000,
        random_state: int = 0,
    ) -> None:
        self.trees = trees
        self.max_depth = max_depth
        self.random_depth = random_depth
        self.thresholds = thresholds
        self.attributes = attributes
        self.criterion = criterion
        self.min_samples_split = min_samples_split
        self.cache_above = cache_above
        self.random_state = random_state


class QuantisedKMeansClusterer(_Clusterer):
    """k-means whose rounded centroids seldom move: `expunge.methods.exact.qkmeans.QuantisedKMeans`.

    Attributes:
        cluster_centers_: (clusters, d).
    """

    learner_class = QuantisedKMeans

    def __init__(
        self,
        *,
        clusters: int = 8,
        iterations: int = 10,
        epsilon: float = 0.05,
        gamma: float = 0.2,
        random_state: int = 0,
    ) -> None:
        self.clusters = clusters
        self.iterations = iterations
        self.epsilon = epsilon
        self.gamma = gamma
        self.random_state = random_state

    @property
    def cluster_centers_(self) -> npt.NDArray[np.float64]:
        check_is_fitted(self)
        return np.array(self.state_.parts["model"]["centres"])


class DivideAndConquerKMeansClusterer(_Clusterer):
    """k-means over a tree of random leaves: `expunge.methods.exact.dckmeans.DivideAndConquerKMeans`.

    Attributes:
        cluster_centers_: (clusters, d).
    """

    learner_class = DivideAndConquerKMeans

    def __init__(
        self,
        *,
        clusters: int = 8,
        iterations: int = 10,
        widths: tuple[int, ...] = (1, 16),
        random_state: int = 0,
    ) -> None:
        self.clusters = clusters
        self.iterations = iterations
        self.widths = widths
        self.random_state = random_state

    @property
    def cluster_centers_(self) -> npt.NDArray[np.float64]:
        check_is_fitted(self)
        return np.array(self.state_.parts[ROOT]["centres"])


ESTIMATORS: dict[str, type[ForgettingEstimator]] = {
    estimator.learner_class.name: estimator
    for estimator in (
        RidgeRegressor,
        NearestNeighboursClassifier,
        NaiveBayesClassifier,
        StatisticalQueryClassifier,
        DareForestClassifier,
        QuantisedKMeansClusterer,
        DivideAndConquerKMeansClusterer,
    )
}
