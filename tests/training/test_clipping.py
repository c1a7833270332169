"""Clipped per-example gradients: three ways to one sum, the same sum as Opacus, and the limit cases of the step."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.records import Records
from expunge.errors import ModelError
from expunge.models.architectures import mlp, small_cnn, softmax_regression
from expunge.recipe import Recipe, Trainer
from expunge.training.batches import Table
from expunge.training.clipping import (
    clipped_by_vmap,
    clipped_sum,
    fastest,
    smoothed,
    unfolded,
)
from expunge.training.engine import ENGINES
from expunge.training.loop import Loop, Stream
from expunge.training.optimiser import Optimiser
from expunge.training.private import PoissonTable, PrivateLoop, participation
from expunge.training.stack import Stack

IMAGES = (1, 8, 8)


def modules() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "softmax_regression": softmax_regression(IMAGES, 5),
        "mlp": mlp(IMAGES, 5, width=12, depth=2),
        "small_cnn": small_cnn(IMAGES, 5),
        "odd": nn.Sequential(
            nn.Conv2d(1, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), bias=False),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 3, 2),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(12, 7, bias=False),
            nn.SiLU(),
            nn.Linear(7, 5),
        ),
    }


def batch(n: int = 19, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(n, *IMAGES, generator=generator), torch.randint(0, 5, (n,), generator=generator)


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def by_hand(module: nn.Module, x: Tensor, y: Tensor, norm: float, label_smoothing: float = 0.0) -> Tensor:
    """One backward pass an example."""
    total = 0.0
    for record, label in zip(x, y, strict=True):
        loss = F.cross_entropy(module(record[None]), label[None], label_smoothing=label_smoothing)
        flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(module.parameters()))])
        total = total + flat * min(1.0, norm / float(flat.norm()))
    return total  # type: ignore[return-value]


@pytest.mark.parametrize("name", list(modules()))
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_every_way_gives_the_sum_of_single_gradients(name: str, smoothing: float) -> None:
    module, (x, y) = modules()[name], batch()
    p = parameters_of(module)
    single = torch.stack([by_hand(module, x[k : k + 1], y[k : k + 1], 1e9, smoothing) for k in range(len(x))])
    norm = float(single.norm(dim=1).median())  # half are clipped
    wanted = by_hand(module, x, y, norm, smoothing)
    assert fastest(module) is not clipped_by_vmap
    for way in (clipped_by_vmap, clipped_sum):
        total, norms, losses = way(module, p, {}, x, y, norm, smoothing)
        np.testing.assert_allclose(total, wanted, atol=2e-6)
        np.testing.assert_allclose(norms, single.norm(dim=1), rtol=1e-5)
        np.testing.assert_allclose(
            losses, F.cross_entropy(module(x), y, reduction="none", label_smoothing=smoothing).detach(), atol=1e-6
        )
    for before, after in zip(p.values(), module.parameters(), strict=True):
        assert torch.equal(before, after) and not before.requires_grad


@pytest.mark.parametrize("name", list(modules()))
def test_no_record_weighs_more_than_the_norm(name: str) -> None:
    module, (x, y) = modules()[name], batch(6, scale=50.0)
    for k in range(len(x)):
        total, norms, _ = clipped_sum(module, parameters_of(module), {}, x[k : k + 1], y[k : k + 1], 0.3)
        assert float(total.norm()) <= 0.3 * (1 + 1e-6)
        assert float(total.norm()) == pytest.approx(min(0.3, float(norms)), rel=1e-5)


def test_unfolding_is_that_of_torch() -> None:
    x = batch()[0].expand(-1, 3, -1, -1)
    for settings in ({}, {"padding": 1}, {"stride": (2, 3)}, {"dilation": 2, "padding": (2, 0)}):
        layer = nn.Conv2d(3, 4, (3, 2), **settings)
        wanted = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        assert torch.equal(unfolded(layer, x), wanted)


def test_smoothed_labels_are_those_of_torch() -> None:
    logits, y = torch.randn(4, 5, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 4, 2, 2])
    mine = -(smoothed(y, 5, 0.1) * logits.log_softmax(1)).sum(1)
    np.testing.assert_allclose(mine, F.cross_entropy(logits, y, reduction="none", label_smoothing=0.1), rtol=1e-6)


def test_what_layers_cannot_do_goes_by_vmap() -> None:
    torch.manual_seed(2)
    shared = nn.Linear(64, 64)
    for module in (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 5)),
        nn.Sequential(nn.Conv2d(1, 1, 3, padding="same"), nn.Flatten(), nn.Linear(64, 5)),
        nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(64, 5)),
        nn.Sequential(nn.Flatten(), shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(64, 5)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 5)),
        nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 5)),
        nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), nn.ReLU(), nn.Linear(8, 5)),
    ):
        assert fastest(module) is clipped_by_vmap
        x, y = batch(7)
        wanted = by_hand(module, x, y, 0.5)
        total = clipped_sum(module, parameters_of(module), {}, x, y, 0.5).total
        np.testing.assert_allclose(total, wanted, atol=2e-6)


def test_records_that_cannot_be_told_apart_are_refused() -> None:
    x, y = batch()
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5)).train()
    buffers = dict(module.named_buffers())
    with pytest.raises(ModelError, match="told apart"):
        clipped_sum(module, parameters_of(module), buffers, x, y, 1.0)
    everywhere = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(6, 5), nn.Flatten(), nn.Linear(30, 5))
    with pytest.raises(ModelError, match="Flatten"):
        clipped_sum(everywhere, parameters_of(everywhere), {}, x, y, 1.0)


@pytest.mark.filterwarnings("ignore")  # Opacus warns of its own generator and of hooks
@pytest.mark.parametrize("name", ["softmax_regression", "mlp", "small_cnn"])
def test_equal_to_opacus_over_steps(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus.grad_sample import GradSampleModule
        from opacus.optimizers import DPOptimizer

    module, (x, y) = modules()[name], batch(64)
    norm = float(clipped_sum(module, parameters_of(module), {}, x, y, 1.0).norms.median())
    theirs = GradSampleModule(copy.deepcopy(module))
    inner = torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.9)
    optimiser = DPOptimizer(inner, noise_multiplier=0.0, max_grad_norm=norm, expected_batch_size=16)
    stack = Stack.of([module])
    loop = PrivateLoop(
        stack,
        ENGINES["loop"],
        [0],
        noise_multiplier=0.0,
        max_grad_norm=norm,
        clip=clipped_sum,
        divisor=16.0,
    )
    mine = Optimiser(kind="sgd", learning_rate=0.5, momentum=0.9)
    clipped = 0
    for step in range(4):
        rows = slice(16 * step, 16 * step + 13)  # 13 of the 16 that are expected
        optimiser.zero_grad()
        F.cross_entropy(theirs(x[rows]), y[rows]).backward()
        optimiser.step()
        records = Records(
            ids=np.array([f"{k}" for k in range(13)]), columns={"x": x[rows].numpy(), "y": y[rows].numpy()}
        )
        only = next(iter(Table.of([records]).everything(13)))
        _, gradient = loop.gradient(None, [only])
        clipped += int(
            (loop.clip(module, parameters_of(stack.module(0)), {}, x[rows], y[rows], norm, 0).norms > norm).sum()
        )
        mine.step(stack.flat, gradient)
    flat = torch.cat([p.detach().reshape(-1) for p in theirs.parameters()])
    assert 5 < clipped < 47
    np.testing.assert_allclose(stack.flat[0], flat, atol=1e-6)
    assert float((stack.flat[0] - Stack.of([module]).flat[0]).abs().max()) > 0.01


# --- the step and its batches -----------------------------------------------------------------------------------------


def recipe(**kwargs: Any) -> Recipe:
    return Recipe(
        factory="expunge.models.architectures:mlp",
        kwargs={"features": 64, "classes": 5, "width": 8},
        trainer=Trainer(**kwargs),
    )


def records(n: int = 40) -> Records:
    x, y = batch(n)
    return Records(ids=np.array([f"r{k}" for k in range(n)]), columns={"x": x.flatten(1).numpy(), "y": y.numpy()})


def private(stack: Stack, table: Table, *, steps: int, rate: float = 1.0, key: bytes = b"k", **settings: Any) -> None:
    loop = PrivateLoop(stack, ENGINES["batched"], [0], key=key, clip=clipped_sum, **settings)
    drawn = PoissonTable.drawn(table, key, rate, steps)
    loop.run(
        None,  # type: ignore[arg-type]
        Stream(table=drawn, batch_size=1, name="private"),
        epochs=steps,
        optimiser=Optimiser(learning_rate=0.3, momentum=0.9),
    )


def test_no_noise_and_no_clipping_is_sgd() -> None:
    from expunge.training.fit import cross_entropy

    data = records()
    table = Table.of([data])
    plain, mine = (Stack.initialised(recipe(), [0]) for _ in range(2))
    private(mine, table, steps=5, noise_multiplier=0.0, max_grad_norm=1e9, divisor=40.0)
    Loop(plain, ENGINES["batched"], [0]).run(
        lambda net, b: b.mean(cross_entropy(net(b), b.y)),
        Stream(table=table, batch_size=40, name="train"),
        epochs=5,
        optimiser=Optimiser(learning_rate=0.3, momentum=0.9),
    )
    np.testing.assert_allclose(mine.flat, plain.flat, atol=1e-6)


def test_noise_has_the_stated_size_is_fresh_each_step_and_follows_the_key() -> None:
    table = Table.of([records()])
    outcomes = []
    for key in (b"a", b"a", b"b"):
        stack = Stack.initialised(recipe(), [0])
        loop = PrivateLoop(
            stack,
            ENGINES["batched"],
            [0],
            key=key,
            clip=clipped_sum,
            noise_multiplier=3.0,
            max_grad_norm=0.5,
            divisor=8.0,
        )
        quiet = PrivateLoop(
            stack, ENGINES["batched"], [0], clip=clipped_sum, noise_multiplier=0.0, max_grad_norm=0.5, divisor=8.0
        )
        (only,) = table.everything(40)
        signal = quiet.gradient(None, [only])[1]
        draws = [loop.gradient(None, [only], done=torch.tensor([step]))[1] - signal for step in range(4)]
        outcomes.append(torch.cat(draws).numpy())
    first, same, other = outcomes
    np.testing.assert_array_equal(first, same)
    n = first[0].size
    for draw in (*first, *other):
        assert draw.std() == pytest.approx(3.0 * 0.5 / 8.0, rel=5 / np.sqrt(2 * n))
        assert abs(draw.mean()) < 5 * 3.0 * 0.5 / 8.0 / np.sqrt(n)
    for k in range(3):
        for later in (first[k + 1], other[k]):
            assert abs(np.corrcoef(first[k], later)[0, 1]) < 5 / np.sqrt(n)


def test_coins_are_a_records_own_and_fall_at_the_rate() -> None:
    ids = [f"r{k}" for k in range(300)]
    drawn = participation(ids, b"key", 0.1, 200)
    counts = np.array([len(rows) for rows in drawn])
    assert abs(counts.sum() - 6000) < 5 * np.sqrt(60000 * 0.09)
    # Poisson batches: their sizes spread like a binomial, where shuffled ones would all be 30.
    assert 0.75 * 27 < counts.var() < 1.3 * 27
    kept = [k for k in range(300) if k % 3]
    fewer = participation([ids[k] for k in kept], b"key", 0.1, 200)
    for rows, less in zip(drawn, fewer, strict=True):
        assert np.all(np.diff(rows) > 0)
        assert [kept[k] for k in less] == [k for k in rows if k % 3]
    # two records, or two steps, know nothing of each other
    table = np.zeros((200, 300))
    for step, rows in enumerate(drawn):
        table[step, rows] = 1
    assert abs(np.mean(table[:, :-1] * table[:, 1:]) - 0.01) < 5 * np.sqrt(0.01 / table.size)
    assert abs(np.mean(table[:-1] * table[1:]) - 0.01) < 5 * np.sqrt(0.01 / table.size)
    other = participation(ids, b"another", 0.1, 200)
    assert sum(len(np.intersect1d(a, b)) for a, b in zip(drawn, other, strict=True)) < 2 * 600
    assert all(len(rows) == 300 for rows in participation(ids, b"key", 1.0, 3))
    assert all(len(rows) == 0 for rows in participation(ids, b"key", 2**-32, 3))
    assert [len(rows) for rows in participation([], b"key", 0.5, 3)] == [0, 0, 0]


def test_an_empty_batch_is_a_step_of_noise_alone() -> None:
    table = Table.of([records(2)])
    stack = Stack.initialised(recipe(), [0])
    before = stack.flat.clone()
    private(stack, table, steps=3, rate=1e-6, noise_multiplier=0.0, max_grad_norm=1.0, divisor=1.0)
    assert torch.equal(stack.flat, before)
    private(stack, table, steps=1, rate=1e-6, noise_multiplier=2.0, max_grad_norm=1.0, divisor=1.0)
    assert float((stack.flat - before).std()) == pytest.approx(0.3 * 2.0, rel=0.2)


def dropping(features: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(features, classes))


def test_dropout_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    made = Recipe.of(dropping, features=64, classes=5)
    (only,) = Table.of([records()]).everything(40)
    gradients = []
    torch.manual_seed(7)
    wanted = torch.rand(1)
    for step in (0, 0, 1):
        torch.manual_seed(7)
        loop = PrivateLoop(Stack.initialised(made, [0]), ENGINES["loop"], [0], noise_multiplier=0.0)
        gradients.append(loop.gradient(None, [only], done=torch.tensor([step]))[1])
        assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(gradients[0], gradients[1]) and not torch.equal(gradients[0], gradients[2])
