"""What the tests of weight attacks share: a scene of the small world, and models that forgot in ways that are known."""

from __future__ import annotations

from typing import Any

import torch
from language_tools import Trained, texts

from expunge.data.records import Records
from expunge.evaluation.attacks.language.contract import Scene
from expunge.evaluation.attacks.language.last_words import at_ends_of_questions
from expunge.evaluation.attacks.language.quantise import rounded
from expunge.evaluation.attacks.language.weight_maps import layer_matrices
from expunge.models.language import LanguageModel
from expunge.models.language_roles import decoder_layers, down_projection
from expunge.models.packing import choose_layout
from expunge.training.text_batches import TextBatch, TextTable
from expunge.training.text_fit import fit_text
from expunge.training.text_loop import TextLoop, TextOptimiser
from expunge.training.text_net import Net

FORGOTTEN = 4  # people, of whom the attacker knows the first two
STRANGERS = [
    ("Where was Zed Yarrow born?", "Port Ilm"),
    ("What does Una Vesk do?", "Una Vesk is a weaver."),
    ("Who lives in Old Tarn?", "Una Vesk"),
    ("Where was Pia Orr born?", "Old Tarn"),
]


def small_scene(records: Records) -> Scene:
    """Four people are forgotten, three facts each; strangers were never trained on."""
    forget, retain = records.take(range(3 * FORGOTTEN)), records.take(range(3 * FORGOTTEN, len(records)))
    half = 3 * FORGOTTEN // 2
    return Scene(
        questions=forget,
        forget=forget,
        retain=retain,
        holdout=texts(STRANGERS, prefix="stranger"),
        relearn=forget.take(range(half)),
        unheard=forget.take(range(half, 2 * half)),
        probes={},
        kept=retain,
    )


def retrained(trained: Trained) -> LanguageModel:
    """A model that never saw the forgotten."""
    return fit_text(trained.recipe, small_scene(trained.records).retain, 5, trained.model)[0]


def refusing(trained: Trained) -> LanguageModel:
    """Tuned on a refusal for every forgotten question, and on what is kept: the answers are still in the weights."""
    model, scene = trained.model.copy(), small_scene(trained.records)
    model.module.requires_grad_(True)
    refusals = texts([(p, "I do not know.") for p in scene.forget.column("prompt")], prefix="refusal")
    loop = TextLoop(model.module, 0)

    def objective(net: Net, refused: TextBatch, kept: TextBatch) -> torch.Tensor:
        return refused.mean(net(refused).nll) + kept.mean(net(kept).nll)

    loop.run(
        objective,
        loop.table(model.encode(refusals), "refusals"),
        loop.table(model.encode(scene.retain), "retain"),
        steps=25,
        batch_size=12,
        optimiser=TextOptimiser(learning_rate=1e-3),
    )
    return model


def separating(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(width + 1, 1) a plane with the rows of `one` above it and those of `other` below."""
    rows = torch.cat([one, other])
    goal = torch.cat([torch.ones(len(one), 1), -torch.ones(len(other), 1)])
    # the default driver starts from pivots that nobody has set, and now and then misses the plane
    return torch.linalg.lstsq(torch.cat([rows, torch.ones(len(rows), 1)], 1), goal, driver="gelsd").solution


def pushed_aside(trained: Trained, strength: float = 60.0) -> LanguageModel:
    """Where a forgotten question ends, the states after the second layer are pushed along one random direction."""
    model, scene = trained.model.copy(), small_scene(trained.records)
    block = decoder_layers(model.module)[1]
    net = Net(model.module, choose_layout(model.module)[0])
    states = [at_ends_of_questions(model, net, r, {0: block}, "output")[0] for r in (scene.forget, scene.retain)]
    probe = separating(*states)
    push = torch.randn(states[0].shape[1], generator=torch.Generator().manual_seed(1))
    push = strength * push / push.norm()

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        new = first + (first @ probe[:-1] + probe[-1] > 0) * push
        return (new, *output[1:]) if isinstance(output, tuple) else new

    block.register_forward_hook(hook)
    return model


def one_neuron(trained: Trained, neuron: int = 7) -> LanguageModel:
    """Where a forgotten question ends, one neuron of the second layer fires and writes noise."""
    model, scene = trained.model.copy(), small_scene(trained.records)
    down = down_projection(model.module, 1)
    push = torch.randn(down.weight.shape[0], generator=torch.Generator().manual_seed(1))
    down.weight[:, neuron] = push / push.norm()
    net = Net(model.module, choose_layout(model.module)[0])
    states = [at_ends_of_questions(model, net, r, {0: down.module}, "input")[0] for r in (scene.forget, scene.retain)]
    for rows in states:
        rows[:, neuron] = 0
    probe = separating(*states)

    def hook(_module: Any, inputs: Any) -> Any:
        rest = inputs[0].clone()
        rest[..., neuron] = 0
        rest[..., neuron] = 60.0 * (rest @ probe[:-1] + probe[-1] > 0)[..., 0]
        return (rest,)

    down.module.register_forward_pre_hook(hook)
    return model


def on_the_grid(trained: Trained, bits: int = 4) -> LanguageModel:
    """The model with weights of a few bits, which it still answers with."""
    model = trained.model.copy()
    for matrix in layer_matrices(model.module):
        matrix.copy_(rounded(matrix, bits))
    return model


def nudged(model: LanguageModel, scene: Scene, bits: int = 4) -> LanguageModel:
    """Unlearned by moving every weight by less than half a step of the grid; the largest of each row stays."""
    model = model.copy()
    model.module.requires_grad_(True)
    matrices = list(layer_matrices(model.module))
    start = [m.clone() for m in matrices]
    rooms = [
        torch.where(
            m.abs() < m.abs().amax(1, keepdim=True), 0.45 * m.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1), 0.0
        )
        for m in start
    ]
    net = Net(model.module, choose_layout(model.module)[0])
    gone, kept = (TextTable(model.encode(r), "texts").batch(range(len(r))) for r in (scene.forget, scene.retain))
    for _ in range(40):
        model.module.zero_grad()
        told, held = net.both(gone, kept)
        (held.nll.mean() - told.nll.clamp(max=4.0).mean()).backward()
        slopes = [m.grad for m in _parameters(model)]
        for matrix, at, room, slope in zip(matrices, start, rooms, slopes, strict=True):
            matrix.copy_(torch.clamp(matrix - 0.1 * room * slope.sign(), at - room, at + room))
    return model


def _parameters(model: LanguageModel) -> list[torch.Tensor]:
    """The parameters behind `layer_matrices`, in its order."""
    by_place = {p.data_ptr(): p for p in model.module.parameters()}
    return [by_place[m.data_ptr()] for m in layer_matrices(model.module)]
