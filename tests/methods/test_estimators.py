"""scikit-learn's conventions: its own checks, labels of any kind, forgetting by id and by owner."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_clusterer, is_regressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from expunge.errors import (
    DataError,
    EmptyForgetSet,
    EmptyRetainSet,
    RequestError,
    UnknownIds,
)
from expunge.guarantee import Empirical, Exact
from expunge.methods.estimators import (
    ESTIMATORS,
    DareForestClassifier,
    DivideAndConquerKMeansClusterer,
    ForgettingEstimator,
    NaiveBayesClassifier,
    NearestNeighboursClassifier,
    QuantisedKMeansClusterer,
    RidgeRegressor,
    StatisticalQueryClassifier,
)

SMALL: dict[str, dict[str, Any]] = {
    "dare": {"trees": 10},
    "qkmeans": {"clusters": 3},
    "dckmeans": {"clusters": 3, "widths": (1, 4)},
}
WORDS = np.array(["setosa", "versicolor", "virginica"])


def small(name: str) -> ForgettingEstimator:
    return ESTIMATORS[name](**SMALL.get(name, {}))


def data(name: str) -> tuple[Any, Any]:
    """Features and targets: flowers with their names, or patients with a number each."""
    if is_regressor(ESTIMATORS[name]()):
        return load_diabetes(return_X_y=True)
    x, y = load_iris(return_X_y=True)
    return x, WORDS[y]


def answers(estimator: Any, x: Any) -> Any:
    return estimator.predict_proba(x) if is_classifier(estimator) else estimator.predict(x)


CHECKED = [
    *(small(name) for name in ESTIMATORS),
    RidgeRegressor(fit_intercept=False, alpha=0.1),
    NearestNeighboursClassifier(neighbours=1),
    NaiveBayesClassifier(likelihood="bernoulli"),
    NaiveBayesClassifier(likelihood="multinomial"),
]


def checks() -> list[Any]:
    """All of scikit-learn's checks but the one that skips itself unless SCIPY_ARRAY_API is set: arrays are numpy's."""
    found = [pair for estimator in CHECKED for pair in estimator_checks_generator(estimator, mark=None)]
    names = [getattr(check, "func", check).__name__ for _, check in found]
    return [
        pytest.param(estimator, check, id=f"{type(estimator).__name__}-{name}-{k}")
        for k, ((estimator, check), name) in enumerate(zip(found, names, strict=True))
        if name != "check_array_api_input"
    ]


@pytest.mark.parametrize(("estimator", "check"), checks())
def test_passes_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_has_the_hyper_parameters_of_its_learner(name: str) -> None:
    estimator = ESTIMATORS[name]
    defaults = {p.name: p.default for p in inspect.signature(estimator).parameters.values()}
    assert defaults.pop("random_state", 0) == 0
    assert defaults == {f.name: f.default for f in fields(estimator.learner_class)}  # type: ignore[arg-type]
    kind = {"regression": is_regressor, "classification": is_classifier, "clustering": is_clusterer}
    assert kind[estimator.learner_class.task](estimator())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_forgetting_equals_a_fit_on_what_remains(name: str) -> None:
    x, y = data(name)
    ids = np.array([f"f{i}" for i in range(len(x))])
    gone = [3, 149, 0, 70, 71]
    keep = np.setdiff1d(np.arange(len(x)), gone)
    estimator = small(name).fit(x, y, ids=ids)
    before = answers(estimator, x)
    outcome = estimator.forget(ids[gone[:1]])
    assert len(estimator.state_.rows) == len(x) - 1
    outcome = estimator.forget(ids[gone[1:]].tolist())
    fresh = small(name).fit(x[keep], y[keep], ids=ids[keep])
    assert estimator.n_features_in_ == x.shape[1]
    equality = estimator.learner_class.equality
    if equality == "bitwise":
        assert outcome.guarantee == Exact(equality="bitwise")
        assert estimator.state_.digest() == fresh.state_.digest()
        np.testing.assert_array_equal(answers(estimator, x), answers(fresh, x))
    else:
        assert outcome.guarantee == (Empirical() if equality is None else Exact(equality=equality))
        np.testing.assert_allclose(answers(estimator, x), answers(fresh, x), rtol=1e-5, atol=1e-8)
    assert before.shape == answers(estimator, x).shape


@pytest.mark.parametrize("name", ESTIMATORS)
def test_ids_are_row_numbers_unless_given(name: str) -> None:
    x, y = data(name)
    one, two, three = small(name), small(name), small(name)
    one.fit(x, y).forget(7)
    two.fit(x, y, ids=list(range(len(x)))).forget(["7"])
    three.fit(x, y, ids=np.arange(len(x)).astype(str)).forget(np.array([7, 7]))
    assert one.state_.digest() == two.state_.digest() == three.state_.digest()
    assert one.state_.rows.table.ids.dtype.itemsize == 4 * 3
    with pytest.raises(UnknownIds):
        one.forget("7")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_owner_is_forgotten(name: str) -> None:
    x, y = data(name)
    owners = np.arange(len(x)) % 10
    estimator = small(name).fit(x, y, owners=owners)
    estimator.forget(13)
    estimator.forget_owner(3)
    left = estimator.state_.rows.records()
    assert left.owners is not None
    assert "3" not in left.owners.tolist()
    assert left.ids.tolist() == [str(i) for i in range(len(x)) if i % 10 != 3]
    with pytest.raises(UnknownIds, match="owners"):
        estimator.forget_owner(3)
    with pytest.raises(UnknownIds, match="owners"):
        estimator.forget_owner("")  # the rows that are gone have no owner
    with pytest.raises(DataError, match="no owners"):
        small(name).fit(x, y).forget_owner(3)


@pytest.mark.parametrize("name", ["knn", "naive_bayes", "statistical_query", "dare"])
@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_class_whose_last_record_goes_leaves_no_name(name: str, last: int) -> None:
    x, y = data(name)
    ids = np.arange(len(x)).astype(str)
    owners = np.arange(len(x)) // 5
    estimator = small(name).fit(x, y, ids=ids, owners=owners)
    own = ids[y == WORDS[last]]
    estimator.forget(own[:-1])
    assert estimator.classes_.tolist() == WORDS.tolist()
    outcome = estimator.forget(own[-1])
    keep = y != WORDS[last]
    fresh = small(name).fit(x[keep], y[keep], ids=ids[keep], owners=owners[keep])
    assert estimator.classes_.tolist() == fresh.classes_.tolist() == [w for w in WORDS if w != WORDS[last]]
    assert estimator.state_.digest() == fresh.state_.digest()
    np.testing.assert_array_equal(estimator.predict_proba(x), fresh.predict_proba(x))
    assert outcome.model.state is estimator.state_  # type: ignore[attr-defined]
    assert outcome.trace[-1] == {"event": "classes numbered anew", "classes": 2}
    assert outcome.cost.examples >= 100
    own = owners[keep][0]
    estimator.forget_owner(own)
    keep &= owners != own
    again = small(name).fit(x[keep], y[keep], ids=ids[keep])
    np.testing.assert_allclose(estimator.predict_proba(x), again.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("labels", [[-3, 5, 10], [2, 1, 0], ["b", "a", "c"], [True, False, True]])
def test_labels_of_any_kind(labels: list[Any]) -> None:
    x, y = load_iris(return_X_y=True)
    given = np.array(labels)[y]
    estimator = NearestNeighboursClassifier().fit(x, given)
    assert estimator.score(x, given) > 0.9
    assert estimator.predict(x).dtype == given.dtype
    assert estimator.classes_.tolist() == sorted(set(labels))


def test_probabilities_come_from_the_scores() -> None:
    x, y = data("knn")
    estimator = NearestNeighboursClassifier(neighbours=4, smoothing=0.25).fit(x, y)
    probabilities = estimator.predict_proba(x)
    np.testing.assert_allclose(probabilities, np.exp(estimator.learner_.scores(estimator.state_, x)), rtol=1e-12)
    assert np.unique(probabilities.round(12)).tolist() == pytest.approx(
        [0.25 / 4.75, 1.25 / 4.75, 2.25 / 4.75, 3.25 / 4.75, 4.25 / 4.75]
    )


def test_coefficients_follow() -> None:
    x, y = data("ridge")
    estimator = RidgeRegressor().fit(x, y)
    before = estimator.coef_, estimator.intercept_
    estimator.forget(range(50))
    np.testing.assert_allclose(x @ estimator.coef_ + estimator.intercept_, estimator.predict(x))
    assert before[1] != estimator.intercept_
    estimator.coef_[:] = 0  # a copy
    assert estimator.coef_.all()


@pytest.mark.parametrize(
    "estimator", [QuantisedKMeansClusterer(clusters=3), DivideAndConquerKMeansClusterer(clusters=3)]
)
def test_clusters_follow(estimator: Any) -> None:
    x, _ = data("qkmeans")
    assert estimator.fit_predict(x).shape == (150,)
    nearest = ((x[:, None] - estimator.cluster_centers_) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(estimator.labels_, nearest)
    estimator.forget(range(10))
    np.testing.assert_array_equal(estimator.labels_, estimator.predict(x[10:]))
    with pytest.raises(ValueError, match="minimum of 3"):
        clone(estimator).fit(x[:2])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_unfitted_and_unforgettable(name: str) -> None:
    estimator = small(name)
    for attribute in ("coef_", "intercept_", "labels_", "cluster_centers_", "classes_"):
        assert not hasattr(estimator, attribute)
    with pytest.raises(NotFittedError):
        estimator.forget("0")
    with pytest.raises(NotFittedError):
        estimator.forget_owner("0")
    x, y = data(name)
    estimator.fit(x, y)
    before = estimator.state_.digest()
    for wanted, refusal in [([], EmptyForgetSet), (["0", "none"], UnknownIds), (range(len(x)), EmptyRetainSet)]:
        with pytest.raises(refusal):
            estimator.forget(wanted)
    assert estimator.state_.digest() == before
    np.testing.assert_array_equal(answers(estimator, x), answers(clone(estimator).fit(x, y), x))


def test_the_callers_arrays_are_not_erased() -> None:
    x, y = data("ridge")
    kept, estimator = x.copy(), RidgeRegressor().fit(x, y)
    estimator.forget(range(20))
    np.testing.assert_array_equal(x, kept)


def test_hyper_parameters_are_read_at_fit() -> None:
    x, y = data("ridge")
    estimator = RidgeRegressor().set_params(alpha=-1.0)
    with pytest.raises(RequestError, match="alpha"):
        estimator.fit(x, y)
    assert not hasattr(estimator, "state_")
    estimator.set_params(alpha=2.0).fit(x, y).set_params(alpha=1e6)
    outcome = estimator.forget(0)
    assert outcome.parameters["alpha"] == 2.0
    assert outcome.trace[0]["made_again"] == "nothing"


@pytest.mark.parametrize("seed", [None, -1, 0.5, True, np.random.RandomState(0)])
def test_a_seed_is_a_number(seed: Any) -> None:
    x, y = data("knn")
    with pytest.raises(RequestError, match="random_state"):
        NearestNeighboursClassifier(random_state=seed).fit(x, y)


def test_the_seed_reaches_the_learner() -> None:
    x, y = data("dare")
    states = [DareForestClassifier(trees=2, random_depth=2, random_state=np.int64(s)).fit(x, y).state_ for s in (0, 5)]
    assert [s.seed for s in states] == [0, 5]
    assert states[0].digest() != states[1].digest()


def test_ids_and_owners_must_fit() -> None:
    x, y = data("ridge")
    with pytest.raises(DataError, match="2 times"):
        RidgeRegressor().fit(x, y, ids=["same", "same", *range(len(x) - 2)])
    with pytest.raises(DataError, match="ids"):
        RidgeRegressor().fit(x, y, ids=["0"])
    with pytest.raises(DataError, match="owners"):
        RidgeRegressor().fit(x, y, owners=["0"])


def test_works_in_pipelines_and_searches() -> None:
    x, y = data("knn")
    pipeline = make_pipeline(StandardScaler(), NearestNeighboursClassifier())
    search = GridSearchCV(pipeline, {"nearestneighboursclassifier__neighbours": [1, 5]}, cv=3).fit(x, y)
    assert search.best_score_ > 0.9
    search.best_estimator_[-1].forget("0")
    assert cross_val_score(StatisticalQueryClassifier(), x, y, cv=3).min() > 0.9
    pipeline.fit(x, y, nearestneighboursclassifier__ids=[f"i{i}" for i in range(150)])
    assert len(pipeline[-1].forget("i4").model.state.rows) == 149


@pytest.mark.parametrize("page", ["estimators.md", "methods/ridge.md", "methods/knn.md"])
def test_the_examples_on_the_pages_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for code in blocks:
        exec(compile(code, page, "exec"), {})
    assert "exact" in capsys.readouterr().out


def test_every_estimator_is_on_the_page() -> None:
    text = (Path(__file__).parents[2] / "docs" / "estimators.md").read_text(encoding="utf-8")
    assert [e.__name__ for e in ESTIMATORS.values() if f"`{e.__name__}`" not in text] == []
