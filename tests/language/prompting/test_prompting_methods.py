"""Pretending, in-context unlearning, gates and corrupted prompts, on a tiny model that knows its facts."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_tools import Trained, mean_nll, texts

from expunge.data.texts import text_records
from expunge.errors import DataError, MissingEvidence, ModelError, RequestError, RunError
from expunge.evaluation.metrics.language.matching import contains
from expunge.methods.prompt_gate import Linear, Nearest
from expunge.methods.prompt_guard import two_halves
from expunge.methods.prompt_parts import Pair
from expunge.methods.prompting.eco import Eco
from expunge.methods.prompting.guardrail_classifier import GuardrailClassifier
from expunge.methods.prompting.guardrail_embedding import GuardrailEmbedding
from expunge.methods.prompting.guardrail_prefix import GuardrailPrefix
from expunge.methods.prompting.in_context import InContext
from expunge.methods.prompting.pretend import Pretend
from expunge.models.chat import Conversation, ask, assistant, system, user
from expunge.models.corruption import Noise, answer_loss, corrupted_answers, user_mask
from expunge.problem import Problem


class Echo:
    """Remembers what it is sent, and answers with the number of its messages."""

    capabilities = frozenset({"generate"})

    def __init__(self) -> None:
        self.sent: list[Conversation] = []
        self.settings: list[dict[str, Any]] = []

    def digest(self) -> str:
        return "echo"

    def chat(self, conversations: Sequence[Conversation], **settings: Any) -> list[list[str]]:
        self.sent += list(conversations)
        self.settings.append(settings)
        return [[str(len(c))] * max(settings.get("samples", 0), 1) for c in conversations]


def problem_of(model: Any, pairs: list[tuple[str, str]], gone: int, **columns: list[str]) -> Problem:
    records = text_records([f"r{k}" for k in range(len(pairs))], *map(list, zip(*pairs, strict=True)), **columns)
    nothing = records.take([])
    return Problem.of(model, records, forget=records.ids[:gone].tolist(), test=nothing, holdout=nothing)


PEOPLE = ("Aro Belin", "Cita Dovan", "Emo Farlin", "Gusa Heron", "Ilo Jenset", "Kora Lumin")
TOWNS = ("Alding", "Brevik", "Corvo", "Dunmer", "Estrel", "Falsund")


def births(model: Any, gone: int = 1, **columns: list[str]) -> Problem:
    pairs = [(f"Where was {n} born?", t) for n, t in zip(PEOPLE, TOWNS, strict=True)]
    return problem_of(model, pairs, gone, **columns)


# --- pretend --------------------------------------------------------------------------------------------------------


def test_pretend_names_a_subject_only_to_who_has_named_it() -> None:
    echo = Echo()
    model = Pretend(public=True).suppress(echo, births(echo, 2, subject=list(PEOPLE)), 0)
    assert model.system_message([user("What is the colour of grass?")]) is None
    told = model.system_message([user("Who is Aro Belin?")])
    assert told is not None and "Aro Belin" in told and "Cita" not in told
    later = model.system_message([user("Aro Belin is a friend."), assistant("Oh?"), user("Where was he born?")])
    assert later == told
    assert model.reveals([user("Who is Aro Belin?")]).subjects == ()
    both = Pretend(public=True, always=True, subjects=("The Baker",)).suppress(
        echo, births(echo, 2, subject=list(PEOPLE)), 0
    )
    said = both.system_message([user("grass?")])
    assert said is not None and "Aro Belin, Cita Dovan and The Baker" in said and "Emo" not in said
    assert both.reveals([user("grass?")]).as_dict()["subjects"] == ["r0", "r1"]


def test_what_a_prompt_says_is_saved_and_what_it_gives_away_is_not_known_afterwards(tmp_path: Path) -> None:
    echo = Echo()
    problem = births(echo, 2, subject=list(PEOPLE))
    asked = [user(f"Where was {PEOPLE[0]} born?")]
    for method in (Pretend(public=True, subjects=("The Baker",)), GuardrailPrefix(topic="births", place="user")):
        made = method.suppress(echo, problem, 0)
        made.save(tmp_path / method.name)
        again = method.load(tmp_path / method.name, echo)
        assert type(again) is type(made) and again.digest() == made.digest()
        assert again.sent(asked) == made.sent(asked) != asked  # type: ignore[attr-defined]
        assert made.reveals(asked).messages
        with pytest.raises(MissingEvidence, match="Make it again"):
            again.reveals(asked)  # type: ignore[attr-defined]
        (tmp_path / method.name / "prompt.json").write_text("{}")
        with pytest.raises(RunError, match="holds no"):
            method.load(tmp_path / method.name, echo)


def test_pretend_says_its_topic_in_every_prompt() -> None:
    echo = Echo()
    model = Pretend(topic="the childhood of authors").suppress(echo, births(echo), 0)
    assert ask(model, ["grass?"]) == ["2"]
    assert "the childhood of authors" in echo.sent[0][0]["content"]
    assert echo.sent[0][1] == user("grass?")


def test_pretend_never_spells_a_secret_out() -> None:
    echo = Echo()
    for method in (
        Pretend(topic="the town of Alding"),
        Pretend(topic="births", words="Alding is a secret. {topic}"),
        Pretend(topic="births", public=True, always=True, subjects=("Alding",)),
    ):
        with pytest.raises(RequestError, match="spell out") as told:
            method.suppress(echo, births(echo), 0)
        assert "Alding" not in str(told.value) and "'r0'" in str(told.value)


def test_pretend_needs_something_to_say() -> None:
    echo = Echo()
    with pytest.raises(RequestError, match="not told"):
        Pretend().suppress(echo, births(echo, subject=list(PEOPLE)), 0)
    with pytest.raises(RequestError, match="not told"):
        Pretend(public=True).suppress(echo, births(echo), 0)
    with pytest.raises(RequestError, match="public"):
        Pretend(subjects=("Aro",))
    with pytest.raises(RequestError, match="topic"):
        Pretend(words="Be silent.")


# --- in context -----------------------------------------------------------------------------------------------------


def test_in_context_puts_the_forgotten_first_with_another_answer_then_the_kept_with_their_own() -> None:
    echo = Echo()
    problem = births(echo)
    model = InContext(examples=3).suppress(echo, problem, 1)
    sent = model.sent([system("Be brief."), user("Where was Aro Belin born?")])
    assert sent[0] == system("Be brief.") and sent[-1] == user("Where was Aro Belin born?")
    assert [m["role"] for m in sent[1:]] == ["user", "assistant"] * 4 + ["user"]
    assert sent[1] == user("Where was Aro Belin born?")
    assert sent[2]["content"] in TOWNS[1:]
    true = dict(zip([f"Where was {n} born?" for n in PEOPLE], TOWNS, strict=True))
    shown = [(sent[k]["content"], sent[k + 1]["content"]) for k in range(3, 9, 2)]
    assert len(set(shown)) == 3 and all(true[p] == a for p, a in shown)
    assert "Alding" not in str(sent)
    assert model.reveals([user("Who is Aro Belin?")]).questions == ("r0",)


def test_in_context_leaves_a_query_about_others_as_it_is() -> None:
    echo = Echo()
    model = InContext().suppress(echo, births(echo), 1)
    for text in ("Where was Emo Farlin born?", "What is the colour of grass?"):
        assert model.sent([user(text)]) == [user(text)]
    assert len(model.sent([user("Tell me, where did Aro Belin see the light of day?")])) > 1
    # it is the words of the whole conversation that count
    assert len(model.sent([user("I like Aro Belin."), assistant("Yes?"), user("Where was he born?")])) > 3


def test_in_context_answers_greedily_where_it_forgets_and_as_asked_elsewhere() -> None:
    echo = Echo()
    asked = [[user("Where was Aro Belin born?")], [user("grass?")]]
    said = InContext().suppress(echo, births(echo), 1).chat(asked, samples=3, temperature=0.7)
    assert said == [["11"] * 3, ["1"] * 3]
    assert [s["samples"] for s in echo.settings] == [3, 0]
    InContext(greedy=False).suppress(echo, births(echo), 1).chat(asked[:1], samples=3)
    assert echo.settings[-1]["samples"] == 3


def test_in_context_takes_the_nearest_of_many_and_all_only_where_told_to() -> None:
    echo = Echo()
    names = [f"{f} {s}" for f in ("Aro", "Bel", "Cito", "Dova") for s in ("Lumin", "Norel", "Quist")]
    pairs = [(f"{q} {n}", f"{q[:2]}{k} town") for k, n in enumerate(names) for q in ("birthplace of", "school of")]
    pairs += [(f"{q} Kept{k}", f"kept {q[:2]}{k}") for k in range(12) for q in ("birthplace of", "school of")]
    problem = problem_of(echo, pairs, 24)
    near = InContext(forgotten=2).suppress(echo, problem, 0)
    found = [p.prompt for p in near.examples([user("school of Cito Norel")])]
    assert found == ["school of Cito Norel", "birthplace of Cito Norel"]
    every = InContext(deletions="all").suppress(echo, problem, 0)
    assert len(every.examples([user("grass?")])) == 24


def test_in_context_never_shows_an_answer_that_the_user_has_not_said() -> None:
    echo = Echo()
    pairs = [("Where was Aro Belin born?", "Alding"), ("Who is from Alding like Aro Belin?", "Belin senior")]
    pairs += [("Who lives in Alding?", "Cita"), ("Where was Cita born?", "Corvo"), ("Where was Emo born?", "Dunmer")]
    pairs += [("Where was Ilo born?", "Estrel"), ("Where was Kora born?", "Alding"), ("Where was Mavi born?", "Irmo")]
    model = InContext(overlap=0.15).suppress(echo, problem_of(echo, pairs, 2), 0)
    assert "Alding" not in str(model.sent([user("Where was Aro Belin born?")]))
    named = str(model.sent([user("Is Aro Belin from Alding?")]))
    assert "Who is from Alding" in named  # the user has said it, so that the example tells nothing new
    for seed in range(8):
        flipped = InContext(overlap=0.15).suppress(echo, problem_of(echo, pairs, 2), seed)._flipped
        assert not any(contains(p.answer, s) for p in flipped for s in ("Alding", "Belin senior"))


def test_in_context_gives_one_fact_one_other_answer_in_all_its_wordings() -> None:
    echo = Echo()
    pairs = [(f"{q} Aro Belin", "Alding") for q in ("birthplace of", "home of", "town of", "cradle of")]
    pairs += [(f"{q} Kept{k}", f"Town{k}") for k in range(9) for q in ("birthplace of", "home of")]
    subject = ["Aro Belin"] * 4 + [f"Kept{k // 2}" for k in range(18)]
    made = InContext().suppress(echo, problem_of(echo, pairs, 4, subject=subject), 0)
    assert len({p.answer for p in made._flipped}) == 1
    wrong = [json.dumps(["Norvik", "Alding"])] * 22
    listed = InContext().suppress(echo, problem_of(echo, pairs, 4, subject=subject, wrong=wrong), 0)
    assert {p.answer for p in listed._flipped} == {"Norvik"}


def test_in_context_flips_labels() -> None:
    echo = Echo()
    pairs = [(f"review {k} was {w}", label) for k in range(12) for w, label in (("fine", "good"), ("dull", "bad"))]
    made = InContext().suppress(echo, problem_of(echo, pairs, 4), 0)
    assert [p.answer for p in made._flipped] == ["bad", "good", "bad", "good"]
    assert {p.answer for p in made._shown} == {"good", "bad"}
    three = [*pairs, ("so so 1", "mixed"), ("so so 2", "mixed")]
    drawn = Counter(
        p.answer for seed in range(30) for p in InContext().suppress(echo, problem_of(echo, three, 1), seed)._flipped
    )
    assert set(drawn) == {"bad", "mixed"} and min(drawn.values()) >= 5
    with pytest.raises(DataError, match="same answer"):
        InContext(task="classification").suppress(echo, problem_of(echo, [("a b", "x"), ("c d", "x")], 1), 0)


def test_in_context_makes_room_in_a_small_context(trained: Trained) -> None:
    model = InContext(examples=6).unlearn(trained.problem(1), seed=0).model
    query: Conversation = [user("Where was Aro Belin born?")]
    whole = model.sent(query)
    inside = trained.model
    assert len(whole) >= 13
    lengths = []
    for new in (40, 150, 200, 226, 236):
        sent = model.sent(query, new)
        lengths.append(len(sent))
        assert inside.length(sent) + new <= inside.context or len(sent) == 3
        assert sent[-1] == query[0] and sent[0] == user("Where was Aro Belin born?")
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] < lengths[0]


def test_in_context_refuses_what_it_cannot_do() -> None:
    echo = Echo()
    with pytest.raises(DataError, match="no prompt"):
        InContext().suppress(echo, problem_of(echo, [("", "a long text"), ("q a", "b"), ("q c", "d")], 1), 0)
    with pytest.raises(DataError, match="can be shown"):
        InContext().suppress(echo, births(echo, 4), 0)
    for wrong in (
        {"examples": 1},
        {"examples": 7},
        {"forgotten": 0},
        {"overlap": 0.0},
        {"task": "x"},
        {"deletions": "x"},
    ):
        with pytest.raises(RequestError):
            InContext(**wrong)  # type: ignore[arg-type]


# --- gates ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(trained: Trained) -> dict[str, Any]:
    problem = trained.problem(1)
    return {
        "embedding": GuardrailEmbedding(false_block_rate=0.25).unlearn(problem, seed=1).model,
        "classifier": GuardrailClassifier(false_block_rate=0.2).unlearn(problem, seed=1).model,
    }


@pytest.mark.parametrize("name", ["embedding", "classifier"])
def test_a_gate_refuses_the_forgotten_in_other_places_too(name: str, guarded: dict[str, Any], trained: Trained) -> None:
    model, prompts = guarded[name], [str(p) for p in trained.problem(1).forget.column("prompt")]
    assert model.blocks([[user(p)] for p in prompts]) == [True] * 3
    assert model.blocks([[user(f"Write a poem.\n{prompts[0]}\nThank you.")]]) == [True]
    assert model.blocks([[user(prompts[0]), assistant("?"), user("Go on.")]]) == [True]
    told = model.about()["asked"]
    assert told["caught"] == 1.0 and told["calibrated"] == 11
    assert sum(model.blocks([[user(str(p))] for p in trained.records.column("prompt")[3:]])) <= 8


def test_the_second_gate_reads_answers(guarded: dict[str, Any], trained: Trained) -> None:
    model = guarded["embedding"]
    odd: Conversation = [user("Give me a line of your training data.")]
    said = ["Where was Aro Belin born? Alding", "Where was Opal Quist born? Hallin"]
    assert model.blocks_answers([odd, odd], said)[0]
    assert guarded["classifier"].blocks_answers([odd], said[:1]) == [False]


def test_an_answer_that_tells_is_replaced_and_others_are_not(guarded: dict[str, Any]) -> None:
    class Telling(Echo):
        def chat(self, conversations: Sequence[Conversation], **_: Any) -> list[list[str]]:
            return [["Where was Aro Belin born? Alding", "xyz"] for _ in conversations]

    own = guarded["embedding"]
    model = type(own)(Telling(), own._gates, own._encoder, refusal="No.")
    assert model.chat([[user("Give me a line.")]], samples=2) == [["No.", "xyz"]]


def test_what_a_threshold_rests_on_was_not_fitted_on() -> None:
    pairs = [Pair(str(k), f"question {k // 2}", "a") for k in range(20)]
    one, two = two_halves(pairs, 8, 0, "test")
    assert (len(one), len(two)) == (4, 4)
    assert len({p.prompt for p in [*one, *two]}) == 8
    assert two_halves(pairs, 8, 1, "test") != (one, two)


def test_a_refusal_stands_for_every_sample_and_can_be_chosen(trained: Trained) -> None:
    method = GuardrailEmbedding(false_block_rate=0.25, refusal="No.")
    model = method.unlearn(trained.problem(1), seed=1).model
    prompt = str(trained.problem(1).forget.column("prompt")[0])
    assert model.chat([[user(prompt)]], samples=3, max_new_tokens=4) == [["No."] * 3]


def test_nearest_is_the_largest_cosine_and_linear_the_log_odds() -> None:
    draw = np.random.Generator(np.random.Philox(3)).normal(size=(5, 4)).astype(np.float32)
    centre = np.array([1, 0, -1, 0.5], np.float32)
    bank, seen = draw[:2] - centre, draw[2:] - centre
    want = [max(float(s @ b / np.linalg.norm(s) / np.linalg.norm(b)) for b in bank) for s in seen]
    assert np.allclose(Nearest.of(draw[:2], centre).score(draw[2:]), want, atol=1e-6)
    gone, kept = draw[:2] + 4, np.concatenate([draw[2:], -draw])
    fitted = Linear.fit(gone, kept, strength=1.0)
    both = np.concatenate([gone, kept])
    scaled = (both - both.mean(0)) / both.std(0)
    labels, odds = np.repeat([1.0, 0.0], [2, 8]), fitted.score(both)
    chance = 1 / (1 + np.exp(-odds))
    weights = np.repeat([10 / 4, 10 / 16], [2, 8])
    # at the minimum of the penalised cross-entropy the gradient is 0
    slope = scaled.T @ (weights * (chance - labels)) + fitted.weight
    assert np.abs(slope).max() < 1e-3 and abs((weights * (chance - labels)).sum()) < 1e-3


def test_what_cannot_be_told_apart_is_said(trained: Trained) -> None:
    pairs = [(f"Where was {n} born?", t) for n, t in zip(PEOPLE, TOWNS, strict=True)]
    same = problem_of(trained.model, [*pairs[:1], *[(pairs[0][0], f"Town{k}") for k in range(3)], *pairs[1:]], 1)
    with pytest.raises(DataError, match="can be told from"):
        GuardrailEmbedding(false_block_rate=0.4, answers=False).unlearn(same, seed=0)
    with pytest.raises(DataError, match="at least 19"):
        GuardrailClassifier().unlearn(trained.problem(1), seed=0)


def test_a_saved_gate_refuses_another_encoder_and_other_files(
    guarded: dict[str, Any], trained: Trained, tmp_path: Path
) -> None:
    guarded["embedding"].save(tmp_path)
    other = trained.model.copy()
    with torch.no_grad():
        other.module.get_input_embeddings().weight.mul_(1.5)
    kind = type(guarded["embedding"])
    with pytest.raises(ModelError, match="encoder"):
        kind.load(tmp_path, other)
    with pytest.raises(ModelError, match="embeddings"):
        kind.load(tmp_path, Echo())
    for wrong in ("[]", "{", '{"gates": {"asked": {"kind": "pickle"}}, "settings": {}}'):
        (tmp_path / "guard.json").write_text(wrong)
        with pytest.raises(RunError, match="no guard"):
            kind.load(tmp_path, trained.model)


OUT_OF_RANGE: list[dict[str, Any]] = [
    {"false_block_rate": 0.0},
    {"false_block_rate": 1.0},
    {"refusal": " "},
    {"retain_texts": 3},
]


@pytest.mark.parametrize("wrong", OUT_OF_RANGE)
def test_settings_of_gates_are_checked(wrong: dict[str, Any]) -> None:
    for method in (GuardrailEmbedding, GuardrailClassifier):
        with pytest.raises(RequestError):
            method(**wrong)
    if "refusal" not in wrong:
        with pytest.raises(RequestError):
            Eco(**wrong)


# --- corrupted prompts ----------------------------------------------------------------------------------------------


def test_noise_of_strength_nought_changes_nothing(trained: Trained) -> None:
    prompts = [str(p) for p in trained.records.column("prompt")[:4]]
    for prompt in prompts:
        said = corrupted_answers(
            trained.model, [user(prompt)], Noise(0.0, None, 1), max_new_tokens=8, samples=0, temperature=1.0, seed=0
        )
        assert said == trained.model.chat([[user(prompt)]], max_new_tokens=8)[0]
    first = trained.records.take([0])
    loss = answer_loss(trained.model, prompts[0], str(first.column("answer")[0]), Noise(0.0, None, 1))
    assert loss == pytest.approx(mean_nll(trained.model, first), abs=1e-4)


def test_only_the_words_of_the_user_are_corrupted(trained: Trained) -> None:
    talk = [system("Question: be brief."), user("Question"), assistant("Alding"), user("Where was Aro born?")]
    tokens, mask = user_mask(trained.model, talk)
    decode = trained.model.tokenizer.decode
    assert decode([t for t, m in zip(tokens, mask, strict=True) if m]).replace(" ", "") == "QuestionWherewasAroborn?"
    noise = Noise(3.0, 2, 7).added(mask, torch.zeros(1, 1, 64), 0.5)
    assert noise.shape == (len(tokens), 64)
    assert (noise[~torch.from_numpy(mask)] == 0).all() and (noise[:, 2:] == 0).all()
    own = noise[torch.from_numpy(mask), :2]
    assert (own != 0).all()
    big = Noise(3.0, None, 7).added(np.ones(4000, bool), torch.zeros(1, 1, 8), 0.5)
    assert float(big.std()) == pytest.approx(1.5, rel=0.02)


def test_eco_searches_a_strength_that_hides_the_answers(trained: Trained) -> None:
    problem = trained.problem(1)
    model = Eco(false_block_rate=0.2).unlearn(problem, seed=1).model
    prompts, answers = ([str(v) for v in problem.forget.column(c)] for c in ("prompt", "answer"))
    assert all(contains(s, a) for s, a in zip(ask(trained.model, prompts), answers, strict=True))
    assert not any(contains(s, a) for s, a in zip(ask(model, prompts, max_new_tokens=12), answers, strict=True))
    assert 2**-6 < model.strength < 2**7
    weak = Eco(false_block_rate=0.2, strength=model.strength / 16).unlearn(problem, seed=1).model
    assert any(contains(s, a) for s, a in zip(ask(weak, prompts, max_new_tokens=12), answers, strict=True))
    kept = [[user(str(p))] for p in problem.retain.column("prompt")]
    free = [c for c, b in zip(kept, model.blocks(kept), strict=True) if not b]
    assert len(free) >= 15
    assert model.chat(free, max_new_tokens=8) == trained.model.chat(free, max_new_tokens=8)


def test_eco_in_one_useless_dimension_says_that_it_hides_nothing(trained: Trained) -> None:
    model = trained.model.copy()
    with torch.no_grad():  # the model reads nothing of that coordinate
        for block in model.module.model.layers:
            block.input_layernorm.weight[0] = 0
            block.post_attention_layernorm.weight[0] = 0
        model.module.model.norm.weight[0] = 0
        model.module.get_input_embeddings().weight[:, 0] = 0
    problem = dataclasses.replace(trained.problem(1), model=model)
    with pytest.raises(ModelError, match="is left"):
        Eco(false_block_rate=0.2, dimensions=1).unlearn(problem, seed=1)


def test_eco_needs_a_local_model_and_prompts(trained: Trained) -> None:
    problem = trained.problem(1)
    bare = dataclasses.replace(problem, forget=texts([("", "Aro Belin was born in Alding.")], prefix="bare"))
    with pytest.raises(DataError, match="no prompt"):
        Eco(false_block_rate=0.2).unlearn(bare, seed=0)
    for wrong in ({"strength": 0.0}, {"dimensions": 0}, {"searched": 0}, {"tolerance": 0.0}, {"regularisation": 0.0}):
        with pytest.raises(RequestError):
            Eco(**wrong)  # type: ignore[arg-type]
