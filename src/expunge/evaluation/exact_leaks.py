"""What exactness does not stop, measured on one data set: reconstruction of deleted rows, and adaptive requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from expunge.data import load_records
from expunge.data.records import Records
from expunge.errors import DataError, MissingReference, RequestError
from expunge.evaluation.adaptive_sisa import sisa_in_view
from expunge.evaluation.adaptive_trials import ShardsInView, Table, Trials, VotesInView
from expunge.evaluation.attacks.adaptive_deletion import adaptive_deletion
from expunge.evaluation.attacks.outcome import Outcome
from expunge.evaluation.attacks.reconstruction import reconstruction
from expunge.evaluation.linear_pairs import Pairs, ridge_pairs, softmax_pairs
from expunge.evaluation.metrics.checks import Floats
from expunge.evaluation.metrics.intervals import t_mean
from expunge.methods.aggregate import vote_privacy
from expunge.result import Measurement, Unscored

SCHEMA = "expunge/exact-leaks/1"

TRAINING_NOISE = (0.0, 0.25, 0.5, 1.0)
VOTE_NOISE = (0.0, 1.0, 2.0, 4.0)
MOST_RECORDS = 1797
EMBEDDED = 100
LEARNER_RECORDS = 600

Narrate = Callable[[str], None]


def exact_leaks(
    dataset: str = "digits",
    *,
    deletions: int = 50,
    trials: int = 60,
    learner_trials: int = 12,
    training_noise: Sequence[float] = TRAINING_NOISE,
    vote_noise: Sequence[float] = VOTE_NOISE,
    seed: int = 0,
    narrate: Narrate | None = None,
) -> dict[str, Any]:
    """Attack exact unlearning on a data set; a minute and a half for digits on one core.

    Args:
        dataset: name or path of records with classes; at most 1,797 records are used.
        deletions: rows to reconstruct, each from a pair of models of its own.
        trials: of each adaptive experiment at each level of noise. learner_trials: with the `Sisa` learner itself,
            which take a second each; 0 leaves them out.
        training_noise: noise multipliers of the shards' private training, 0 first. vote_noise: scales of the noise on
            published votes, 0 first. seed: of everything random.
        narrate: called with a sentence before each step.

    Returns:
        A JSON document: ``schema``, ``dataset``, ``seed``, ``seconds`` and ``rows``; a row has ``attack``, ``on`` (what
        was attacked), ``defence`` (None or name and noise) and ``measurements``, name -> `Measurement` or `Unscored`
        as a mapping.

    Raises:
        RequestError: fewer than two deletions or no trials, or noise that does not begin with 0. DataError: too few
            records, or none with two classes.
    """
    if deletions < 2 or trials < 1 or learner_trials < 0:
        raise RequestError(
            f"{deletions} deletions, {trials} trials and {learner_trials} with the learner",
            "Ask for at least two deletions and one trial",
        )
    for levels in (training_noise, vote_noise):
        if not levels or levels[0] != 0:
            raise RequestError(f"noise {list(levels)}", "Begin with 0: what a defence stops is measured against none")
    say = narrate or (lambda line: None)
    started = time.perf_counter()
    records = _shuffled(load_records(dataset), seed)
    rows = [*_reconstructions(records, deletions, seed, say)]
    rows += _adaptive(records, trials, training_noise, vote_noise, seed, say)
    if learner_trials:
        rows.append(_learner(records, learner_trials, seed, say))
    return {
        "schema": SCHEMA,
        "dataset": dataset,
        "records": len(records),
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "rows": rows,
    }


def leak_lines(document: Mapping[str, Any]) -> list[str]:
    """The document as lines for a terminal: a table an attack, values with 95% intervals."""
    lines = []
    for attack, heads in LEAK_COLUMNS.items():
        rows = [row for row in document["rows"] if row["attack"] == attack]
        table = [["on", "defence", *heads]]
        for row in rows:
            defence = row["defence"]
            told = "none" if defence is None else defence["name"] + _noise(defence)
            table.append([row["on"], told, *(_cell(row["measurements"].get(name)) for name in heads.values())])
        widths = [max(len(line[k]) for line in table) for k in range(len(table[0]))]
        lines += [
            attack,
            *("  " + "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in table),
        ]
        lines += [
            f"  {row['on']}: {m['reason']}" for row in rows for m in row["measurements"].values() if "reason" in m
        ]
    return lines


LEAK_COLUMNS = {
    "reconstruction": {
        "cosine": "reconstruction_cosine",
        "of another row": "reconstruction_cosine_other_row",
        "nearest public row": "reconstruction_cosine_nearest_row",
        "recovered": "reconstruction_share_recovered",
    },
    "adaptive_deletion": {
        "indicator": "adaptive_deletion_indicator",
        "retrained": "adaptive_deletion_indicator_retrained",
        "blind requests": "adaptive_deletion_indicator_blind",
        "accuracy": "published_accuracy",
        "after": "published_accuracy_after",
    },
}


def _noise(defence: Mapping[str, Any]) -> str:
    return f" {defence['noise']:g}" if "noise" in defence else ""


def _cell(measured: Mapping[str, Any] | None) -> str:
    if measured is None:
        return ""
    if measured["status"] == "unscored":
        return "unscored"
    return f"{measured['value']:.3f} [{measured['low']:.3f}, {measured['high']:.3f}]"


def _shuffled(records: Records, seed: int) -> Records:
    classes = len(np.unique(records.y))
    if len(records) < 100 or classes < 2:
        raise DataError(
            f"{len(records)} records of {classes} classes are too few to attack", "Give 100 records of two classes"
        )
    return records.take(np.random.default_rng([seed, 0]).permutation(len(records))[:MOST_RECORDS])


def _flat(records: Records) -> Floats:
    return np.asarray(records.x, dtype=np.float64).reshape(len(records), -1)


# --- reconstruction ---------------------------------------------------------------------------------------------------


def _reconstructions(records: Records, deletions: int, seed: int, say: Narrate) -> list[dict[str, Any]]:
    """Half of the records train, half are the attacker's."""
    from expunge.methods.exact.ridge import Ridge

    half = len(records) // 2
    if deletions > half // 2:
        raise RequestError(f"{deletions} deletions of {half} training records", "Ask for fewer")
    x, y = _flat(records), np.asarray(records.y, dtype=np.int64)
    train, public = x[:half], x[half:]
    flat = Records(ids=records.ids[:half], columns={"x": train, "y": y[:half].astype(np.float64)})
    embedded = _embedding(x, public, seed)
    rows = range(deletions)
    made: list[tuple[str, Callable[[], Pairs], Floats]] = [
        ("ridge", lambda: ridge_pairs(Ridge(), flat, flat.ids[:deletions].tolist()), x),
        ("softmax regression", lambda: softmax_pairs(train, y[:half], rows, regularization=1.0), x),
        (
            "softmax head on an embedding",
            lambda: softmax_pairs(embedded[:half], y[:half], rows, regularization=0.1),
            embedded,
        ),
    ]
    result = []
    first = None
    for name, make, features in made:
        say(f"reconstructing {deletions} deleted rows from pairs of models: {name}")
        pairs = make()
        first = first or pairs
        found = _reconstruct(pairs, features[:deletions], features[half:], seed)
        result.append(_row("reconstruction", name, None, found))
    assert first is not None
    result.append(_row("reconstruction", made[0][0], {"name": "earlier model destroyed"}, _destroyed(first, x, half)))
    return result


def _reconstruct(pairs: Pairs, truth: Floats, public: Floats, seed: int) -> Outcome:
    # What the pair that forgot another row tells of this one is no leak.
    other = reconstruction(pairs.before, np.roll(pairs.after, 1, axis=0), truth, public, fit=pairs.fit, seed=seed)
    base = other["reconstruction_cosine"]
    assert isinstance(base, Measurement)
    found = reconstruction(pairs.before, pairs.after, truth, public, fit=pairs.fit, seed=seed, floor=base.value)
    return {**found, "reconstruction_cosine_other_row": _named(base, "reconstruction_cosine_other_row")}


def _destroyed(pairs: Pairs, x: Floats, half: int) -> Outcome:
    name = "reconstruction_cosine"
    try:
        return reconstruction(None, pairs.after, x[: len(pairs.after)], x[half:], fit=pairs.fit)
    except MissingReference as refused:
        return {name: Unscored(name=name, reason=refused.cause)}


def _embedding(x: Floats, public: Floats, seed: int) -> Floats:
    """Random Fourier features (n, 100) of all rows: a frozen map that knows no training row."""
    rng = np.random.default_rng([seed, 4])
    apart = np.linalg.norm(public[: len(public) // 2] - public[-(len(public) // 2) :], axis=1)
    directions = rng.normal(size=(x.shape[1], EMBEDDED)) / (float(np.median(apart)) or 1.0)
    return np.asarray(np.sqrt(2 / EMBEDDED) * np.cos(x @ directions + rng.uniform(0, 2 * np.pi, EMBEDDED)))


# --- adaptive requests ------------------------------------------------------------------------------------------------


def _adaptive(
    records: Records, trials: int, training: Sequence[float], votes: Sequence[float], seed: int, say: Narrate
) -> list[dict[str, Any]]:
    cut = len(records) * 2 // 3
    x, y = _flat(records), np.asarray(records.y, dtype=np.int64)
    table = Table(x=x[:cut], y=y[:cut], x_test=x[cut:], y_test=y[cut:])
    result = []
    experiments: list[tuple[str, str, ShardsInView | VotesInView, Sequence[float]]] = [
        ("shards' models in view", "private training", ShardsInView(), training),
        ("votes of 3 shards in view", "noise on votes", VotesInView(deletions=cut // 6), votes),
        ("votes of 10 shards in view", "noise on votes", VotesInView(shards=10, reach=0.9, deletions=cut // 6), votes),
    ]
    for name, defence, experiment, levels in experiments:
        ceiling = None
        for noise in levels:
            say(f"{trials} adaptive sequences of requests: {name}, noise {noise:g}")
            found = _indicators(experiment.run(table, noise=noise, trials=trials, seed=seed), seed, ceiling)
            if ceiling is None:
                ceiling = found["adaptive_deletion_indicator"].as_dict()["value"]
            told: dict[str, Any] | None = {"name": defence, "noise": noise} if noise else None
            if told and isinstance(experiment, VotesInView):
                each = vote_privacy(noise, changed_votes=2)[0]
                told |= {"epsilon_per_answer": each, "delta": 0.0, "answers": cut}
            result.append(_row("adaptive_deletion", name, told, found))
    return result


def _learner(records: Records, trials: int, seed: int, say: Narrate) -> dict[str, Any]:
    from expunge.methods.exact.sisa import Sisa
    from expunge.recipe import Recipe, Trainer

    say(f"{trials} adaptive sequences of requests against the SISA learner")
    cut = min(LEARNER_RECORDS, len(records) * 2 // 3)
    flat = Records(ids=records.ids, columns={"x": _flat(records).astype(np.float32), "y": records.y})
    learner = Sisa(
        recipe=Recipe(
            factory="expunge.models.architectures:mlp",
            kwargs={"features": flat.x.shape[1], "classes": int(records.y.max()) + 1, "width": 64},
            trainer=Trainer(epochs=10, batch_size=16, weight_decay=0.0),
        ),
        shards=6,
        aggregate="vote",
    )
    train, test = flat.take(np.arange(cut)), flat.take(np.arange(cut, len(flat)))
    found = sisa_in_view(learner, train, test, trials=trials, seed=seed)
    return _row("adaptive_deletion", "Sisa learner, shards' models in view", None, _indicators(found, seed, None))


def _indicators(trials: Trials, seed: int, ceiling: float | None) -> Outcome:
    """The indicator, the same for a retrained model and for requests that do not look, and the accuracy."""
    name = "adaptive_deletion_indicator"
    controls = {
        f"{name}_retrained": adaptive_deletion(trials.fresh, trials.fresh_control, seed=seed)[name],
        f"{name}_blind": adaptive_deletion(trials.blind, trials.blind_control, seed=seed)[name],
    }
    floor = controls[f"{name}_retrained"].as_dict()["value"]
    found: Outcome = adaptive_deletion(trials.attacked, trials.control, seed=seed, floor=floor, ceiling=ceiling)
    for key, measured in controls.items():
        assert isinstance(measured, Measurement)
        found[key] = _named(measured, key)
    found["published_accuracy"] = _mean("published_accuracy", trials.accuracy, "before the deletions")
    found["published_accuracy_after"] = _mean("published_accuracy_after", trials.accuracy_after, "after the deletions")
    return found


def _mean(name: str, values: Floats, when: str) -> Measurement | Unscored:
    if len(values) < 2:
        return Unscored(name=name, reason="one trial leaves no interval")
    low, high = t_mean(values)
    return Measurement(
        name=name,
        value=float(values.mean()),
        n=len(values),
        low=low,
        high=high,
        direction="higher",
        unit_of_n="trials",
        definition=f"Mean test accuracy of what the ensemble publishes {when}.",
        detail={"standard_deviation": float(values.std(ddof=1))},
    )


def _named(measured: Measurement, name: str) -> Measurement:
    return replace(measured, name=name)


def _row(attack: str, on: str, defence: Mapping[str, Any] | None, found: Outcome) -> dict[str, Any]:
    measurements = {name: m.as_dict() for name, m in found.items()}
    return {
        "attack": attack,
        "on": on,
        "defence": None if defence is None else dict(defence),
        "measurements": measurements,
    }
