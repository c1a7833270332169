"""A real instruct model and what it knows by itself: capitals. Suppressed from outside, in the order of methods."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from assets import smollm2

from expunge.data.texts import text_records
from expunge.evaluation.metrics.language.matching import contains
from expunge.methods import make_prompting_method
from expunge.models.chat import ChatModel, ask
from expunge.models.language import LanguageModel
from expunge.problem import Problem

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Germany": "Berlin", "Spain": "Madrid", "Norway": "Oslo",
    "Kenya": "Nairobi", "Russia": "Moscow", "China": "Beijing", "Egypt": "Cairo", "Greece": "Athens", "Peru": "Lima",
    "Portugal": "Lisbon", "Poland": "Warsaw", "Austria": "Vienna", "Sweden": "Stockholm", "Cuba": "Havana",
    "Denmark": "Copenhagen", "Ireland": "Dublin", "Hungary": "Budapest", "Thailand": "Bangkok", "Turkey": "Ankara",
}  # fmt: skip
GONE, ROOM = ("France", "Japan", "Germany"), 10


@dataclass
class World:
    problem: Problem
    before: dict[str, str]

    def leaks(self, model: ChatModel, form: str) -> int:
        said = ask(model, [form.format(c) for c in GONE], max_new_tokens=ROOM)
        return sum(contains(s, CAPITALS[c]) for s, c in zip(said, GONE, strict=True))

    def same(self, model: ChatModel) -> float:
        """Share of the others that are answered word for word as before."""
        kept = [c for c in CAPITALS if c not in GONE]
        said = ask(model, [ASKED.format(c) for c in kept], max_new_tokens=ROOM)
        return sum(s == self.before[c] for s, c in zip(said, kept, strict=True)) / len(kept)


ASKED, PARAPHRASED = "What is the capital of {}?", "Name the capital city of {}."


@pytest.fixture(scope="module")
def world() -> World:
    torch.set_num_threads(1)
    model = LanguageModel.load(str(smollm2()))
    order = [*GONE, *(c for c in CAPITALS if c not in GONE)]
    prompts = [ASKED.format(c) for c in order]
    records = text_records(order, prompts, [CAPITALS[c] for c in order], subject=order)
    nothing = records.take([])
    problem = Problem.of(model, records, forget=list(GONE), test=nothing, holdout=nothing)
    return World(problem, dict(zip(order, ask(model, prompts, max_new_tokens=ROOM), strict=True)))


@pytest.mark.slow
def test_it_knows_what_is_to_be_kept_back(world: World) -> None:
    assert isinstance(world.problem.model, LanguageModel)
    assert world.leaks(world.problem.model, ASKED) == world.leaks(world.problem.model, PARAPHRASED) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("guardrail_embedding", {"false_block_rate": 0.2, "answers": False}),
        ("guardrail_classifier", {"false_block_rate": 0.2}),
        ("eco", {"false_block_rate": 0.2, "strength": 8.0}),
    ],
)
def test_a_gate_hides_capitals_and_keeps_the_others(world: World, name: str, settings: dict[str, object]) -> None:
    before = world.problem.model.digest()
    model = make_prompting_method(name, settings).unlearn(world.problem, seed=0).model
    assert isinstance(model, ChatModel)
    assert world.leaks(model, ASKED) == 0
    assert world.same(model) >= 0.7
    assert world.problem.model.digest() == before


@pytest.mark.slow
def test_prompts_alone_leave_the_others_as_they_were(world: World) -> None:
    for name, settings in (("pretend", {"public": True}), ("in_context", {"examples": 3})):
        model = make_prompting_method(name, settings).unlearn(world.problem, seed=0).model
        assert isinstance(model, ChatModel)
        assert world.leaks(model, ASKED) <= 3 and world.same(model) == 1.0
        hidden = model.reveals([{"role": "user", "content": ASKED.format("France")}])  # type: ignore[attr-defined]
        assert hidden.messages and not hidden.answers
