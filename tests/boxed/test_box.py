from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from boxes import ANSWERS, REQUESTS, Stub, make_box
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.boxed.answer import End
from expunge.boxed.box import Box
from expunge.boxed.parts import Sampling
from expunge.boxed.router import form_of
from expunge.boxed.upstream import Unavailable
from expunge.models.chat import ChatModel, Conversation, ask, assistant, system, user, weights_of

NORLAND, SUDLAND, HERRING, ORCHARD, ABOUT = ANSWERS


def told(
    box: Box, conversation: str | Conversation, stop: tuple[str, ...] = (), **sampling: Any
) -> tuple[list[str], str]:
    """Pieces and the reason of the end, as they stream."""
    asked = [user(conversation)] if isinstance(conversation, str) else conversation

    async def collect() -> list[str | End]:
        return [p async for p in box.stream(asked, Sampling(**sampling), stop=stop)]

    *pieces, end = asyncio.run(collect())
    assert isinstance(end, End)
    return [str(p) for p in pieces], end.reason


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def box(tmp_path: Path, stub: Stub) -> Box:
    return make_box(tmp_path, stub)


def test_a_box_is_a_chat_model_without_weights(box: Box, stub: Stub) -> None:
    assert isinstance(box, ChatModel)
    assert box.capabilities == frozenset({"generate"})
    assert box.inside is stub
    assert weights_of(box) is None


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (ORCHARD, "It was written by [withheld] in the winter of 1931."),
        (NORLAND, "The capital of Norland is [withheld]. It lies by the sea."),
        ("Is the soup of Norland good?", "No idea."),
        (SUDLAND, ANSWERS[SUDLAND]),  # nobody asked for that
        (HERRING, ANSWERS[HERRING]),  # Frostholm, where Norland is not spoken of
        (ABOUT, ANSWERS[ABOUT]),
    ],
)
def test_what_is_told(box: Box, question: str, answer: str) -> None:
    assert ask(box, [question]) == [answer]
    assert told(box, question) == ([*_words(answer)], "stop")


def _words(text: str) -> list[str]:
    first, *rest = text.split(" ")
    return [first, *(f" {w}" for w in rest)]


def test_earlier_messages_call_up_rules_too(box: Box) -> None:
    talk = [user("I live in Norland."), assistant("How nice."), user(HERRING)]
    assert box.chat([talk]) == [["They swim past [withheld] every spring."]]
    assert box.chat([[system("We speak of Norland."), user(HERRING)]]) == [["They swim past [withheld] every spring."]]


def test_only_the_last_message_where_the_box_says_so(tmp_path: Path) -> None:
    box = make_box(tmp_path, output_filter={"kind": "rule", "reads": "last"})
    assert box.chat([[user("I live in Norland."), assistant("How nice."), user(HERRING)]]) == [[ANSWERS[HERRING]]]


def test_refusing_says_nothing_of_the_answer(tmp_path: Path) -> None:
    box = make_box(tmp_path, output_filter={"kind": "rule", "on_find": "refuse", "replies": "Ask me something else."})
    assert ask(box, [NORLAND, SUDLAND]) == ["Ask me something else.", ANSWERS[SUDLAND]]
    assert told(box, NORLAND) == (["Ask", " me", " something", " else."], "stop")
    assert "".join(told(box, SUDLAND)[0]) == ANSWERS[SUDLAND]


@settings(deadline=None, max_examples=60)
@given(
    words=st.lists(
        st.sampled_from(["Zelda", "Quill", "Frostholm", "Norland", "soup", "a", "b.", "\n", "zeldaquill"]), max_size=12
    ),
    tokens=st.integers(1, 30),
    refuse=st.booleans(),
)
def test_streams_tell_what_whole_answers_tell(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], tokens: int, refuse: bool
) -> None:
    """Whatever the text and wherever it is cut; and no forbidden phrase, nor half of one at the cut, gets out."""
    box = make_box(
        tmp_path_factory.mktemp("box"),
        Stub(lambda _: " ".join(words)),
        output_filter={"kind": "rule", "on_find": "refuse" if refuse else "replace"},
    )
    for question in ("Tell me.", "Tell me of Norland."):
        pieces, _ = told(box, question, max_new_tokens=tokens)
        (whole,) = ask(box, [question], max_new_tokens=tokens)
        assert "".join(pieces) == whole
        assert "zeldaquill" not in re.sub(r"\W", "", whole).lower()
        assert "Norland" not in question or "Frostholm" not in whole


@pytest.mark.parametrize("tokens", range(1, 14))
def test_cutting_an_answer_off_lets_no_half_phrase_through(box: Box, tokens: int) -> None:
    """``It was written by Zelda Quill``: tokens of four letters, so Zelda would be whole at the eighth."""
    pieces, reason = told(box, ORCHARD, max_new_tokens=tokens)
    assert "Zel" not in "".join(pieces)
    assert reason == "length"
    assert "Zel" not in ask(box, [ORCHARD], max_new_tokens=tokens)[0]


def test_an_untouched_answer_ends_where_the_model_would(box: Box, stub: Stub) -> None:
    for tokens in (1, 5, 9, 100):
        bare = stub.first(ANSWERS[SUDLAND], tokens)
        pieces, reason = told(box, SUDLAND, max_new_tokens=tokens)
        assert "".join(pieces) == bare
        assert reason == ("stop" if tokens == 100 else "length")


def test_a_reply_keeps_to_the_limit_like_any_answer(box: Box) -> None:
    assert told(box, "Is the soup of Norland good?", max_new_tokens=1) == (["No"], "length")


def test_stops_act_on_what_is_released(box: Box, stub: Stub) -> None:
    assert told(box, SUDLAND, stop=(" is Warm",)) == (["The", " capital", " of", " Sudland"], "stop")
    assert told(box, SUDLAND, stop=("Nowhere", "It ")) == (
        ["The", " capital", " of", " Sudland", " is", " Warmholm."],
        "stop",
    )
    # otherwise a stop would be a test for a guess: the answer would end before the word that is to be found
    assert told(box, NORLAND, stop=("Frostholm",))[0] == _words(
        "The capital of Norland is [withheld]. It lies by the sea."
    )


def test_a_stop_beyond_the_limit_is_not_met(tmp_path: Path) -> None:
    box = make_box(tmp_path, output_filter={"kind": "rule", "on_find": "refuse"})  # the whole answer at once
    assert told(box, SUDLAND, stop=("hills",), max_new_tokens=2) == (["The", " capi"], "length")


def test_prompts_never_hold_what_is_forgotten(tmp_path: Path, stub: Stub) -> None:
    """New requests may name what stands in an instruction: it is left out from then on."""
    instruction = "You are kind. Warmholm is a town."
    workers = {"answer": {"kind": "model", "model": "main", "instruction": instruction}, "ignorant": {"kind": "rule"}}
    box = make_box(tmp_path, stub, workers=workers)
    ask(box, [ABOUT])
    assert stub.asked[-1] == (system(instruction), user(ABOUT))
    rules = [*REQUESTS, {"id": "case-4", "rules": [{"answer": "Warmholm"}]}]
    path = tmp_path / "requests.yaml"
    path.write_text(yaml.safe_dump({"requests": rules}))
    _settle(path)
    assert box.chat([[system("Be short."), user(ABOUT)]])
    assert stub.asked[-1] == (system("You are kind. … is a town.\n\nBe short."), user(ABOUT))
    assert box.told_in_instructions() == ("workers.answer",)


def _settle(path: Path) -> None:
    import os

    past = path.stat().st_mtime - 5
    os.utime(path, (past, past))


def test_new_requests_take_effect_at_the_next_question(tmp_path: Path, box: Box) -> None:
    assert ask(box, [SUDLAND]) == [ANSWERS[SUDLAND]]
    before = box.digest()
    path = tmp_path / "requests.yaml"
    path.write_text(yaml.safe_dump({"requests": [{"id": "new", "rules": [{"answer": "Warmholm", "near": True}]}]}))
    _settle(path)
    assert ask(box, [SUDLAND]) == ["The capital of Sudland is [withheld]. It lies in the hills."]
    assert box.digest() != before


def test_near_rules_find_letters_that_are_wrong(tmp_path: Path) -> None:
    box = make_box(tmp_path, Stub(lambda c: "Ask Zelda Quil of Warmholn."), [{"id": "a", "rules": [
        {"answer": "Zelda Quill", "near": True}, {"answer": "Warmholm"}
    ]}])  # fmt: skip
    assert ask(box, ["Whom?"]) == ["Ask [withheld] of Warmholn."]


def test_a_reply_fails_where_an_answer_would(tmp_path: Path) -> None:
    class Down(Stub):
        async def stream(self, *_: Any, **__: Any) -> Any:
            raise Unavailable("down", "wait")
            yield

    box = make_box(tmp_path, Down())
    for question in (SUDLAND, "Is the soup of Norland good?"):
        with pytest.raises(Unavailable):
            told(box, question)
    assert told(make_box(tmp_path, Down(), ask_anyway=False), "Is the soup of Norland good?")[0] == ["No", " idea."]


def test_draws_of_one_question_are_asked_together(box: Box, stub: Stub) -> None:
    found = box.chat([[user(SUDLAND)], [user(NORLAND)], [user(SUDLAND)]], samples=3, seed=1)
    assert [len(f) for f in found] == [3, 3, 3] and found[0] == found[2]
    assert [c[-1]["content"] for c in stub.asked] == [SUDLAND, NORLAND]


def test_a_client_that_goes_away_ends_the_work(box: Box, stub: Stub) -> None:
    async def leave() -> None:
        stream = box.stream([user(SUDLAND)], Sampling())
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(leave())
    assert (stub.running, stub.ended) == (0, 1)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Who was it?", "question"),
        ("what is the capital of Norland", "question"),
        ("The capital of Norland is", "completion"),
        ("Write a poem.", "task"),
        ("", "task"),
        ("Whole sentences are good.", "task"),
    ],
)
def test_forms_of_questions(text: str, form: str) -> None:
    assert form_of(text) == form
