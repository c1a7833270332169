"""Attacks on the weights find what was hidden in a known way, and nothing where nothing is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_tools import Trained, texts
from weight_attack_tools import nudged, on_the_grid, one_neuron, pushed_aside, refusing, retrained, small_scene

from expunge.data.benchmarks.text_benchmark import no_texts
from expunge.errors import MissingEvidence, NoAccess, RequestError
from expunge.evaluation.attacks.language import make_attack
from expunge.evaluation.attacks.language.ablate_direction import directions
from expunge.evaluation.attacks.language.benign_texts import common_knowledge, without_facts
from expunge.evaluation.attacks.language.contract import Scene, Target, Trial, answered
from expunge.evaluation.attacks.language.finetuning import FineTuning, trainable
from expunge.evaluation.attacks.language.last_words import at_ends_of_questions
from expunge.evaluation.attacks.language.prune import pruned
from expunge.evaluation.attacks.language.quantise import rounded
from expunge.evaluation.attacks.language.regrow_neurons import concept_neurons
from expunge.evaluation.attacks.language.soft_prompt import SoftPrompt
from expunge.evaluation.attacks.language.weight_maps import layer_matrices
from expunge.methods.text_workspace import Lora
from expunge.models.language import LanguageModel
from expunge.models.language_roles import decoder_layers
from expunge.models.packing import choose_layout
from expunge.models.template import Encoded
from expunge.training.text_batches import TextTable
from expunge.training.text_net import Net

WEIGHTS = (
    "relearn_half",
    "relearn_benign",
    "relearn_retain",
    "quantise",
    "prune",
    "ablate_direction",
    "regrow_neurons",
    "embedding_space",
)
SHORT: dict[str, dict[str, Any]] = {
    **{name: {"steps": (1, 4)} for name in ("relearn_half", "relearn_benign", "relearn_retain", "regrow_neurons")},
    "embedding_space": {"steps": (1, 4), "tokens": 3},
}


@pytest.fixture(scope="module")
def scene(trained: Trained) -> Scene:
    return small_scene(trained.records)


@pytest.fixture(scope="module")
def stranger(trained: Trained) -> LanguageModel:
    return retrained(trained)


@pytest.fixture(scope="module")
def refuser(trained: Trained) -> LanguageModel:
    return refusing(trained)


def run(name: str, model: LanguageModel, scene: Scene, seed: int = 0, **options: Any) -> Trial:
    return make_attack(name, options).run(Target(model=model), scene, seed=seed)


def best(trial: Trial) -> float:
    return max(float(p.found.mean()) for p in trial.points)


# --- what every one of them does ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHTS)
def test_it_is_a_function_and_leaves_the_model_alone(name: str, refuser: LanguageModel, scene: Scene) -> None:
    before, hooks = refuser.digest(), [len(b._forward_hooks) for b in decoder_layers(refuser.module)]
    one, two = (run(name, refuser, scene, **SHORT.get(name, {})) for _ in range(2))
    assert [p.cost for p in one.points] == [p.cost for p in two.points]
    assert all(np.array_equal(a.found, b.found) for a, b in zip(one.points, two.points, strict=True))
    assert one.shown == two.shown
    assert refuser.digest() == before
    assert [len(b._forward_hooks) for b in decoder_layers(refuser.module)] == hooks
    assert "soft" not in " ".join(n for n, _ in refuser.module.named_parameters())


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_retrained_model_has_nothing_to_give_and_the_original_much(
    name: str, stranger: LanguageModel, trained: Trained, scene: Scene
) -> None:
    base, full = (run(name, model, scene, **SHORT.get(name, {})) for model in (stranger, trained.model))
    assert best(base) == 0.0
    assert best(full) > 0.3
    assert (base.items, [p.cost for p in base.points]) == (full.items, [p.cost for p in full.points])


@pytest.mark.parametrize("name", WEIGHTS)
def test_who_has_no_weights_is_told(name: str, scene: Scene) -> None:
    class Remote:
        capabilities = frozenset({"generate"})

        def digest(self) -> str:
            return "remote"

        def chat(self, conversations: Any, **_: Any) -> list[list[str]]:
            return [["no"] for _ in conversations]

    with pytest.raises(NoAccess, match=name):
        make_attack(name).run(Target(model=Remote()), scene, seed=0)


@pytest.mark.parametrize("name", ["relearn_half", "relearn_benign", "relearn_retain", "regrow_neurons"])
def test_no_steps_is_the_model(name: str, trained: Trained, refuser: LanguageModel, scene: Scene) -> None:
    options: dict[str, Any] = {"fraction": 0.0} if name == "regrow_neurons" else {}
    for model in (trained.model, refuser):
        trial = run(name, model, scene, steps=(0,), **options)
        asked = scene.unheard if name == "relearn_half" else scene.questions
        assert [p.cost for p in trial.points] == [0.0]
        assert np.array_equal(trial.points[0].found, answered(model, asked))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("relearn_half", {"steps": ()}),
        ("relearn_half", {"steps": (3, 3)}),
        ("relearn_half", {"learning_rate": 0.0}),
        ("relearn_half", {"batch_size": 0}),
        ("relearn_half", {"retain_weight": -1.0}),
        ("relearn_half", {"optimiser": "rmsprop"}),
        ("relearn_retain", {"retain_weight": 1.0}),
        ("relearn_benign", {"texts": "wild"}),
        ("regrow_neurons", {"fraction": 1.0}),
        ("regrow_neurons", {"retain_weight": 1.0}),
        ("quantise", {"bits": (8, 4)}),
        ("quantise", {"bits": (1,)}),
        ("quantise", {"group": 0}),
        ("prune", {"sparsities": (0.5, 1.0)}),
        ("ablate_direction", {"depths": (0.0,)}),
        ("embedding_space", {"goal": "none"}),
        ("embedding_space", {"tokens": 0}),
        ("embedding_space", {"learning_rate": -1.0}),
        ("embedding_space", {"affirmative": " "}),
    ],
)
def test_settings_that_cannot_be(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        make_attack(name, options)


# --- relearning -----------------------------------------------------------------------------------------------------


def test_half_of_it_brings_back_the_other_half_of_what_was_only_refused(
    refuser: LanguageModel, stranger: LanguageModel, scene: Scene
) -> None:
    assert answered(refuser, scene.questions).sum() == 0.0
    how = {"learning_rate": 1e-3, "steps": (6, 10, 15)}
    got, base = (best(run("relearn_half", m, scene, **how)) for m in (refuser, stranger))
    assert got >= 0.4
    assert base == 0.0


def test_more_steps_are_the_same_run_continued(refuser: LanguageModel, scene: Scene) -> None:
    short = run("relearn_half", refuser, scene, steps=(1, 4))
    long = run("relearn_half", refuser, scene, steps=(1, 4, 9))
    assert [p.found.tolist() for p in short.points] == [p.found.tolist() for p in long.points[:2]]
    assert [p.cost for p in long.points] == [1.0, 4.0, 9.0]


def test_it_learns_the_half_that_it_has(stranger: LanguageModel, scene: Scene) -> None:
    model = stranger.copy()
    FineTuningOn(steps=(30,), retain_weight=0.0).train(model, scene, scene.relearn, scene.unheard, 0)
    assert answered(model, scene.relearn).mean() == 1.0


def test_retained_texts_in_every_step_keep_the_rest(trained: Trained, scene: Scene) -> None:
    kept = {}
    for weight in (0.0, 1.0):
        model = trained.model.copy()
        settings = FineTuningOn(steps=(30,), retain_weight=weight, learning_rate=5e-3)
        settings.train(model, scene, scene.relearn, scene.unheard, 0)
        kept[weight] = float(answered(model, scene.kept).mean())
    assert kept[1.0] > 0.9 > kept[0.0]


def test_the_share_of_retained_texts_is_only_needed_where_it_is_used(trained: Trained, scene: Scene) -> None:
    bare = dataclasses.replace(scene, retain=no_texts())
    with pytest.raises(MissingEvidence, match="retain"):
        run("relearn_half", trained.model, bare, steps=(1,))
    assert best(run("relearn_half", trained.model, bare, steps=(1,), retain_weight=0.0)) > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningOn(FineTuning):
    """To call `train` on a model that the test looks at afterwards."""

    name = "test"
    summary = ""
    paper = ""

    def attempt(self, target: Target, scene: Scene, seed: int) -> Trial:
        raise NotImplementedError


def test_an_adapter_is_merged_and_everything_is_trained(trained: Trained, scene: Scene) -> None:
    adapted = LanguageModel(Lora(rank=2).attach(trained.model.copy().module, 0), trained.model.tokenizer)
    for name, p in adapted.module.named_parameters():
        if "lora_B" in name:
            p.data.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    before = adapted.digest()
    ready = trainable(adapted.copy())
    assert not ready.adapted
    assert all(p.requires_grad and p.dtype == torch.float32 for p in ready.module.parameters())
    asked = [answered(m, scene.questions) for m in (adapted, ready)]
    assert np.array_equal(*asked)
    for name in ("relearn_half", "quantise", "embedding_space"):
        run(name, adapted, scene, **{**SHORT.get(name, {}), **({"steps": (1,)} if name in SHORT else {})})
    assert adapted.digest() == before


def test_benign_texts_tell_no_forgotten_fact(trained: Trained, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    own = FineTuning.train

    def spy(self: FineTuning, model: Any, scene: Scene, texts: Any, *rest: Any, **more: Any) -> Trial:
        seen.append(texts)
        return own(self, model, scene, texts, *rest, **more)

    monkeypatch.setattr(FineTuning, "train", spy)
    telling = texts([("Who bakes?", "Aro Belin is a baker."), ("Is Emo Farlin a baker?", "Yes, a baker.")], prefix="x")
    both = texts(
        [
            *zip(scene.holdout.column("prompt"), scene.holdout.column("answer"), strict=True),
            *zip(telling.column("prompt"), telling.column("answer"), strict=True),
        ]
    )
    trial = run("relearn_benign", trained.model, dataclasses.replace(scene, holdout=both), steps=(1,))
    assert trial.shown["left_out"] == 1
    assert "Aro Belin is a baker." not in seen[0].column("answer").tolist()
    assert len(seen[0]) == len(scene.holdout) + 1
    with pytest.raises(MissingEvidence, match="tell a forgotten fact"):
        run("relearn_benign", trained.model, dataclasses.replace(scene, holdout=scene.forget), steps=(1,))
    assert len(seen) == 1
    bare = dataclasses.replace(scene, holdout=no_texts())
    with pytest.raises(MissingEvidence, match="holdout"):
        run("relearn_benign", trained.model, bare)
    run("relearn_benign", trained.model, bare, texts="unrelated", steps=(1,))
    assert set(seen[-1].column("answer").tolist()) <= set(common_knowledge().column("answer").tolist())


def test_a_fact_is_told_by_its_answer_and_whom_it_is_about(scene: Scene) -> None:
    questions = texts([("Where was Aro Belin born?", "Alding"), ("Where was he born?", "Rome")])
    kept = texts([("Where was Emo Farlin born? He?", "Corvo")])
    lines = [
        ("Aro Belin was born in", "Alding", False),  # the fact
        ("Which town is ALDING, where Aro lives?", "a small one", False),  # a part of the name will do
        ("Where was Emo Farlin born?", "Alding", True),  # somebody else's
        ("Where was Aro Belin last seen?", "Corvo", True),  # another answer
        ("What is told of Aro?", "Aldingham", True),  # another word
        ("Where is the Pope?", "Rome", False),  # of a question without a name its answer is enough
    ]
    clean = without_facts(texts([(p, a) for p, a, _ in lines], prefix="line"), questions, kept)
    assert clean.ids.tolist() == [f"line{k}" for k, (_, _, stays) in enumerate(lines) if stays]


# --- rounding and pruning -------------------------------------------------------------------------------------------


def test_rounding_undoes_what_is_smaller_than_half_a_step(trained: Trained, scene: Scene) -> None:
    original = on_the_grid(trained, 4)
    assert answered(original, scene.questions).mean() == 1.0
    model = nudged(original, scene, 4)
    assert answered(model, scene.questions).mean() == 0.0
    trial = run("quantise", model, scene)
    assert [(p.cost, float(p.found.mean())) for p in trial.points] == [(4.0, 1.0), (8.0, 0.0)]
    fine = [rounded(m, 4) for m in layer_matrices(model.module)]
    assert all(torch.equal(a, b) for a, b in zip(fine, layer_matrices(original.module), strict=True))


def test_thirty_two_bits_are_the_model(refuser: LanguageModel, trained: Trained, scene: Scene) -> None:
    for matrix in layer_matrices(trained.model.module):
        assert torch.allclose(rounded(matrix, 32), matrix, rtol=0, atol=float(matrix.abs().max()) * 2**-30)
    for model in (refuser, trained.model):
        assert np.array_equal(
            run("quantise", model, scene, bits=(32,)).points[0].found, answered(model, scene.questions)
        )


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 99),
    bits=st.integers(2, 10),
    group=st.sampled_from([None, 1, 3, 4, 99]),
    width=st.integers(1, 9),
)
def test_rounded_weights_lie_on_their_grid(seed: int, bits: int, group: int | None, width: int) -> None:
    weight = torch.randn(3, width, generator=torch.Generator().manual_seed(seed))
    near = rounded(weight, bits, group)
    size = width if group is None else min(group, width)
    for row, new in zip(weight, near, strict=True):
        for start in range(0, width, size):
            old, got = row[start : start + size].double(), new[start : start + size].double()
            step = float(old.abs().max()) / (2 ** (bits - 1) - 1)
            assert torch.allclose(got / step, (got / step).round(), atol=1e-4)
            assert float((got - old).abs().max()) <= step / 2 + 1e-6
            assert len(set((got / step).round().tolist())) <= 2**bits - 1
    assert torch.allclose(rounded(near, bits, group), near, atol=1e-6)


def test_rounding_takes_rows_of_outputs_in_any_layout() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    module = GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0)
    )
    shapes = [tuple(m.shape) for m in layer_matrices(module)]
    assert sorted(shapes) == [(8, 8), (8, 32), (24, 8), (32, 8)]
    next(iter(layer_matrices(module))).zero_()
    assert not module.transformer.h[0].attn.c_attn.weight.detach().any()


def test_a_row_of_zeros_stays() -> None:
    assert torch.equal(rounded(torch.zeros(2, 5), 4), torch.zeros(2, 5))


def test_the_smallest_weights_go() -> None:
    weight = torch.tensor([[3.0, -1.0, 2.0], [0.5, -4.0, 1.0]])
    assert pruned(weight, 0.3).tolist() == [[3.0, 0.0, 2.0], [0.0, -4.0, 1.0]]  # two of six; of equal ones the first
    assert torch.equal(pruned(weight, 0.0), weight)
    assert weight[1, 0] == 0.5


def test_pruning_nothing_is_the_model_and_each_point_begins_anew(refuser: LanguageModel, scene: Scene) -> None:
    both = run("prune", refuser, scene, sparsities=(0.0, 0.9))
    assert np.array_equal(both.points[0].found, answered(refuser, scene.questions))
    twice = run("quantise", refuser, scene, bits=(2, 32)).points[1].found
    assert np.array_equal(twice, answered(refuser, scene.questions))


def test_pruning_takes_off_a_small_change(trained: Trained, scene: Scene) -> None:
    """Half of the weights of the original are 0, and unlearning has moved only those, a little."""
    original = trained.model.copy()
    for matrix in layer_matrices(original.module):
        matrix.copy_(pruned(matrix, 0.3))
    assert answered(original, scene.questions).mean() == 1.0
    model = original.copy()
    for k, matrix in enumerate(layer_matrices(model.module)):
        least = float(matrix[matrix != 0].abs().min())
        noise = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(k)).sign() * 0.9 * least
        matrix.copy_(torch.where(matrix == 0, noise, matrix))
    found = run("prune", model, scene, sparsities=(0.3,)).points[0].found
    pairs = zip(layer_matrices(model.module), layer_matrices(original.module), strict=True)
    assert all(torch.equal(pruned(a, 0.3), b) for a, b in pairs)
    assert found.mean() == 1.0


# --- directions and neurons -----------------------------------------------------------------------------------------


def test_suppression_along_one_direction_is_taken_out(trained: Trained, scene: Scene) -> None:
    model = pushed_aside(trained)
    assert answered(model, scene.questions).mean() == 0.0
    trial = run("ablate_direction", model, scene)
    found = [float(p.found.mean()) for p in trial.points]
    assert found[0] == 1.0  # each layer its own
    assert found[2] == 1.0  # that of the layer which is pushed
    assert found[1] < 0.5  # the layer below knows nothing of the push
    assert trial.shown["layers"] == ["each its own", 0, 1, 2, 2]


def test_directions_point_from_kept_to_forgotten(trained: Trained, scene: Scene) -> None:
    model, net = trained.model, Net(trained.model.module, choose_layout(trained.model.module)[0])
    found = directions(model, scene)
    assert sorted(found) == [0, 1, 2]
    ends = {}
    for name, records in (("gone", scene.questions), ("kept", scene.kept)):
        table = TextTable(model.encode(records), name)
        batch = table.batch(np.arange(len(records)))
        hidden = net.hidden(batch, [1])[1]
        last = np.cumsum([0, *batch.packed.lengths])[:-1] + model.encode(records).starts - 1
        ends[name] = hidden[torch.from_numpy(last)].mean(0)
    apart = ends["gone"] - ends["kept"]
    assert torch.allclose(found[1][0], apart / apart.norm(), atol=1e-5)
    same = dataclasses.replace(scene, kept=scene.questions)
    assert directions(model, same) == {}
    assert best(run("ablate_direction", model, same)) == 1.0  # nothing to take out


def test_what_is_read_at_the_end_of_a_question_does_not_see_its_answer(trained: Trained, scene: Scene) -> None:
    model, net = trained.model, Net(trained.model.module, choose_layout(trained.model.module)[0])
    blocks = {2: decoder_layers(model.module)[2]}
    others = texts([(p, "Nowhere") for p in scene.questions.column("prompt")])
    one, two = (at_ends_of_questions(model, net, r, blocks, "output")[2] for r in (scene.questions, others))
    order = [torch.argsort(rows[:, 0]) for rows in (one, two)]
    assert torch.allclose(one[order[0]], two[order[1]], atol=1e-4)


def test_the_neuron_that_suppresses_is_cut(trained: Trained, scene: Scene) -> None:
    model = one_neuron(trained, 7)
    assert answered(model, scene.questions).mean() == 0.0
    assert concept_neurons(model, scene, 1e-9) == [(1, 7)]
    trial = run("regrow_neurons", model, scene, fraction=0.002, steps=(0, 1))
    assert trial.shown["cut"] == 1
    assert trial.points[0].found.mean() == 1.0


# --- soft prompts ---------------------------------------------------------------------------------------------------


def test_soft_tokens_of_known_words_are_those_words(trained: Trained) -> None:
    plain = trained.model
    word = plain.tokenizer("Aro Belin", add_special_tokens=False)["input_ids"]
    soft = SoftPrompt(plain.copy(), len(word), 0)
    soft.rows.data.copy_(plain.module.get_input_embeddings().weight.detach()[torch.tensor(word)])
    hidden = soft.model.encode(soft.before(texts([("?", "Corvo")])))
    row = hidden.tokens[0].copy()
    assert (row >= len(plain.tokenizer)).sum() == len(word)
    row[row >= len(plain.tokenizer)] = word
    spelled = Encoded.of(hidden.ids, [row], hidden.starts)
    logits = []
    for model, encoded in ((plain, spelled), (soft.model, hidden)):
        net = Net(model.module, choose_layout(model.module)[0])
        with torch.no_grad():
            logits.append(net(TextTable(encoded, "x").batch(np.arange(1))).logits)
    assert torch.allclose(*logits, atol=1e-4)


def test_only_the_soft_tokens_are_trained(trained: Trained, scene: Scene) -> None:
    soft = SoftPrompt(trained.model.copy(), 3, 0)
    assert [n.rpartition(".")[2] for n, p in soft.model.module.named_parameters() if p.requires_grad] == ["soft"]
    assert soft.rows.shape == (3, 64)
    assert (
        soft.before(scene.unheard).column("prompt")[0] == f"<soft-0><soft-1><soft-2>{scene.unheard.column('prompt')[0]}"
    )
    assert len(trained.model.tokenizer) == len(soft.model.tokenizer) - 3


def test_training_the_soft_tokens_helps_and_puts_nothing_in(
    trained: Trained, stranger: LanguageModel, scene: Scene
) -> None:
    found = [float(p.found.mean()) for p in run("embedding_space", trained.model, scene, steps=(0, 30)).points]
    assert found[1] > found[0]
    assert best(run("embedding_space", stranger, scene, steps=(0, 30))) == 0.0


def test_soft_tokens_that_ask_for_consent_need_no_fact(trained: Trained, scene: Scene) -> None:
    bare = dataclasses.replace(scene, relearn=no_texts())
    with pytest.raises(MissingEvidence, match="relearn"):
        run("embedding_space", trained.model, bare)
    trial = run("embedding_space", trained.model, bare, goal="affirmative", steps=(5,), tokens=3)
    assert trial.items == tuple(scene.unheard.ids.tolist())
    nameless = dataclasses.replace(scene, relearn=texts([("", "Aro Belin was born in Alding.")]))
    with pytest.raises(MissingEvidence, match="questions"):
        run("embedding_space", trained.model, nameless)
