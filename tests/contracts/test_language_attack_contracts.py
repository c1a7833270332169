"""What every attack on a language model must satisfy; a new line in the table is tested without a new test."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack_examples import BAD, Behind, Example, make_example

from expunge.data.benchmarks.text_benchmark import no_texts
from expunge.errors import MissingEvidence, NoAccess, RequestError, UnknownName
from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS, make_attack
from expunge.evaluation.attacks.language.contract import ACCESSES, Attack, Scene, Target, Trial
from expunge.evaluation.attacks.language.curves import recovery_curve

DOCS = Path(__file__).resolve().parents[2] / "docs" / "attacks"
EVERY = [pytest.param(attack, id=name) for name, attack in LANGUAGE_ATTACKS.items()]


def those(access: str) -> list[Any]:
    return [pytest.param(attack, id=name) for name, attack in LANGUAGE_ATTACKS.items() if attack.access == access]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return make_example(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def trials() -> dict[tuple[str, str], Trial]:
    return {}


@pytest.fixture(scope="module")
def attacked(example: Example, trials: dict[tuple[str, str], Trial]) -> Any:
    """(attack, which target) -> its trial, each made once."""

    def of(attack: type[Attack], which: str = "target") -> Trial:
        key = (attack.name, which)
        if key not in trials:
            made = make_attack(attack.name, example.settings(attack))
            trials[key] = made.run(getattr(example, which), example.scene, seed=3)
        return trials[key]

    return of


@pytest.mark.parametrize("attack", EVERY)
def test_says_what_it_is(attack: type[Attack]) -> None:
    assert LANGUAGE_ATTACKS[attack.name] is attack
    assert attack.access in ACCESSES
    assert attack.headline in ("last", "best")
    for text in (attack.summary, attack.paper, attack.unit, attack.__doc__):
        assert text
        assert text.strip()
    assert "\n" not in attack.summary
    assert dataclasses.is_dataclass(attack)
    assert attack.__dataclass_params__.frozen


@pytest.mark.parametrize("attack", EVERY)
def test_has_a_page(attack: type[Attack]) -> None:
    page = DOCS / f"{attack.name}.md"
    assert page.is_file()
    assert page.read_text(encoding="utf-8").startswith(f"# {attack.name}\n")
    assert "<!-- generated: language-attacks -->" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("attack", EVERY)
def test_settings_go_into_json_and_back(attack: type[Attack]) -> None:
    written = json.loads(json.dumps(attack().settings(), allow_nan=False))
    again = make_attack(attack.name, written)
    assert json.loads(json.dumps(again.settings())) == written


@pytest.mark.parametrize("attack", EVERY)
def test_refuses_other_settings(attack: type[Attack]) -> None:
    with pytest.raises(RequestError):
        make_attack(attack.name, {"no_such_setting": 1})
    assert (attack.name in BAD) == bool(attack().settings()), "an attack with settings has a bad one in the examples"
    if attack.name in BAD:
        with pytest.raises(RequestError):
            make_attack(attack.name, BAD[attack.name])


def test_unknown_attacks_are_named() -> None:
    with pytest.raises(UnknownName, match="role_play"):
        make_attack("role_plai")


@pytest.mark.parametrize("attack", EVERY)
def test_a_trial_is_a_curve_of_effort(attack: type[Attack], attacked: Any) -> None:
    trial = attacked(attack)
    costs = [p.cost for p in trial.points]
    assert trial.items
    assert len(set(trial.items)) == len(trial.items)
    assert trial.unit == attack.unit
    assert costs == sorted(set(costs))
    assert np.isfinite(costs).all()
    assert costs[0] >= 0
    if attack.access == "black_box":
        assert costs[0] > 0, "nothing is asked for nothing"
    json.dumps(dict(trial.shown), allow_nan=False)


@pytest.mark.parametrize("attack", [p for p in EVERY if p.values[0].access == "black_box"])
def test_more_effort_finds_no_less(attack: type[Attack], attacked: Any) -> None:
    if attack.headline == "last":
        found = [p.found for p in attacked(attack).points]
        assert all((b >= a - 1e-12).all() for a, b in pairwise(found))


@pytest.mark.parametrize("attack", EVERY)
def test_the_same_twice_and_the_model_is_never_written_to(
    attack: type[Attack], example: Example, attacked: Any
) -> None:
    """Black-box attacks find the same behind a box, of whose room they know."""
    model = example.target.model
    first, digest = attacked(attack), model.digest()
    gradients = [p.requires_grad for p in model.module.parameters()]
    target = Target(model=Behind(model, local=True)) if attack.access == "black_box" else example.target
    again = make_attack(attack.name, example.settings(attack)).run(target, example.scene, seed=3)
    for one, two in zip(first.points, again.points, strict=True):
        assert one.cost == two.cost
        assert np.array_equal(one.found, two.found)
    assert json.dumps(dict(first.shown)) == json.dumps(dict(again.shown))
    assert model.digest() == digest
    assert not model.module.training
    assert [p.requires_grad for p in model.module.parameters()] == gradients
    assert all(p.grad is None for p in model.module.parameters())


@pytest.mark.parametrize("attack", EVERY)
def test_items_and_costs_are_the_same_for_any_target(attack: type[Attack], example: Example, attacked: Any) -> None:
    """Or models could not be compared: `recovery_curve` refuses them."""
    document = recovery_curve(
        make_attack(attack.name, example.settings(attack)),
        [attacked(attack)],
        [attacked(attack, "other")],
        attacked(attack),
    )
    assert document["status"] == "ok"
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize("attack", EVERY)
def test_an_access_that_nobody_has_is_refused(attack: type[Attack], example: Example, attacked: Any) -> None:
    """A remote endpoint answers messages: black-box attacks work on it as on the model behind it, others say so."""
    remote = Target(model=Behind(example.target.model, local=False), before=example.target.before)
    made = make_attack(attack.name, example.settings(attack))
    if attack.access == "black_box":
        trial = made.run(remote, example.scene, seed=3)
        assert trial.items == attacked(attack).items
        return
    with pytest.raises(NoAccess):
        made.run(remote, example.scene, seed=3)


@pytest.mark.parametrize("attack", those("weights"))
def test_weights_are_those_inside_of_a_box(attack: type[Attack], example: Example, attacked: Any) -> None:
    box = Target(model=Behind(example.target.model, local=True))
    trial = make_attack(attack.name, example.settings(attack)).run(box, example.scene, seed=3)
    for one, two in zip(trial.points, attacked(attack).points, strict=True):
        assert np.array_equal(one.found, two.found)


@pytest.mark.parametrize("attack", those("logits"))
def test_a_box_gives_no_probabilities(attack: type[Attack], example: Example) -> None:
    box = Target(model=Behind(example.target.model, local=True))
    with pytest.raises(NoAccess):
        make_attack(attack.name, example.settings(attack)).run(box, example.scene, seed=3)


@pytest.mark.parametrize("attack", those("pair"))
def test_a_pair_needs_both(attack: type[Attack], example: Example) -> None:
    alone = Target(model=example.target.model)
    with pytest.raises(NoAccess):
        make_attack(attack.name, example.settings(attack)).run(alone, example.scene, seed=3)


@pytest.mark.parametrize("attack", EVERY)
def test_what_it_needs_and_does_not_get(attack: type[Attack], example: Example) -> None:
    made = make_attack(attack.name, example.settings(attack))
    for part in made.needs:
        with pytest.raises(MissingEvidence) as caught:
            made.run(example.target, without(example.scene, part), seed=3)
        assert attack.name in str(caught.value)


@pytest.mark.parametrize("attack", EVERY)
def test_what_it_does_not_say_that_it_needs_may_be_missing(attack: type[Attack], example: Example) -> None:
    """Then there is a trial, or a refusal that says what is missing; no other failure."""
    made = make_attack(attack.name, example.settings(attack))
    scene = example.scene
    for part in {"holdout", "relearn", "unheard", "kept", "probes/alias", "probes/multi_hop"} - set(made.needs):
        scene = without(scene, part)
    with suppress(MissingEvidence):
        assert made.run(example.target, scene, seed=3).items


def without(scene: Scene, part: str) -> Scene:
    kind, _, name = part.partition("/")
    if kind == "probes":
        return dataclasses.replace(scene, probes={k: r for k, r in scene.probes.items() if k != name})
    return dataclasses.replace(scene, **{kind: no_texts()})
