"""The one loop: losses by hand, parts and precisions that change nothing, interruptions, and errors that say what."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed_runs import METHOD, fresh, npo, problem
from language_tools import texts, world
from torch import Tensor

from expunge.errors import NonFiniteLoss, NotEnoughRoom, RequestError, RunError
from expunge.methods.text_workspace import How, Lora, TextWorkspace
from expunge.models.language import LanguageModel
from expunge.models.template import Template
from expunge.problem import Problem
from expunge.training.text_batches import TextBatch
from expunge.training.text_loop import TextJob, TextLoop, TextOptimiser, score_texts
from expunge.training.text_net import Net
from expunge.training.text_stages import Stages

RATE = TextOptimiser(learning_rate=1e-3)


def nll(net: Net, batch: TextBatch) -> Tensor:
    return batch.mean(net(batch).nll)


def vector(model: LanguageModel) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.module.parameters()])


def trained(job: TextJob | None = None, steps: int = 3, rate: TextOptimiser = RATE, batch: int = 8) -> LanguageModel:
    model = fresh()
    model.module.requires_grad_(True)
    loop = TextLoop(model.module, 0, job)
    loop.run(nll, loop.table(model.encode(world()), "train"), batch_size=batch, optimiser=rate, steps=steps)
    return model


# --- what is scored -------------------------------------------------------------------------------------------------


def test_losses_equal_a_plain_loop_with_labels() -> None:
    model = fresh()
    table = TextLoop(model.module, 0).table(encoded := model.encode(world()), "scored")
    net = TextLoop(model.module, 0).net()
    with torch.no_grad():
        scored = net(table.batch(np.arange(len(encoded))))
    by_token = score_texts(net, table, tokens_at_once=50)
    for k, (row, start) in enumerate(zip(encoded.tokens, encoded.starts, strict=True)):
        labels = torch.from_numpy(row).clone()
        labels[:start] = -100
        with torch.no_grad():
            out = model.module(input_ids=torch.from_numpy(row)[None], labels=labels[None])
            logits = torch.log_softmax(out.logits[0], -1)
        assert float(scored.nll[k]) == pytest.approx(float(out.loss), abs=1e-5)
        assert float(scored.total_nll[k]) == pytest.approx(float(out.loss) * (len(row) - start), abs=1e-4)
        by_hand = [float(logits[t - 1, row[t]]) for t in range(start, len(row))]
        flat = by_token[table.offsets[k] : table.offsets[k + 1]]
        np.testing.assert_allclose(flat.numpy(), by_hand, atol=1e-5)


def test_other_words_in_the_prompt_are_read_and_not_scored() -> None:
    model = fresh()
    net = TextLoop(model.module, 0).net()
    one, two = (model.encode(texts([(p, "a baker")])) for p in ("What?", "Who is it that asks?"))
    a, b = (net(TextLoop(model.module, 0).table(e, "x").batch(np.array([0]))) for e in (one, two))
    assert a.logits.shape == b.logits.shape and not torch.equal(a.logits, b.logits)


def test_two_batches_in_one_pass_equal_two_passes() -> None:
    model = fresh()
    loop = TextLoop(model.module, 0)
    table, net = loop.table(model.encode(world()), "x"), loop.net()
    first, second = table.batch(np.array([3, 9])), table.batch(np.array([1, 20, 4]))
    for ours, alone in zip(net.both(first, second), (net(first), net(second)), strict=True):
        torch.testing.assert_close(ours.nll, alone.nll, atol=1e-5, rtol=1e-5)


def test_hidden_states_are_those_of_transformers() -> None:
    model = fresh()
    loop = TextLoop(model.module, 0)
    table = loop.table(model.encode(world()), "x")
    batch = table.batch(np.array([3, 9]))
    packed = loop.net().hidden(batch, [0, 1])
    padded = Net(model.module, "padded").hidden(batch, [0, 1])
    start = 0
    for r in (3, 9):
        row = torch.from_numpy(table.encoded.tokens[r])
        with torch.no_grad():
            expected = model.module(input_ids=row[None], output_hidden_states=True).hidden_states
        for layer in (0, 1):
            for found in (packed, padded):
                part = found[layer][start : start + len(row)]
                torch.testing.assert_close(part, expected[layer + 1][0], atol=1e-5, rtol=1e-4)
        start += len(row)


# --- how it is run changes nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("job", [TextJob(tokens_at_once=40), TextJob(tokens_at_once=1), TextJob(checkpointing=True)])
def test_parts_and_recomputed_activations_give_the_plain_step(job: TextJob) -> None:
    gentle = TextOptimiser(learning_rate=1e-2, kind="sgd")  # Adam would enlarge rounding of gradients near zero
    torch.testing.assert_close(vector(trained(job, rate=gentle)), vector(trained(rate=gentle)), atol=1e-5, rtol=1e-5)


def test_autocast_moves_the_weights_the_same_way() -> None:
    before = vector(fresh())
    plain, fast = vector(trained()) - before, vector(trained(TextJob(autocast=True))) - before
    assert not torch.equal(plain, fast)
    assert float(torch.nn.functional.cosine_similarity(plain, fast, dim=0)) >= 0.99
    assert float(fast.norm() / plain.norm()) == pytest.approx(1, abs=0.02)


def test_the_same_run_twice_is_the_same_bytes_and_another_seed_is_not() -> None:
    assert npo(TextJob()).digest() == npo(TextJob()).digest()
    assert METHOD.unlearn(problem(), seed=6).model.digest() != METHOD.unlearn(problem(), seed=5).model.digest()


def test_texts_and_tokens_are_counted_once_in_parts_too() -> None:
    for job in (TextJob(), TextJob(tokens_at_once=40)):
        model = fresh()
        model.module.requires_grad_(True)
        loop = TextLoop(model.module, 0, job)
        encoded = model.encode(world())
        loop.run(nll, loop.table(encoded, "x"), batch_size=7, optimiser=RATE, epochs=1)
        assert (loop.texts, loop.tokens) == (24, int(encoded.lengths.sum()))


def test_the_schedule_by_hand() -> None:
    flat = TextOptimiser(learning_rate=2.0)
    assert [flat.rate(k, 4) for k in range(4)] == [2.0] * 4
    linear = TextOptimiser(learning_rate=2.0, schedule="linear")
    assert [linear.rate(k, 4) for k in range(4)] == [2.0, 1.5, 1.0, 0.5]
    warm = TextOptimiser(learning_rate=3.0, warmup=0.5)
    assert [warm.rate(k, 4) for k in range(4)] == [1.0, 2.0, 3.0, 3.0]
    cosine = TextOptimiser(learning_rate=2.0, schedule="cosine")
    assert [cosine.rate(k, 2) for k in range(2)] == pytest.approx([2.0, 1.0])


def test_gradients_are_clipped() -> None:
    before = vector(fresh())
    step = TextOptimiser(learning_rate=1.0, kind="sgd", max_grad_norm=0.01)
    assert float((vector(trained(steps=1, rate=step)) - before).norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("wrong", [{}, {"epochs": 1, "steps": 1}])
def test_epochs_or_steps(wrong: dict[str, Any]) -> None:
    model = fresh()
    loop = TextLoop(model.module, 0)
    with pytest.raises(RequestError, match="either epochs or steps"):
        loop.run(nll, loop.table(model.encode(world()), "x"), batch_size=2, optimiser=RATE, **wrong)


# --- errors ---------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_leaves_the_weights_of_the_step_before() -> None:
    def broken(net: Net, batch: TextBatch) -> Tensor:
        return nll(net, batch) * (math.nan if net.step == 2 else 1.0)

    model = fresh()
    model.module.requires_grad_(True)
    loop = TextLoop(model.module, 0)
    with pytest.raises(NonFiniteLoss):
        loop.run(broken, loop.table(model.encode(world()), "train"), batch_size=8, optimiser=RATE, steps=4)
    assert torch.equal(vector(model), vector(trained(steps=2)))
    assert all(p.grad is None for p in model.module.parameters())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_do(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Net, packed: object) -> None:
        raise error

    monkeypatch.setattr(Net, "score", full)
    with pytest.raises(NotEnoughRoom, match=r"77 tokens at once .*Lower tokens_at_once"):
        trained(TextJob(tokens_at_once=77))


def test_other_errors_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Net, packed: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Net, "score", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trained()


# --- interruptions --------------------------------------------------------------------------------------------------


def two_stages(stages: Stages, killed_at: int | None = None, seed: int = 0, rate: float = 1e-3) -> tuple[str, int]:
    """Two runs of the loop one after another; digest of the weights, and texts counted."""
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise KeyboardInterrupt

    model = fresh()
    model.module.requires_grad_(True)
    loop = TextLoop(model.module, seed, TextJob(stages=stages, on_step=stop))
    table = loop.table(model.encode(world()), "train")
    for steps in (3, 2):
        loop.run(nll, table, batch_size=8, optimiser=TextOptimiser(learning_rate=rate), steps=steps)
    return model.digest(), loop.texts


@pytest.mark.parametrize("step", range(1, 6))
def test_killed_at_any_step_it_ends_in_the_same_bytes(step: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        two_stages(Stages(tmp_path, 0.0), killed_at=step)
    assert two_stages(Stages(tmp_path, 0.0)) == two_stages(Stages())
    assert two_stages(Stages(tmp_path, 0.0)) == two_stages(Stages())  # and once more, from finished stages alone
    assert sorted(p.name for p in tmp_path.glob("*")) == ["stage-000-end.safetensors", "stage-001-end.safetensors"]
    Stages(tmp_path).clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", [{"seed": 1}, {"rate": 2e-3}], ids=["seed", "learning rate"])
def test_stages_of_another_run_are_refused(other: dict[str, Any], tmp_path: Path) -> None:
    two_stages(Stages(tmp_path, 0.0))
    with pytest.raises(RunError, match="other weights, texts or settings"):
        two_stages(Stages(tmp_path, 0.0), **other)


def test_stages_of_other_hyper_parameters_or_weights_are_refused(tmp_path: Path) -> None:
    job = TextJob(stages=Stages(tmp_path, 0.0))
    METHOD.unlearn(problem(), seed=5, how=How(job=job))
    again = replace(job, stages=Stages(tmp_path, 0.0))
    with pytest.raises(RunError, match="other weights"):
        replace(METHOD, beta=0.5).unlearn(problem(), seed=5, how=How(job=again))
    other = problem()
    with torch.no_grad():
        next(iter(other.model.module.parameters()))[0, 0] += 1e-3
    with pytest.raises(RunError, match="other weights"):
        METHOD.unlearn(other, seed=5, how=How(job=replace(job, stages=Stages(tmp_path, 0.0))))


def test_a_damaged_stage_is_named(tmp_path: Path) -> None:
    two_stages(Stages(tmp_path, 0.0))
    path = tmp_path / "stage-000-end.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="is damaged"):
        two_stages(Stages(tmp_path, 0.0))


# --- the original's log-probabilities, kept -------------------------------------------------------------------------


def work_on(asked: Problem, cache: Path, **how: Any) -> TextWorkspace:
    return TextWorkspace("npo", asked, 0, How(cache=cache, **how), ("reference:forget",))


def test_references_are_kept_by_content_alone(tmp_path: Path) -> None:
    asked = problem()
    first = work_on(asked, tmp_path).reference("forget")
    assert len(list(tmp_path.iterdir())) == 1
    again = work_on(asked, tmp_path)
    again.loop.net = None  # type: ignore[assignment,method-assign]  # a hit asks no model
    assert torch.equal(again.reference("forget"), first)
    assert torch.equal(work_on(asked, tmp_path, lora=Lora(rank=2)).reference("forget"), first)
    assert len(list(tmp_path.iterdir())) == 1


def changed(what: str) -> tuple[Problem, dict[str, Any]]:
    asked, how = problem(), {}
    if what == "text":
        asked.forget.columns["answer"][0] = "elsewhere"
    if what == "weight":
        with torch.no_grad():
            next(iter(asked.model.module.parameters()))[5] += 0.5
    if what == "template":
        asked = replace(
            asked, model=LanguageModel(asked.model.module, asked.model.tokenizer, Template(prompt="{prompt}\nAnswer:"))
        )
    if what == "precision":
        how["job"] = TextJob(autocast=True)
    return asked, how


@pytest.mark.parametrize("what", ["text", "weight", "template", "precision"])
def test_references_of_anything_else_are_computed_anew(what: str, tmp_path: Path) -> None:
    old = work_on(problem(), tmp_path).reference("forget")
    asked, how = changed(what)
    new = work_on(asked, tmp_path, **how).reference("forget")
    assert len(list(tmp_path.iterdir())) == 2
    fresh_one = work_on(asked, tmp_path / "empty", **how).reference("forget")
    assert torch.equal(new, fresh_one) and not (new.shape == old.shape and torch.equal(new, old))


def test_references_of_another_layout_are_kept_apart(tmp_path: Path) -> None:
    """Packed and padded batches differ in rounding, which is enough to make two runs differ."""
    packed, padded = work_on(problem(), tmp_path), work_on(problem(), tmp_path)
    assert packed.loop.layout == "packed"
    padded.loop.layout = "padded"
    for work in (packed, padded):
        work.reference("forget")
    assert len(list(tmp_path.iterdir())) == 2
