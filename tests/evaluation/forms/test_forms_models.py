"""The rows that are made here: adapters led by name, and a plain list of words."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from expunge.errors import RequestError
from expunge.evaluation.forms.keyword_filter import REFUSAL, KeywordFilter
from expunge.evaluation.forms.routed import NOBODY, Routed
from expunge.models.chat import system, user, weights_of


class Says:
    """Answers with what it was made to say and the last question."""

    capabilities = frozenset({"generate"})

    def __init__(self, word: str) -> None:
        self.word, self.asked = word, 0

    def digest(self) -> str:
        return self.word

    def chat(self, conversations: Sequence[Any], **options: Any) -> list[list[str]]:
        self.asked += len(conversations)
        return [[f"{self.word} {c[-1]['content']}"] * max(options.get("samples", 0), 1) for c in conversations]


def routed() -> tuple[Routed, dict[str, Says]]:
    made: dict[str, Says] = {}

    def model(_state: Any, owner: str) -> Says:
        return made.setdefault(owner, Says(owner))

    learner = SimpleNamespace(language_model=model)
    state = SimpleNamespace(digest=lambda: "state")
    return Routed(learner, state, ["Ana Bo", "Cy Di", NOBODY], Says("base")), made  # type: ignore[arg-type]


def test_a_question_goes_to_the_adapter_of_whom_it_names() -> None:
    model, _ = routed()
    asked = [[user("where is ana bo ?")], [user("the sun ?")], [user("Cy Di or Ana Bo ?")], [user("Anabo")]]
    assert [s[0].rpartition(" ")[0].split(" ")[0] for s in model.chat(asked)] == ["Ana", NOBODY, "Cy", NOBODY]


def test_only_the_last_message_leads_and_samples_come_through() -> None:
    model, made = routed()
    conversation = [user("who is Ana Bo ?"), {"role": "assistant", "content": "somebody"}, user("and Cy Di ?")]
    assert len(model.chat([conversation], samples=3)[0]) == 3
    assert set(made) == {"Cy Di"}
    with pytest.raises(RequestError):
        model.chat([[system("nothing")]])


def test_who_holds_the_machine_holds_the_model_inside() -> None:
    inside = Says("x")
    assert KeywordFilter(inside, ["Ana"]).inside is inside
    assert weights_of(KeywordFilter(inside, ["Ana"])) is None  # no weights in a stand-in


def test_the_plain_filter_sees_the_words_as_they_stand_and_nothing_else() -> None:
    inside = Says("Cy Di, says")
    model = KeywordFilter(inside, ["Ana Bo"])
    asked = ["ANA BO ?", "Ana  Bo ?", "An\u0430 Bo ?", "who ?"]
    said = [s[0] for s in model.chat([[user(a)] for a in asked])]
    assert said[0] == REFUSAL
    assert all(s != REFUSAL for s in said[1:])
    assert inside.asked == 3
    assert KeywordFilter(inside, ["cy di"]).chat([[user("who ?")]], samples=2) == [[REFUSAL, REFUSAL]]
