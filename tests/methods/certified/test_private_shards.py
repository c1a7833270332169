"""Private shards: what answers cost, when they run out, and that forgetting touches the right shards alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.accounting.ledger import Ledger
from expunge.data.digits import load_digits
from expunge.data.records import Records
from expunge.errors import DataError, ModelError, RequestError
from expunge.guarantee import Certified
from expunge.methods.aggregate import vote_counts
from expunge.methods.certified.private_shards import PrivateShards
from expunge.methods.stack_parts import part_logits
from expunge.recipe import Recipe, Trainer

RECIPE = Recipe(
    factory="expunge.models.architectures:mlp",
    kwargs={"features": 64, "classes": 10, "width": 8},
    trainer=Trainer(epochs=2, batch_size=16),
)


@pytest.fixture(scope="module")
def records() -> Records:
    digits = load_digits().take(np.arange(150))
    owners = np.array([f"owner-{k // 5}" for k in range(150)])
    return Records(
        ids=digits.ids,
        columns={"x": digits.x.reshape(150, -1), "y": digits.y},
        owners=owners,
        classes=digits.classes,
    )


def learner(**changes: object) -> PrivateShards:
    return PrivateShards(**{"recipe": RECIPE, "shards": 6, "answers": 12, **changes})  # type: ignore[arg-type]


@given(
    bits=st.integers(1, 5),
    answers=st.integers(1, 3),
    rate=st.floats(0.05, 1.5),
    order=st.floats(1.1, 20.0),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_requests_depend_on_the_secret_bits_no_more_than_the_bound(
    bits: int, answers: int, rate: float, order: float, seed: int
) -> None:
    """Exact laws of independent bits, given any answers `rate`-private in each: D_α ≤ α Σ η²/8, both ways."""
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.1, 0.9, bits)
    secrets = np.array(list(itertools.product((0, 1), repeat=bits)))
    prior = np.prod(np.where(secrets == 1, chance, 1 - chance), axis=1)
    # one answer is a bit whose log-odds move by `rate` with each secret bit, so no likelihood moves by more
    offset = rng.normal(size=answers) * 2 - rate * bits / 2
    yes = 1 / (1 + np.exp(-(offset + rate * secrets.sum(1)[:, None])))
    told = np.array(list(itertools.product((0, 1), repeat=answers)))
    likelihood = np.prod(np.where(told[None] == 1, yes[:, None], 1 - yes[:, None]), axis=2)
    posterior = prior[:, None] * likelihood
    posterior /= posterior.sum(0)
    for one, other in ((posterior, prior[:, None]), (prior[:, None], posterior)):
        divergence = np.log((one**order * other ** (1 - order)).sum(0)) / (order - 1)
        assert divergence.max() <= order * bits * (answers * rate) ** 2 / 8 + 1e-12


def test_the_price_of_answers_by_hand() -> None:
    made = learner(shards=50)
    # 200 records whose shard moves two votes (4/b), 50 seeds that move one (2/b)
    assert made.rho(3, 200, 40.0) == pytest.approx((200 * (12 / 40) ** 2 + 50 * (6 / 40) ** 2) / 8)
    assert made.rho(0, 200, 40.0) == 0
    assert made.rho(6, 200, 40.0) == pytest.approx(4 * made.rho(3, 200, 40.0))
    spent = made.ledger(3, 200, 4000.0).epsilon(notion="rdp")
    rho = made.rho(3, 200, 4000.0)
    assert rho < spent < rho + 2 * math.sqrt(rho * math.log(1e5))


@pytest.mark.parametrize(("answers", "elements"), [(1, 10), (7, 150), (1000, 10**5)])
def test_the_default_noise_affords_the_planned_answers_and_not_one_more(answers: int, elements: int) -> None:
    made = learner(answers=answers)
    noise = made.noise_for(elements)
    assert made.affordable(elements, noise) == answers
    assert not made.ledger(answers, elements, noise).exhausted
    assert made.ledger(answers + 1, elements, noise).exhausted
    assert made.affordable(elements, noise * 2) >= 2 * answers
    assert learner(vote_noise=3.0).noise_for(elements) == 3.0


def test_answers_are_charged_once_each_and_run_out(records: Records) -> None:
    made = learner()
    state = made.fit(records, seed=3)
    assert made.answers_left(state) == 12 and Ledger.from_dict(state.facts["ledger"]).spent == 0
    before, x = state.digest(), records.x
    state, first = made.publish(state, x[:5])
    assert before != state.digest() and made.answers_left(state) == 7
    # the same again, twice in one call, and beside two others
    state, again = made.publish(state, np.concatenate([x[:5], x[:2], x[5:7]]))
    np.testing.assert_array_equal(again.scores[:5], first.scores)
    np.testing.assert_array_equal(again.scores[5:7], first.scores[:2])
    assert made.answers_left(state) == 5
    held = state.digest()
    for ask in (made.publish, made.predict, made.scores):
        with pytest.raises(RequestError, match="6 new answers are asked for and the ledger holds 5"):
            ask(state, x[10:16])
    assert state.digest() == held
    state, _ = made.publish(state, x[10:15])
    assert made.answers_left(state) == 0
    spent = Ledger.from_dict(state.facts["ledger"])
    assert not spent.exhausted and 0.999 < spent.spent <= 1.0
    # what was published may be asked for again, and in the house too
    np.testing.assert_array_equal(made.predict(state, x[:5]), first.labels)
    with pytest.raises(RequestError, match="new secret seed"):
        made.publish(state, x[20:21])
    assert made.answers_left(made.fit(records, seed=4)) == 12


def test_predicting_in_the_house_charges_nothing(records: Records) -> None:
    made = learner()
    state = made.fit(records)
    before = state.digest()
    made.predict(state, records.x[:9])
    scores = made.scores(state, records.x[:9])
    assert state.digest() == before and made.answers_left(state) == 12
    _, answer = made.publish(state, records.x[:9])
    np.testing.assert_array_equal(answer.scores, scores)


def test_zero_answers_cost_zero_and_others_what_the_ledger_says(records: Records) -> None:
    made = learner()
    state, unlearned = made.forget(made.fit(records), [records.ids[0]])
    assert isinstance(unlearned.guarantee, Certified)
    assert unlearned.guarantee.epsilon == 0 and unlearned.guarantee.delta == 1e-5
    state, _ = made.publish(state, records.x[:6])
    state, unlearned = made.forget(state, [records.ids[1]])
    half = made.ledger(6, 150, state.facts["answers"]["noise"]).epsilon(notion="rdp")
    assert unlearned.guarantee.epsilon == half and 0.3 < half < 0.7  # type: ignore[attr-defined]
    assert unlearned.trace[0]["answers_before"] == 6
    # the ensemble is another one now: its answers are new, and those before stay charged
    assert made.answers_left(state) == 6
    state, _ = made.publish(state, records.x[:6])
    assert made.answers_left(state) == 0


def test_forgetting_retrains_the_shards_that_held_the_records_and_no_other(records: Records) -> None:
    made = learner()
    state = made.fit(records, seed=2)
    gone = records.ids[[3, 90]].tolist()
    touched = {f"secret.shard.{s:04d}" for s in made.assign(records.select(gone), 2)}
    after, unlearned = made.forget(state, gone)
    assert {n for n in state.parts if after.parts[n] is not state.parts[n]} == touched
    assert len(touched) == len(unlearned.trace[0]["shards"]) < 6
    fresh = made.fit(records.without(gone), seed=2)
    assert after.part_digests() == fresh.part_digests()
    assert sum(int(part["records"]) for part in after.parts.values()) == 148
    turned = made.fit(records.take(np.arange(150)[::-1]), seed=2)
    assert turned.part_digests() == state.part_digests(), "the order in which records came must not matter"
    other = made.fit(records, seed=5)
    assert (made.assign(records, 2) != made.assign(records, 5)).mean() > 0.5
    assert other.part_digests() != state.part_digests()


def test_with_next_to_no_noise_it_is_the_plain_majority(records: Records) -> None:
    made = learner(vote_noise=1e-6, epsilon=1e30)
    state = made.fit(records)
    logits = np.stack(
        [part_logits(RECIPE, {k: v for k, v in p.items() if k != "records"}, records.x) for p in state.parts.values()]
    )
    counts = vote_counts(logits, np.ones(6))
    np.testing.assert_allclose(made.scores(state, records.x), counts, atol=1e-3)
    label = learner(vote_noise=1e-6, epsilon=1e30, mechanism="exponential")
    shown = label.scores(state, records.x)
    sure = np.sort(counts, axis=1)[:, -1] > np.sort(counts, axis=1)[:, -2]
    assert set(np.unique(shown)) == {0.0, 1.0} and sure.any()
    np.testing.assert_array_equal(shown.argmax(1)[sure], counts.argmax(1)[sure])


def test_the_noise_is_of_the_stated_scale_and_another_after_a_request(records: Records) -> None:
    made = learner(vote_noise=50.0, epsilon=1e6)
    state = made.fit(records, seed=7)
    scores = made.scores(state, records.x)
    # Laplace noise of scale 50 on counts between 0 and 6: a mean absolute value of about 50
    assert np.abs(scores).mean() == pytest.approx(50, rel=0.12)
    after, _ = made.forget(state, [records.ids[0]])
    assert np.abs(made.scores(after, records.x) - scores).mean() > 20


def test_owners_share_a_shard_and_count_as_one(records: Records) -> None:
    made = learner(sharding="owner")
    where = made.assign(records, 1)
    assert all(len(set(where[records.owners == o])) == 1 for o in set(records.owners.tolist()))  # type: ignore[union-attr]
    state = made.fit(records, seed=1)
    assert state.facts["answers"]["elements"] == 30 and learner().fit(records).facts["answers"]["elements"] == 150
    nameless = Records(ids=records.ids, columns=records.columns)
    with pytest.raises(DataError, match="owner"):
        made.fit(nameless)


def test_an_empty_shard_has_no_vote(records: Records) -> None:
    made = learner(shards=40, vote_noise=1e-6, epsilon=1e30)
    few = records.take(np.arange(12))
    state = made.fit(few)
    filled = len(set(made.assign(few, 0).tolist()))
    assert filled < 13
    np.testing.assert_allclose(made.scores(state, few.x).sum(1), filled, atol=1e-3)


def test_another_environment_retrains_every_shard(records: Records) -> None:
    made = learner()
    state = made.fit(records)
    elsewhere = {**state.facts, "environment": {"torch": "0"}}
    after, unlearned = made.forget(
        type(state)(rows=state.rows, seed=0, parts=state.parts, facts=elsewhere), [records.ids[0]]
    )
    assert unlearned.trace[0]["shards"] == list(range(6)) and "other torch" in unlearned.trace[0]["why"]
    assert after.facts["environment"] == state.facts["environment"]


def test_features_of_another_shape_are_refused_and_nothing_is_charged(records: Records) -> None:
    made = learner()
    state = made.fit(records)
    with pytest.raises(ModelError, match="shape"):
        made.publish(state, np.zeros((2, 5)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"shards": 0},
        {"answers": 0},
        {"answers": 1.5},
        {"epsilon": 0.0},
        {"delta": 1.0},
        {"vote_noise": 0.0},
        {"mechanism": "gauss"},
        {"sharding": "likelihood"},
    ],
)
def test_refuses_hyperparameters_out_of_range(wrong: dict) -> None:
    with pytest.raises(RequestError):
        learner(**wrong)
