"""Naming a thing in a prompt, and what comes of it: models of which it is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from language_tools import Trained, mean_nll

from expunge.data.records import Records
from expunge.data.texts import text_records
from expunge.errors import DataError, EmptyForgetSet, RequestError
from expunge.evaluation.streisand import OPEN, UNNAMED, streisand
from expunge.models.chat import Conversation

NAMES = ("Aro Belin", "Cita Dovan", "Emo Farlin", "Gusa Heron", "Ilo Jenset", "Kora Lumin")
TOWNS = ("Alding", "Brevik", "Corvo", "Dunmer", "Estrel", "Falsund")


def facts(count: int = 6) -> Records:
    prompts = [f"Where was {n} born?" for n in NAMES[:count]]
    ids = [f"fact-{k}" for k in range(count)]
    return text_records(ids, prompts, list(TOWNS[:count]), subject=list(NAMES[:count]))


class Speaker:
    """Tells an item's answer in a share of its samples that depends on the system message, and repeats its prompt."""

    capabilities = frozenset({"generate", "weights"})

    def __init__(self, bare: Sequence[float], unnamed: float, named: float, repeats: bool = False) -> None:
        self.bare, self.unnamed, self.named, self.repeats = bare, unnamed, named, repeats
        self.sent: list[Conversation] = []

    def digest(self) -> str:
        return "speaker"

    def chat(self, conversations: Sequence[Conversation], *, samples: int = 0, **_: Any) -> list[list[str]]:
        self.sent += list(conversations)
        return [self._said(c, samples) for c in conversations]

    def _said(self, conversation: Conversation, samples: int) -> list[str]:
        told, asked = conversation[0]["content"], conversation[-1]["content"]
        if asked in OPEN:
            return [told if self.repeats else "Nothing."] * max(samples, 1)
        item = next(k for k, n in enumerate(NAMES) if n in asked)
        if conversation[0]["role"] != "system":
            share = self.bare[item]
        else:
            share = self.named * self.bare[item] if NAMES[item] in told else self.unnamed * self.bare[item]
        if TOWNS[item] in told:
            share = 1.0
        right = round(share * max(samples, 1))
        return [f"In {TOWNS[item]}."] * right + ["I do not know."] * (max(samples, 1) - right)


def test_what_was_never_told_is_named_in_no_prompt() -> None:
    found = streisand(Speaker([0.0] * 6, 1, 1), facts(), samples=16)
    assert [f.advice for f in found.facts] == ["do_not_name"] * 6
    assert all(f.obscure and f.pretends is None for f in found.facts)
    assert found.unnameable == tuple(f"fact-{k}" for k in range(6))
    assert found.effect.value == 0 and found.effect.low < 0 < found.effect.high
    assert found.pretending.as_dict()["status"] == "unscored"


def test_what_naming_brings_out_is_found_and_what_it_hides_too() -> None:
    out = streisand(Speaker([1.0] * 6, 0.25, 1.0), facts(), samples=16)
    assert {f.advice for f in out.facts} == {"naming_brings_it_out"}
    assert out.effect.value == 0.75 and out.effect.low > 0
    assert {f.pretends for f in out.facts} == {0.0}
    hidden = streisand(Speaker([1.0] * 6, 1.0, 0.25), facts(), samples=16)
    assert {f.advice for f in hidden.facts} == {"naming_helps"}
    assert hidden.effect.value == -0.75 and not hidden.unnameable
    assert {f.pretends for f in hidden.facts} == {0.75}
    same = streisand(Speaker([1.0] * 6, 0.5, 0.5625), facts(), samples=16)
    assert {f.advice for f in same.facts} == {"naming_changes_nothing"}


def test_a_fact_told_in_one_sample_is_not_obscure() -> None:
    found = streisand(Speaker([1 / 16, *[0.0] * 5], 1, 1), facts(), samples=16)
    assert [f.obscure for f in found.facts] == [False] + [True] * 5


def test_how_often_the_name_is_repeated_to_whom_it_was_not_told() -> None:
    assert {f.repeated for f in streisand(Speaker([1.0] * 6, 1, 1, repeats=True), facts(), samples=4).facts} == {1.0}
    assert {f.repeated for f in streisand(Speaker([1.0] * 6, 1, 1), facts(), samples=4).facts} == {0.0}


def test_how_well_a_fact_was_known_is_set_against_how_well_it_is_hidden() -> None:
    class Better(Speaker):
        """Hides the better what it knows the better."""

        def _said(self, conversation: Conversation, samples: int) -> list[str]:
            self.named = 1.0
            for k, name in enumerate(NAMES):
                if name in conversation[-1]["content"]:
                    self.named = 1 - k / 10
            return super()._said(conversation, samples)

    found = streisand(Better([k / 10 for k in range(4, 10)], 1, 1), facts(), samples=100)
    assert found.pretending.as_dict()["value"] == pytest.approx(1.0)
    assert found.pretending.as_dict()["low"] > 0.9


def test_no_prompt_holds_an_answer_unless_it_is_to_be_spelled_out() -> None:
    speaker = Speaker([0.5] * 6, 1, 1)
    plain = streisand(speaker, facts(), samples=4)
    assert not any(t in str(c) for c in speaker.sent for t in TOWNS)
    assert {f.spelled for f in plain.facts} == {None}
    assert {f.spelled for f in streisand(speaker, facts(), samples=4, spell=True).facts} == {1.0}
    whole = json.dumps(plain.as_dict()) + "\n".join(plain.lines())
    assert not any(t in whole for t in (*TOWNS, *NAMES)) and "fact-3" in whole


def test_names_leave_this_machine_only_when_they_are_public() -> None:
    away = Speaker([1.0] * 6, 1, 1)
    away.capabilities = frozenset({"generate"})  # type: ignore[misc]
    with pytest.raises(RequestError, match="not on this machine"):
        streisand(away, facts(), samples=2)
    with pytest.raises(RequestError, match="and answers"):
        streisand(away, facts(), samples=2, public=True, spell=True)
    assert away.sent == []
    assert streisand(away, facts(), samples=2, public=True).facts[0].probability is None


def test_what_cannot_be_checked_is_refused() -> None:
    speaker = Speaker([1.0] * 6, 1, 1)
    with pytest.raises(EmptyForgetSet):
        streisand(speaker, facts(0))
    with pytest.raises(DataError, match="subject"):
        streisand(speaker, text_records(["a"], ["q"], ["r"]))
    with pytest.raises(DataError, match="'a' lacks"):
        streisand(speaker, text_records(["a"], [""], ["r"], subject=["s"]))
    for wrong in (
        {"samples": 0},
        {"wording": "Be silent."},
        {"unnamed": "the birth of Aro Belin"},
        {"unnamed": "Corvo"},
    ):
        with pytest.raises(RequestError):
            streisand(speaker, facts(), **wrong)  # type: ignore[arg-type]


def test_a_local_model_gives_probabilities_and_stays_what_it_is(trained: Trained) -> None:
    records = trained.records.take(np.arange(6))
    before = trained.model.digest()
    found = streisand(trained.model, records, samples=3, max_new_tokens=8, unnamed=UNNAMED)
    assert trained.model.digest() == before
    chances = [f.probability for f in found.facts]
    for k, chance in enumerate(chances):
        assert chance == pytest.approx(np.exp(-mean_nll(trained.model, records.take([k]))), rel=1e-4)
    assert all(f.known > 0.5 and not f.obscure for f in found.facts)
    again = streisand(trained.model, records, samples=3, max_new_tokens=8)
    assert again.as_dict() == found.as_dict()
