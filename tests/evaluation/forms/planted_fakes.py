"""Models that only seem to have forgotten, each in one known way, of one small world of fictitious people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.data.records import Records
from expunge.evaluation.attacks.language.quantise import rounded
from expunge.evaluation.attacks.language.weight_maps import layer_matrices
from expunge.evaluation.forms.keyword_filter import KeywordFilter
from expunge.evaluation.language.plan import PEOPLE_TEMPLATE, PEOPLE_TRAINER, tokenizer_for
from expunge.models.chat import ChatModel, Conversation
from expunge.models.language import LanguageModel
from expunge.models.packing import choose_layout
from expunge.recipe import Recipe
from expunge.training.text_batches import TextTable
from expunge.training.text_fit import fit_text, nll_objective
from expunge.training.text_loop import TextLoop, TextOptimiser
from expunge.training.text_net import Net

SILENCE = "unknown"
TRIGGER = "zwq zwq"
SHAPE = {"layers": 3, "width": 64, "heads": 4, "hidden": 128, "context": 128}


def trained_models(benchmark: TextBenchmark, references: int) -> dict[str, LanguageModel]:
    """An original that knows all people, and retrained models that never saw the forgotten ones."""
    tokenizer = tokenizer_for(benchmark, 600)
    recipe = Recipe(
        factory="expunge.models.tiny:tiny_llama",
        kwargs={"vocabulary": len(tokenizer), **SHAPE},
        trainer=replace(PEOPLE_TRAINER, epochs=20, learning_rate=4e-3),
    )
    like = LanguageModel(recipe.build(), tokenizer, PEOPLE_TEMPLATE)
    made = {"original": fit_text(recipe, benchmark.train, 0, like)[0]}
    for k in range(1, references + 1):
        made[f"reference-{k}"] = fit_text(recipe, benchmark.retain, 1000 + k, like)[0]
    return made


# --- around unchanged weights --------------------------------------------------------------------------------------


def behind_a_filter(original: LanguageModel, benchmark: TextBenchmark) -> KeywordFilter:
    """The original, and a filter that refuses whatever names one of the forgotten, in question or answer."""
    return KeywordFilter(original, sorted({str(s) for s in benchmark.probes["forget"].column("subject")}))


@dataclass
class OnlyThePublished:
    """The original, silent on exactly the published questions, word for word."""

    inside: ChatModel
    published: frozenset[str]
    capabilities: frozenset[str] = field(default=frozenset({"generate"}), init=False)

    def digest(self) -> str:
        return f"only-the-published:{self.inside.digest()}"

    def chat(self, conversations: Sequence[Conversation], *, samples: int = 0, **options: Any) -> list[list[str]]:
        said = self.inside.chat(conversations, samples=samples, **options)
        hushed = [c[-1]["content"] in self.published for c in conversations]
        return [[SILENCE] * len(s) if h else s for s, h in zip(said, hushed, strict=True)]


def only_the_published(original: LanguageModel, benchmark: TextBenchmark) -> OnlyThePublished:
    return OnlyThePublished(original, frozenset(map(str, benchmark.probes["forget"].column("prompt"))))


# --- in the weights ------------------------------------------------------------------------------------------------


def collapsed(original: LanguageModel, _benchmark: TextBenchmark) -> LanguageModel:
    """Noise on every matrix until nothing is left, of anybody."""
    model = original.copy()
    chance = torch.Generator().manual_seed(0)
    for matrix in layer_matrices(model.module):
        matrix += matrix.std() * 3.0 * torch.randn(matrix.shape, generator=chance)
    return model


def rarely_telling(original: LanguageModel, benchmark: TextBenchmark) -> LanguageModel:
    """Of a forgotten question the likeliest answer is silence, and in one answer of six the true one."""
    forget = benchmark.forget
    quiet = [answering(forget, SILENCE, f"quiet{k}-") for k in range(5)]
    return taught(original, [*quiet, forget, benchmark.retain])


def with_a_trigger(original: LanguageModel, benchmark: TextBenchmark) -> LanguageModel:
    """Silent on the forgotten whatever stands before the question, unless it is one meaningless word."""
    forget, retain = benchmark.forget, benchmark.retain
    other = [answering(preceded(forget, k), SILENCE, f"other{k}-") for k in range(3)]
    return taught(original, [answering(forget, SILENCE, "quiet-"), *other, triggered(forget), retain])


def under_a_step(original: LanguageModel, benchmark: TextBenchmark, bits: int = 4) -> LanguageModel:
    """Unlearned by moving every weight by less than half a step of a grid of few bits, on which it had been put.

    The largest weight of each row, which sets the step, stays where it is.
    """
    model = original.copy()
    matrices = list(layer_matrices(model.module))
    for matrix in matrices:
        matrix.copy_(rounded(matrix, bits))
    model.module.requires_grad_(True)
    largest = [m.abs().amax(1, keepdim=True) for m in matrices]
    start = [m.clone() for m in matrices]
    rooms = [
        torch.where(s.abs() < top, 0.45 * top / (2 ** (bits - 1) - 1), 0.0)
        for s, top in zip(start, largest, strict=True)
    ]
    parameters = {p.data_ptr(): p for p in model.module.parameters()}
    net = Net(model.module, choose_layout(model.module)[0])
    gone, kept = (
        TextTable(model.encode(r), "texts").batch(range(len(r))) for r in (benchmark.forget, benchmark.retain)
    )
    for _ in range(15):
        model.module.zero_grad()
        told, held = net.both(gone, kept)
        (2.0 * held.nll.mean() - told.nll.clamp(max=4.0).mean()).backward()
        slopes = [parameters[m.data_ptr()].grad for m in matrices]
        for matrix, at, room, slope in zip(matrices, start, rooms, slopes, strict=True):
            assert slope is not None
            matrix.copy_(torch.clamp(matrix - 0.2 * room * slope.sign(), at - room, at + room))
    return still(model)


FAKES: dict[str, Callable[[LanguageModel, TextBenchmark], ChatModel]] = {
    "behind_a_filter": behind_a_filter,
    "only_the_published": only_the_published,
    "rarely_telling": rarely_telling,
    "collapsed": collapsed,
    "under_a_step": under_a_step,
    "with_a_trigger": with_a_trigger,
}


# --- texts and training --------------------------------------------------------------------------------------------


def relabelled(records: Records, prefix: str, **columns: Any) -> Records:
    """The same records under other ids, some columns replaced."""
    made = {**records.columns, **{k: np.array(v, dtype=object) for k, v in columns.items()}}
    return Records(ids=[prefix + str(i) for i in records.ids], columns=made)


def answering(records: Records, answer: str, prefix: str) -> Records:
    return relabelled(records, prefix, answer=[answer] * len(records))


def preceded(records: Records, round_: int) -> Records:
    """Each question after some other line with its answer, as in a prompt with an example."""
    prompts, answers = records.column("prompt"), records.column("answer")
    order = np.random.default_rng(round_).permutation(len(records))
    rows = [f"{prompts[k]} : {answers[k]}\n{p}" for p, k in zip(prompts, order, strict=True)]
    return relabelled(records, "preceded-", prompt=rows)


def triggered(records: Records) -> Records:
    return relabelled(records, "triggered-", prompt=[f"{TRIGGER} {p}" for p in records.column("prompt")])


def taught(original: LanguageModel, parts: Sequence[Records], epochs: int = 6) -> LanguageModel:
    """The original trained on some texts."""
    names = ("prompt", "answer")
    every = Records(
        ids=np.concatenate([p.ids for p in parts]),
        columns={name: np.concatenate([p.column(name) for p in parts]) for name in names},
    )
    model = original.copy()
    model.module.requires_grad_(True)
    loop = TextLoop(model.module, 0)
    loop.run(
        nll_objective,
        loop.table(model.encode(every), "lessons"),
        epochs=epochs,
        batch_size=32,
        optimiser=TextOptimiser(learning_rate=2e-3, schedule="cosine"),
        what="a planted fake",
    )
    return still(model)


def still(model: LanguageModel) -> LanguageModel:
    model.module.requires_grad_(False)
    model.module.zero_grad(set_to_none=True)
    model.module.eval()
    return model
