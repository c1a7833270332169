"""Every kind of every part, in a box."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from boxes import Stub, make_box

from expunge.boxed.box import Box
from expunge.boxed.composer import overlap
from expunge.boxed.parts import Sampling
from expunge.errors import RequestError
from expunge.models.chat import Conversation, ask, user

ORDINARY = [
    f"How do I {what}?" for what in ("bake bread", "mend a bicycle", "paint a door", "tie a knot", "plant a rose")
]
EXAMPLES = [{"question": f"What does the Order of the Lantern {what}?"} for what in ("believe", "wear", "own", "teach")]
LEARNT = [{"id": "order", "examples": [*EXAMPLES, {"answer": "The Order of the Lantern wears grey cloaks."}]}]


def write(folder: Path, name: str, texts: list[str]) -> str:
    (folder / name).write_text(yaml.safe_dump(texts))
    return name


def streamed(box: Box, question: str) -> str:
    async def collect() -> str:
        return "".join([p async for p in box.stream([user(question)], Sampling()) if isinstance(p, str)])

    return asyncio.run(collect())


def both(box: Box, question: str) -> str:
    """The answer, which is the same in pieces."""
    (whole,) = ask(box, [question])
    assert streamed(box, question) == whole
    return whole


def workers(*names: str, **more: Any) -> dict[str, Any]:
    """Workers that say their names through the model, and `ignorant`."""
    own = {n: {"kind": "model", "model": "main", "instruction": f"You are {n}."} for n in names}
    return {**own, "ignorant": {"kind": "rule", "replies": "No idea."}, **more}


def by_instruction(conversation: Conversation) -> str:
    return conversation[0]["content"].removeprefix("You are ").removesuffix(".")


def test_rule_router_by_form(tmp_path: Path) -> None:
    router = {
        "kind": "rule", "marked": "ignorant", "otherwise": "other",
        "forms": {"question": "trivia", "completion": "completer"},
    }  # fmt: skip
    box = make_box(tmp_path, Stub(by_instruction), router=router, workers=workers("trivia", "completer", "other"))
    questions = ["Who is it?", "The capital of Sudland is", "Write.", "Who likes the soup of Norland?"]
    assert [both(box, q) for q in questions] == ["trivia", "completer", "other", "No idea."]


def test_classifier_router(tmp_path: Path) -> None:
    ordinary = write(tmp_path, "ordinary.yaml", ORDINARY)
    router = {"kind": "classifier", "marked": "ignorant", "otherwise": "other", "ordinary": ordinary}
    box = make_box(tmp_path, Stub(by_instruction), LEARNT, router=router, workers=workers("other"))
    assert both(box, "What do people in the Order of the Lantern sing?") == "No idea."
    assert both(box, "How do I mend a door?") == "other"
    nothing = make_box(tmp_path, Stub(by_instruction), [], router=router, workers=workers("other"))
    assert both(nothing, "What do people in the Order of the Lantern sing?") == "other"


def test_a_classifier_needs_ordinary_texts(tmp_path: Path) -> None:
    router = {"kind": "classifier", "marked": "ignorant", "otherwise": "answer", "ordinary": "none.yaml"}
    with pytest.raises(RequestError, match="cannot read ordinary texts"):
        make_box(tmp_path, router=router)
    router["ordinary"] = write(tmp_path, "one.yaml", ["only one"])
    with pytest.raises(RequestError, match="has 1 ordinary texts"):
        make_box(tmp_path, asked=LEARNT, router=router)


def test_model_router(tmp_path: Path) -> None:
    def said(conversation: Conversation) -> str:
        if "Choose" not in conversation[0]["content"]:
            return by_instruction(conversation)
        return "It is a Quiz, I think." if "when" in conversation[-1]["content"].lower() else "hard to say"

    stub = Stub(said)
    router = {
        "kind": "model", "model": "main", "instruction": "Choose: quiz or talk.",
        "words": {"quiz": "trivia", "talk": "other"},        "marked": "ignorant", "otherwise": "other",
    }  # fmt: skip
    box = make_box(tmp_path, stub, router=router, workers=workers("trivia", "other"))
    assert both(box, "When was it?") == "trivia"
    assert both(box, "Hello.") == "other"
    stub.asked.clear()
    assert ask(box, ["When is the soup of Norland hot?"]) == ["No idea."]
    assert len(stub.asked) == 1  # the router's model is asked of a marked question too


def test_replies_are_the_same_to_the_same_question(tmp_path: Path) -> None:
    replies = ["One.", "Two.", "Three."]
    own = {"fixed": {"kind": "rule", "replies": replies}}
    box = make_box(tmp_path, workers=own, router={"kind": "rule", "marked": "fixed", "otherwise": "fixed"})
    said = ask(box, [f"question {k}" for k in range(30)] * 2)
    assert set(said) == set(replies) and said[:30] == said[30:]


def test_classifier_worker(tmp_path: Path) -> None:
    own = {"fine": {"kind": "classifier", "model": "main", "replies": "Pardon?",
                    "ordinary": write(tmp_path, "o.yaml", ORDINARY)}}  # fmt: skip
    router = {"kind": "rule", "marked": "fine", "otherwise": "fine"}
    box = make_box(tmp_path, Stub(lambda _: "Gladly."), LEARNT, workers=own, router=router)
    assert both(box, "What does the Order of the Lantern read?") == "Pardon?"
    assert both(box, "How do I plant a tree?") == "Gladly."


def test_rule_composer(tmp_path: Path) -> None:
    def said(conversation: Conversation) -> str:
        first = "first" in conversation[0]["content"]
        agree = {True: "Norland is cold and wet.", False: "Norland is wet and cold."}
        differ = {True: "It is Frostholm, I know.", False: "Nobody ever told anything."}
        return (agree if "weather" in conversation[-1]["content"] else differ)[first]

    router = {"kind": "rule", "marked": "ignorant", "otherwise": ["first", "second"]}

    def box(**composer: Any) -> Box:
        return make_box(
            tmp_path,
            Stub(said),
            [],
            router=router,
            workers=workers("first", "second"),
            composer={"kind": "rule", **composer},
        )

    agreed = box(take="agreed", replies="Nothing.")
    assert both(agreed, "weather?") == "Norland is cold and wet."
    assert both(agreed, "capital?") == "Nothing."
    assert both(box(take="first"), "capital?") == "It is Frostholm, I know."
    assert both(box(take="joined"), "capital?") == "It is Frostholm, I know.\n\nNobody ever told anything."


def test_overlap() -> None:
    assert overlap("a b c", "C, B!") == 1
    assert overlap("a b", "a c d") == 0.5
    assert overlap("", "") == 1 and overlap("", "a") == 0


def test_classifier_composer(tmp_path: Path) -> None:
    told = {"first": "The Order of the Lantern wears grey cloaks, and hats.", "second": "You take flour and water."}
    composer = {"kind": "classifier", "ordinary": write(tmp_path, "o.yaml", ["Use a brush.", "Take water.", "Cut it."])}
    router = {"kind": "rule", "marked": "ignorant", "otherwise": ["first", "second"]}
    box = make_box(
        tmp_path,
        Stub(lambda c: told[by_instruction(c)]),
        LEARNT,
        router=router,
        workers=workers(*told),
        composer=composer,
    )
    assert both(box, "Tell.") == told["second"]


def test_model_composer_reads_nothing_that_is_forgotten(tmp_path: Path) -> None:
    def said(conversation: Conversation) -> str:
        if "Several" in conversation[0]["content"]:
            return "Both say so."
        return "Zelda Quill wrote it."

    stub = Stub(said)
    router = {"kind": "rule", "marked": "ignorant", "otherwise": ["first", "second"]}
    box = make_box(
        tmp_path, stub, router=router, workers=workers("first", "second"), composer={"kind": "model", "model": "main"}
    )
    assert both(box, "Who?") == "Both say so."
    assert "Zelda" not in str(stub.asked)
    assert "Answer 2: … wrote it." in stub.asked[-1][-1]["content"]


def test_classifier_filter(tmp_path: Path) -> None:
    filters = [
        {"kind": "rule"},
        {
            "kind": "classifier",
            "ordinary": write(tmp_path, "o.yaml", ["Use a brush.", "Take water."]),
            "replies": "Hm.",
        },
    ]
    said = {"cloaks?": "Their Lantern Order wears grey cloaks.", "bread?": "Take flour and water."}
    box = make_box(tmp_path, Stub(lambda c: said[c[-1]["content"]]), LEARNT, output_filter=filters)
    assert both(box, "cloaks?") == "Hm."
    assert both(box, "bread?") == "Take flour and water."


def test_model_filter_reads_nothing_that_is_forgotten(tmp_path: Path) -> None:
    def said(conversation: Conversation) -> str:
        if "May this" in conversation[0]["content"]:
            return "No, it may not." if "rude" in conversation[-1]["content"] else "Yes."
        return f"Zelda Quill says: {conversation[-1]['content']}"

    stub = Stub(said)
    filters = [
        {"kind": "model", "model": "main", "instruction": "May this be said?", "replies": "Hm."},
        {"kind": "rule"},
    ]
    box = make_box(tmp_path, stub, output_filter=filters)
    assert both(box, "rude") == "Hm."
    assert both(box, "kind") == "[withheld] says: kind"
    assert not [c for c in stub.asked if "Zelda" in str(c)]
