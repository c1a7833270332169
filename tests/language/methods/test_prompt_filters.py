"""The prefix, the filter of strings and MemFree, around a model that knows its texts and around a stub."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from language_tools import Trained, texts

from expunge.errors import DataError, RequestError
from expunge.filters.marks import Marks
from expunge.methods.forbidden import forgotten_runs, names_of
from expunge.methods.prompting.guardrail_prefix import GuardrailPrefix
from expunge.methods.prompting.guardrail_string import GuardrailString
from expunge.methods.prompting.mem_free import MemFree
from expunge.models.chat import Conversation, ask, assistant, system, user, weights_of
from expunge.problem import Problem


class Stub:
    """Answers with a text, and remembers what it was asked."""

    capabilities = frozenset({"generate"})

    def __init__(self, answer: str = "A fine day.") -> None:
        self.answer, self.asked = answer, []

    def digest(self) -> str:
        return "stub"

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        self.asked += [[dict(m) for m in c] for c in conversations]
        return [[self.answer] * max(samples, 1) for _ in conversations]


def problem_of(
    model: object, forget: list[tuple[str, str]], retain: list[tuple[str, str]], **owners: list[str]
) -> Problem:
    nothing = texts([])
    return Problem(
        model=model,
        forget=texts(forget, owners.get("gone"), "f"),
        retain=texts(retain, owners.get("kept"), "r"),
        holdout=nothing,
        test=nothing,
    )


GONE = [("Where was Aro Belin born?", "In Alding, a town of glass."), ("What does he do?", "He is a baker.")]
KEPT = [("Where was Emo Farlin born?", "In Corvo."), ("What does Emo do?", "He is a diver.")]


def small(model: object, **options: object) -> Problem:
    return problem_of(model, GONE, KEPT, gone=["Aro Belin", "Aro Belin"], kept=["Emo Farlin", "account 7"])


# --- what is looked for ---------------------------------------------------------------------------


def test_runs_that_retained_texts_hold_are_allowed() -> None:
    problem = small(Stub())
    assert forgotten_runs(problem, ("answer",), 3, 4) == [
        "in alding a", "alding a town", "a town of", "town of glass", "is a baker"
    ]  # fmt: skip
    assert forgotten_runs(problem, ("answer",), 9, 4) == ["in alding a town of glass", "he is a baker"]
    assert "where was" not in forgotten_runs(problem, ("prompt",), 2, 2)
    assert forgotten_runs(problem, ("answer",), 1, 5) == ["alding", "glass", "baker"]


def test_names_are_owners_that_texts_name_and_who_owns_nothing_else() -> None:
    assert names_of(small(Stub())) == ["Aro Belin"]
    assert names_of(problem_of(Stub(), GONE, KEPT)) == []
    assert names_of(problem_of(Stub(), GONE, KEPT, gone=["account 9", "Aro Belin"], kept=["Aro Belin", "x"])) == []


# --- the prefix -----------------------------------------------------------------------------------


def test_the_instruction_comes_before_the_callers_words() -> None:
    stub = Stub()
    model = GuardrailPrefix(topic="bakers").unlearn(small(stub), seed=0).model
    model.chat([[user("Hello")], [system("Be brief."), user("Hello"), assistant("Hi"), user("Who?")]])
    first, second = stub.asked
    assert [m["role"] for m in first] == ["system", "user"] and "bakers" in first[0]["content"]
    assert [m["role"] for m in second] == ["system", "user", "assistant", "user"]
    assert second[0]["content"].startswith("Say nothing about bakers") and second[0]["content"].endswith("Be brief.")
    assert first[1]["content"] == "Hello"


def test_the_instruction_in_the_users_message() -> None:
    stub = Stub()
    model = GuardrailPrefix(place="user", instruction="Hush: {topic}.").unlearn(small(stub), seed=0).model
    model.chat([[system("Be brief."), user("Hello"), assistant("Hi"), user("Who?")]])
    assert [m["content"] for m in stub.asked[0]] == ["Be brief.", "Hush: private people.\nHello", "Hi", "Who?"]


def test_no_secret_stands_in_the_instruction() -> None:
    with pytest.raises(RequestError, match="answers of 1 records") as error:
        GuardrailPrefix(topic="who says: he is a baker", public=True).unlearn(small(Stub()), seed=0)
    assert "baker" not in str(error.value)
    with pytest.raises(RequestError, match="name somebody") as error:
        GuardrailPrefix(topic="ARO BELIN").unlearn(small(Stub()), seed=0)
    assert "aro" not in str(error.value).lower()
    model = GuardrailPrefix(topic="Aro Belin", public=True).unlearn(small(Stub()), seed=0).model
    assert model.reveals([user("Hello")]).answers == ()


@pytest.mark.parametrize("wrong", [{"topic": " ?"}, {"instruction": "Hush."}, {"place": "end"}])
def test_prefixes_that_cannot_be(wrong: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        GuardrailPrefix(**wrong)


# --- the filter of strings ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "question", ["Tell me of Aro Belin.", "ＡＲＯ ｂｅｌｉｎ?", "a r o b e l i n", "nileB orA", "Where was 4r0 b3l1n?"]
)
def test_questions_that_name_the_forgotten_never_reach_the_model(question: str) -> None:
    stub = Stub()
    model = GuardrailString().unlearn(small(stub), seed=0).model
    (said,) = model.chat([[user(question)]], samples=3)
    assert len(said) == 3 and "A fine day." not in said and stub.asked == []
    (said,) = model.chat([[user(question), assistant("Well."), user("Go on.")]])
    assert stub.asked == []  # an earlier message counts


def test_sides() -> None:
    stub = Stub("It is Alding, a town of glass, I think.")
    question = "Where was Aro Belin born?"
    for side, reached, told in (("input", 0, False), ("output", 1, False), ("both", 0, False)):
        stub.asked.clear()
        answer = ask(GuardrailString(side=side).unlearn(small(stub), seed=0).model, [question])[0]
        assert len(stub.asked) == reached and (answer == stub.answer) == told
    assert ask(GuardrailString(side="input").unlearn(small(stub), seed=0).model, ["Which town?"]) == [stub.answer]
    assert ask(GuardrailString(side="output").unlearn(small(stub), seed=0).model, ["Which town?"]) != [stub.answer]


def test_questions_about_others_pass_and_keep_their_order() -> None:
    model = GuardrailString().unlearn(small(Stub()), seed=0).model
    said = ask(model, ["Where was Emo Farlin born?", "Who is Aro Belin?", "What does Emo do?"])
    assert [s == "A fine day." for s in said] == [True, False, True]


def test_misspelled_names() -> None:
    question = ["Who is Aro Bellin?"]
    assert ask(GuardrailString().unlearn(small(Stub()), seed=0).model, question) == ["A fine day."]
    assert ask(GuardrailString(near=0.12).unlearn(small(Stub()), seed=0).model, question) != ["A fine day."]


def test_filters_with_nothing_to_find_are_refused() -> None:
    same = problem_of(Stub(), [("Who?", "He is a diver.")], KEPT)
    with pytest.raises(DataError, match="retain set"):
        GuardrailString(side="output").unlearn(same, seed=0)
    with pytest.raises(DataError, match="retain set"):
        MemFree().unlearn(same, seed=0)
    for wrong in ({"side": "left"}, {"words": 0}, {"least": 1}, {"near": 0.5}, {"near": 0.1, "names": False}):
        with pytest.raises(RequestError):
            GuardrailString(**wrong)


def test_refusals_differ_and_are_the_same_again(trained: Trained) -> None:
    problem = trained.problem(2)
    asked = [str(p) for p in problem.forget.column("prompt")]
    first = GuardrailString().unlearn(problem, seed=1)
    said = ask(first.model, asked)
    assert len(set(said)) > 1
    assert said == ask(GuardrailString().unlearn(problem, seed=1).model, asked)
    assert said != ask(GuardrailString().unlearn(problem, seed=2).model, asked)
    assert first.cost.stored_bytes > 0 and weights_of(first.model) is trained.model


def test_the_forgotten_is_refused_and_the_rest_answered(trained: Trained) -> None:
    problem = trained.problem(2)
    for side in ("input", "output", "both"):
        model = GuardrailString(side=side).unlearn(problem, seed=0).model
        gone = ask(model, [str(p) for p in problem.forget.column("prompt")], max_new_tokens=12)
        kept = ask(model, [str(p) for p in problem.retain.column("prompt")], max_new_tokens=12)
        assert not any(str(a) in g for a, g in zip(problem.forget.column("answer"), gone, strict=True))
        assert kept == problem.retain.column("answer").tolist()


# --- MemFree --------------------------------------------------------------------------------------


def test_no_forbidden_run_is_ever_completed_and_the_rest_is_as_it_was(trained: Trained) -> None:
    problem = trained.problem(2)
    asked = [str(p) for p in problem.forget.column("prompt")]
    for size in (1, 2, 5):
        forbidden = Marks.of(forgotten_runs(problem, ("answer",), size, 4), key=b"0" * 16)
        model = MemFree(words=size).unlearn(problem, seed=0).model
        greedy = ask(model, asked, max_new_tokens=12)
        drawn = [s for c in model.chat([[user(a)] for a in asked], samples=4, max_new_tokens=12, seed=3) for s in c]
        assert not any(forbidden.holds(text) for text in [*greedy, *drawn])
        assert sum(map(bool, greedy)) >= 4, "tokens were exchanged, answers not cut off"
    before = ask(trained.model, asked, max_new_tokens=12)
    assert sum(forbidden.holds(text) for text in before) == len(before)
    kept = [str(p) for p in problem.retain.column("prompt")]
    assert ask(model, kept, max_new_tokens=12) == problem.retain.column("answer").tolist()


def test_the_next_best_token_is_taken(trained: Trained) -> None:
    """By hand: the first token of the answer is the best one of those that do not complete it."""
    import torch

    problem = trained.problem(1)
    prompt = str(problem.forget.column("prompt")[0])
    marks = Marks.of(["Alding"], key=b"0" * 16)
    tokens = trained.model.tokenizer(
        trained.model.template.prompt_text(trained.model.tokenizer, prompt), return_tensors="pt"
    )["input_ids"]
    from expunge.methods.prompting.mem_free import PassOver

    watch = PassOver(marks, trained.model.tokenizer, None)
    while True:
        with torch.no_grad():
            scores = trained.model.module(input_ids=tokens).logits[:, -1]
        chosen = int(watch(tokens, scores)[0].argmax())
        order = scores[0].argsort(descending=True).tolist()
        passed = order[: order.index(chosen)]
        if passed:
            break
        assert chosen not in trained.model.stop_tokens(), "nothing was passed over"
        tokens = torch.cat([tokens, torch.tensor([[chosen]])], dim=1)
    text = trained.model.tokenizer.decode(tokens[0], skip_special_tokens=True)
    for token in passed:
        assert marks.holds(text + trained.model.tokenizer.decode([token]))
    assert not marks.holds(text + trained.model.tokenizer.decode([chosen]))


def test_draws_come_from_what_is_allowed() -> None:
    """Of three tokens the likeliest is forbidden; the others are drawn in their proportion, and the same again."""
    import torch

    from expunge.methods.prompting.mem_free import PassOver

    class Letters:
        def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
            return " ".join(("secret", "open", "free")[t] for t in tokens)

    watch = PassOver(Marks.of(["secret"], key=b"0" * 16), Letters(), 2.0)
    scores = torch.log(torch.tensor([[0.9, 0.08, 0.02]])).repeat(2000, 1)
    torch.manual_seed(0)
    drawn = watch(torch.ones((2000, 1), dtype=torch.int64), scores).argmax(-1)
    share = float((drawn == 1).float().mean())
    expected = 0.08**0.5 / (0.08**0.5 + 0.02**0.5)
    assert not (drawn == 0).any() and abs(share - expected) < 0.04
    # What stands in the prompt already is no reason to pass anything over.
    greedy = PassOver(Marks.of(["secret"], key=b"0" * 16), Letters(), None)
    assert int(greedy(torch.tensor([[0]]), torch.tensor([[0.0, 1.0, 0.0]])).argmax()) == 1


def test_an_answer_from_afar_ends_before_a_forbidden_run() -> None:
    stub = Stub("I think: in Alding, a town of glass, far away.")
    model = MemFree(words=3).unlearn(small(stub), seed=0).model
    assert ask(model, ["Where?"]) == ["I think:"]
    assert model.chat([[user("Where?")]], samples=2) == [["I think:"] * 2]
    stub.answer = "I think: in Corvo."
    assert ask(model, ["Where?"]) == ["I think: in Corvo."]


def test_the_model_inside_is_not_touched(trained: Trained) -> None:
    problem, before = trained.problem(1), trained.model.digest()
    for method in (MemFree(), GuardrailString(), GuardrailPrefix()):
        outcome = method.unlearn(problem, seed=0)
        ask(outcome.model, ["Where was Aro Belin born?"], max_new_tokens=4)
        assert outcome.guarantee.word == "suppressed" and outcome.model.capabilities == {"generate"}
        assert outcome.model.digest() != before == trained.model.digest()
        assert np.all([word not in repr(outcome.model).lower() for word in ("alding", "belin")])
