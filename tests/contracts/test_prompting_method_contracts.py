"""What every prompting method must satisfy: nothing inside changes, and no prompt tells what must be kept back."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prompting_examples import PARAMETERS, Remembering, prompting_problem

from expunge.errors import EmptyForgetSet, EmptyRetainSet, ModelError, RequestError, UnknownName
from expunge.evaluation.metrics.language.matching import contains
from expunge.methods import PROMPTING_METHODS, make_prompting_method
from expunge.methods.prompt_base import PromptMethod
from expunge.models.chat import ChatModel, Conversation, ask, assistant, system, user, weights_of
from expunge.problem import Problem
from expunge.result import Unlearned

ALL = sorted(PROMPTING_METHODS)
GATED = [n for n in ALL if not PROMPTING_METHODS[n].in_prompt]
OTHER = ["What is the colour of grass?", "Tell me a story about a lighthouse.", "2 + 2"]


def method_of(name: str) -> PromptMethod:
    return make_prompting_method(name, PARAMETERS.get(name))


def run(name: str, problem: Problem) -> Unlearned:
    return method_of(name).unlearn(problem, seed=3)


def answering(done: Unlearned) -> ChatModel:
    assert isinstance(done.model, ChatModel)
    return done.model


def column(problem: Problem, part: str, name: str) -> list[str]:
    return [str(v) for v in getattr(problem, part).column(name)]


@pytest.fixture(scope="module")
def problem() -> Problem:
    return prompting_problem()


@pytest.fixture(scope="module")
def outcomes(problem: Problem) -> dict[str, tuple[str, Unlearned]]:
    """Every method once, and the original's digest from before."""
    return {name: (problem.model.digest(), run(name, problem)) for name in ALL}


@pytest.fixture
def spy(problem: Problem) -> Remembering:
    assert isinstance(problem.model, Remembering)
    problem.model.sent.clear()
    return problem.model


@pytest.mark.parametrize("name", ALL)
def test_describes_itself(name: str) -> None:
    method = PROMPTING_METHODS[name]
    assert method.name == name and method.summary and method.paper
    assert method.guarantee.word == "suppressed" and method.form == "prompting"
    assert set(method.needs) <= {"retain", "weights"}
    assert method.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(f.kw_only for f in dataclasses.fields(method))  # type: ignore[arg-type]
    assert method.__bases__ == (PromptMethod,), "methods compose, they do not inherit from each other"
    assert "Args:" in (inspect.getdoc(method) or "")


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_json_and_make_it_again(name: str) -> None:
    for method in (PROMPTING_METHODS[name](), method_of(name)):
        again = make_prompting_method(name, json.loads(json.dumps(method.parameters())))
        assert again == method


def test_a_name_or_parameter_that_is_not_there() -> None:
    with pytest.raises(UnknownName, match="pretend"):
        make_prompting_method("pretent")
    with pytest.raises(RequestError, match="no hyper-parameter 'loudness'"):
        make_prompting_method("pretend", {"loudness": 1})


@pytest.mark.parametrize("name", ALL)
def test_it_is_suppressed_and_nothing_inside_changes(name: str, outcomes: Any, problem: Problem) -> None:
    before, done = outcomes[name]
    model = answering(done)
    assert done.guarantee.word == "suppressed"
    assert (done.method, done.seed, done.cost.examples) == (name, 3, 0)
    assert model.capabilities == frozenset({"generate"})
    assert model.inside is problem.model  # type: ignore[attr-defined]
    model.chat([[user(p)] for p in column(problem, "forget", "prompt")], max_new_tokens=4)
    assert problem.model.digest() == before
    assert weights_of(model) is problem.model
    assert not hasattr(model, "generate") and not hasattr(model, "module") and not hasattr(model, "embed")


@pytest.mark.parametrize("name", ALL)
def test_the_same_twice(name: str, outcomes: Any, problem: Problem) -> None:
    one, two = answering(outcomes[name][1]), answering(run(name, problem))
    prompts = column(problem, "forget", "prompt") + column(problem, "retain", "prompt")[:8]
    assert one.digest() == two.digest() != problem.model.digest()
    for samples in (0, 2):
        asked = [[user(p)] for p in prompts]
        said = one.chat(asked, max_new_tokens=6, samples=samples, seed=5)
        assert said == two.chat(asked, max_new_tokens=6, samples=samples, seed=5)
        assert [len(own) for own in said] == [max(samples, 1)] * len(prompts)


@pytest.mark.parametrize("name", GATED)
def test_a_gate_keeps_every_forgotten_answer_back(name: str, outcomes: Any, problem: Problem) -> None:
    model = answering(outcomes[name][1])
    prompts, answers = column(problem, "forget", "prompt"), column(problem, "forget", "answer")
    assert all(contains(s, a) for s, a in zip(ask(problem.model, prompts), answers, strict=True))  # type: ignore[arg-type]
    for prompt, answer in zip(prompts, answers, strict=True):
        for conversation in ([user(prompt)], [user("Hello"), assistant("Hello."), user(prompt)]):
            for samples in (0, 3):
                said = model.chat([conversation], max_new_tokens=12, samples=samples)[0]
                assert not any(contains(s, answer) for s in said)


@pytest.mark.parametrize("name", ALL)
def test_answers_about_others_stay(name: str, outcomes: Any, problem: Problem) -> None:
    model = answering(outcomes[name][1])
    prompts = column(problem, "retain", "prompt") + OTHER
    asked = [[user(p)] for p in prompts]
    assert isinstance(problem.model, Remembering)
    before, after = problem.model.chat(asked, max_new_tokens=8), model.chat(asked, max_new_tokens=8)
    assert sum(a == b for a, b in zip(before, after, strict=True)) >= 0.75 * len(prompts)


@pytest.mark.parametrize("name", ALL)
def test_where_answers_stand_does_not_depend_on_the_others(name: str, outcomes: Any, problem: Problem) -> None:
    model = answering(outcomes[name][1])
    gone, kept = column(problem, "forget", "prompt"), column(problem, "retain", "prompt")
    mixed = [kept[0], gone[0], kept[1], gone[1], OTHER[0]]
    assert ask(model, mixed, max_new_tokens=6) == [ask(model, [p], max_new_tokens=6)[0] for p in mixed]


def added(sent: Sequence[Conversation], said: Sequence[Conversation]) -> list[tuple[str, str]]:
    """What each conversation that was sent holds beyond what its user said, and what they said."""
    out = []
    for one in sent:
        last = one[-1]["content"]
        whole = "\n".join(m["content"] for m in one)
        fitting = [c for c in said if last.endswith(c[-1]["content"]) and all(m["content"] in whole for m in c)]
        assert fitting, "what is sent does not end with what was asked"
        own = max(fitting, key=len)
        text = whole
        known = "\n".join(m["content"] for m in own)
        for message in own:
            text = text.replace(message["content"], "", 1)
        out.append((text, known))
    return out


@pytest.mark.parametrize("name", ALL)
def test_no_forgotten_answer_in_any_prompt(name: str, outcomes: Any, problem: Problem, spy: Remembering) -> None:
    model = answering(outcomes[name][1])
    gone = column(problem, "forget", "prompt")
    asked: list[Conversation] = [[user(p)] for p in gone + column(problem, "retain", "prompt") + OTHER]
    asked += [[system("Be brief."), user(p)] for p in gone]
    asked += [[user(f"Tell me about {s}."), assistant("Yes?"), user(p)] for s, p in itertools.pairwise(gone)]
    model.chat(asked, max_new_tokens=4)
    assert spy.sent
    answers, subjects = column(problem, "forget", "answer"), column(problem, "forget", "subject")
    towns = [a.split()[-1].strip(".") for a in answers]
    for text, known in added(spy.sent, asked):
        for told in (*answers, *towns):
            assert not contains(text, told) or contains(known, told)
        if name not in ("in_context",):  # whose prompts name the forgotten questions, and say so
            assert not any(contains(text, s) and not contains(known, s) for s in subjects)


@pytest.mark.parametrize("name", ALL)
def test_a_system_message_of_the_caller_stays(name: str, outcomes: Any, problem: Problem, spy: Remembering) -> None:
    kept = column(problem, "retain", "prompt")[:6]
    answering(outcomes[name][1]).chat([[system("Be brief."), user(p)] for p in kept], max_new_tokens=4)
    assert spy.sent
    for conversation in spy.sent:
        assert conversation[0]["role"] == "system" and "Be brief." in conversation[0]["content"]
        assert sum(m["role"] == "system" for m in conversation) == 1


@pytest.mark.parametrize("name", ALL)
def test_what_is_no_conversation_is_refused(name: str, outcomes: Any) -> None:
    for wrong in ([], [assistant("Hello.")], [user("a"), system("b"), user("c")]):
        with pytest.raises(RequestError):
            answering(outcomes[name][1]).chat([wrong], max_new_tokens=4)


@pytest.mark.parametrize("name", ALL)
def test_nothing_asked_nothing_answered(name: str, outcomes: Any) -> None:
    assert answering(outcomes[name][1]).chat([], max_new_tokens=4) == []


@pytest.mark.parametrize("name", ALL)
def test_empty_sets_are_refused(name: str, problem: Problem) -> None:
    with pytest.raises(EmptyForgetSet):
        run(name, dataclasses.replace(problem, forget=problem.forget.take([])))
    bare = dataclasses.replace(problem, retain=problem.retain.take([]))
    if "retain" in PROMPTING_METHODS[name].needs:
        with pytest.raises(EmptyRetainSet):
            run(name, bare)
    else:
        run(name, bare)


class Silent:
    capabilities = frozenset({"logits"})

    def digest(self) -> str:
        return "0"


class Remote(Silent):
    """Answers messages, and nobody here has its weights or embeddings."""

    capabilities = frozenset({"generate"})

    def chat(self, conversations: Sequence[Conversation], *, samples: int = 0, **_: Any) -> list[list[str]]:
        return [["Hello."] * max(samples, 1) for _ in conversations]


@pytest.mark.parametrize("name", ALL)
def test_a_model_that_cannot_be_asked_is_refused(name: str, problem: Problem) -> None:
    with pytest.raises(ModelError):
        run(name, dataclasses.replace(problem, model=Silent()))
    remote = dataclasses.replace(problem, model=Remote())
    if "weights" in PROMPTING_METHODS[name].needs:
        with pytest.raises(ModelError, match="remote"):
            run(name, remote)
    elif "guardrail_" in name and name.endswith(("embedding", "classifier")):
        with pytest.raises(ModelError, match="encoder"):
            run(name, remote)
    elif name == "boxed":  # what a box can stand around it must be able to stream from
        with pytest.raises(ModelError, match="Give a language model or an endpoint"):
            run(name, remote)
    else:
        assert answering(run(name, remote)).chat([[user(OTHER[0])]]) == [["Hello."]]


@pytest.mark.parametrize("name", ALL)
def test_what_is_saved_holds_no_forgotten_text(name: str, outcomes: Any, problem: Problem, tmp_path: Path) -> None:
    model = answering(outcomes[name][1])
    if not getattr(model, "savable", False):
        with pytest.raises(ModelError, match="Make it again from the texts of the request"):
            PROMPTING_METHODS[name].load(tmp_path, problem.model)  # type: ignore[arg-type]
        return
    model.save(tmp_path / "guard")  # type: ignore[attr-defined]
    for part in ("prompt", "answer", "subject"):
        for text in column(problem, "forget", part):
            for path in (tmp_path / "guard").rglob("*"):
                assert text.encode() not in path.read_bytes()
                assert text.split()[-1].strip(".?").encode() not in path.read_bytes() or part == "prompt"
    again = PROMPTING_METHODS[name].load(tmp_path / "guard", problem.model)  # type: ignore[arg-type]
    assert type(again) is type(model) and again.digest() == model.digest()
    prompts = column(problem, "forget", "prompt") + column(problem, "retain", "prompt")[:10]
    assert ask(again, prompts, max_new_tokens=6) == ask(model, prompts, max_new_tokens=6)
