"""Recording what a language model says: the only place where evaluation touches one.

Every model that is compared is recorded in one precision, the one it is held in, without autocast.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from expunge.data.records import Records
from expunge.data.texts import PIECE_OF, text_records
from expunge.errors import DataError, ModelError
from expunge.evaluation.metrics.language.outputs import TextOutputs
from expunge.models.chat import ChatModel, user, weights_of
from expunge.models.language import LanguageModel, evaluation_mode
from expunge.models.packing import choose_layout
from expunge.models.template import Template
from expunge.training.files import write_atomically
from expunge.training.text_batches import TOKENS_AT_ONCE, TextTable
from expunge.training.text_net import Net

MAX_NEW_TOKENS = 200
SMALL = 20_000_000
# Probes whose prompt is the beginning of a passage, and whose answer is how it goes on.
CONTINUED = ("verbatim", "near_verbatim", "retain_verbatim", "retain_near_verbatim", "verbmem_forget", "choice")
# Of those, scored by what was said too much as well: MUSE lets a model say as many tokens as the longest answer has.
AS_LONG = ("verbmem_forget",)
CONTINUE = Template(prompt="{prompt}", answer=" {answer}", end=False)
# A column of questions with answered ones before them in the prompt: how many.
IN_A_ROW = "answered_before"
WRONG, PARAPHRASE = "wrong", "paraphrase"
PARAPHRASED = "paraphrased_answer"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """One model on one set of probes.

    Args:
        main: on the questions and their true answers. wrong: on wrong answers, ids ``id#k``; None where there are none.
        paraphrase: on a paraphrase of the true answer, for truth ratios; None where there is none.
    """

    main: TextOutputs
    wrong: TextOutputs | None = None
    paraphrase: TextOutputs | None = None

    def save(self, folder: Path, name: str) -> None:
        """One safetensors file a part, in `folder`."""
        for part, outputs in self.parts():
            write_atomically(folder / f"{name}.{part}.safetensors", partial(_save, outputs))

    def parts(self) -> Iterator[tuple[str, TextOutputs]]:
        for part in ("main", WRONG, PARAPHRASE):
            outputs = getattr(self, part)
            if outputs is not None:
                yield part, outputs

    @classmethod
    def load(cls, folder: Path, name: str) -> Recorded:
        """The inverse of `save`.

        Raises:
            DataError: not there, or damaged.
        """
        found = {
            part: TextOutputs.load(folder / f"{name}.{part}.safetensors")
            for part in ("main", WRONG, PARAPHRASE)
            if part == "main" or (folder / f"{name}.{part}.safetensors").exists()
        }
        return cls(**found)


def _save(outputs: TextOutputs, path: Path) -> None:
    outputs.save(path)


def record_probes(
    model: LanguageModel, probes: Mapping[str, Records], *, generate: bool = True, samples: int = 0, seed: int = 0
) -> dict[str, Recorded]:
    """Ask one model all probes; empty sets are left out. What is whole as it stands is put to it without a template."""
    plain = LanguageModel(model.module, model.tokenizer, CONTINUE)
    return {
        name: record(
            plain if name in CONTINUED or IN_A_ROW in records.columns else model,
            records,
            generate=generate,
            samples=samples,
            seed=seed,
            surplus=name not in AS_LONG,
        )
        for name, records in probes.items()
        if len(records)
    }


def record_answers(
    model: ChatModel, probes: Mapping[str, Records], *, samples: int = 0, seed: int = 0
) -> dict[str, Recorded]:
    """Ask a model that answers messages and gives no probabilities; as many tokens as its original is given.

    What is no question has nothing to be asked: a plain text, and the beginning of a passage, which such a model cannot
    be made to go on with. Of these the true answers alone are recorded.

    Raises:
        ModelError: nothing inside says what a token is.
    """
    inside = weights_of(model)
    if inside is None:
        raise ModelError(
            "the model is not on this machine, so that its answers cannot be given the same room", "Box it"
        )
    found = {}
    for name, records in probes.items():
        if not len(records):
            continue
        answers = [str(a) for a in records.column("answer")]
        prompts = [str(p) for p in records.column("prompt")]
        generated, sampled = None, None
        if any(prompts) and name not in CONTINUED and IN_A_ROW not in records.columns:
            asked = [[user(p)] for p in prompts]
            room = _longest_answer(inside, answers, surplus=True)
            generated = tuple(said[0] for said in model.chat(asked, max_new_tokens=room))
            if samples:
                drawn = model.chat(asked, max_new_tokens=room, samples=samples, seed=seed)
                sampled = tuple(tuple(row) for row in drawn)
        ids = tuple(map(str, records.ids.tolist()))
        found[name] = Recorded(main=TextOutputs(ids=ids, answers=tuple(answers), generated=generated, samples=sampled))
    return found


def record(
    model: LanguageModel,
    records: Records,
    *,
    generate: bool = True,
    samples: int = 0,
    seed: int = 0,
    surplus: bool = True,
) -> Recorded:
    """Ask a model questions with known answers.

    Args:
        records: columns ``prompt`` and ``answer``; ``wrong`` (a JSON list a record) and ``paraphrased_answer`` are used
            where they are there. generate: let it answer greedily, up to as long as the longest answer, or with
            `surplus` half as long again.
        samples: so many answers each at temperature 1, for `leak_at_k`. seed: of those.

    A plain text longer than the model reads is scored in pieces, whose tokens stand one after the other in the outcome.
    """
    answers = [str(a) for a in records.column("answer")]
    prompts = [str(p) for p in records.column("prompt")]
    generated, sampled = None, None
    if (generate or samples) and any(prompts):  # a plain text has nothing to be asked
        longest = _longest_answer(model, answers, surplus)
        small = sum(p.numel() for p in model.module.parameters()) < SMALL
        many = 256 if small else 32  # a small model's time goes into calls, a large one's into memory
        if generate:
            generated = tuple(str(t) for t in model.generate(prompts, max_new_tokens=longest, batch_size=many))
        if samples:
            drawn = model.generate(prompts, max_new_tokens=longest, samples=samples, seed=seed, batch_size=many)
            sampled = tuple(tuple(row) for row in drawn)
        if IN_A_ROW in records.columns:  # a model that goes on with a question of its own has answered before
            generated = None if generated is None else tuple(map(first_answer, generated))
            sampled = None if sampled is None else tuple(tuple(map(first_answer, row)) for row in sampled)
    main = score(model, records, answers=tuple(answers), generated=generated, samples=sampled)
    wrong = paraphrase = None
    if WRONG in records.columns:
        alternatives = _alternatives(records)
        wrong = score(model, alternatives) if len(alternatives) else None
    if PARAPHRASED in records.columns:
        told = text_records(
            records.ids.tolist(),
            prompts,
            [str(p) or a for p, a in zip(records.column(PARAPHRASED), answers, strict=True)],
        )
        paraphrase = score(model, told)
    return Recorded(main=main, wrong=wrong, paraphrase=paraphrase)


def score(
    model: LanguageModel,
    records: Records,
    *,
    answers: tuple[str, ...] | None = None,
    generated: tuple[str, ...] | None = None,
    samples: tuple[tuple[str, ...], ...] | None = None,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> TextOutputs:
    """Log-probabilities of the true answers and what membership metrics need beside them.

    Raises:
        DataError: there are no records.
    """
    if not len(records):
        raise DataError("there are no records to ask the model about", "Give at least one")
    pieces = model.pieces(records)
    table = TextTable(model.encode(pieces), "probes")
    size = int(table.offsets[-1])
    flat = {name: np.empty(size, np.float32) for name in ("log_probs", "means", "deviations")}
    hits = np.empty(size, bool)
    layout, _ = choose_layout(model.module)
    net = Net(model.module, layout)
    with torch.no_grad(), evaluation_mode(model.module):
        for batch in table.in_order(tokens_at_once):
            scored = net(batch)
            log_p = torch.log_softmax(scored.logits, -1)
            p = log_p.exp()
            mean = (p * log_p).sum(-1)
            # two passes: the difference of two large squares would lose what a peaked distribution has left
            spread = (p * (log_p - mean[:, None]) ** 2).sum(-1).sqrt()
            place = batch.positions.numpy()
            flat["log_probs"][place] = scored.log_probs.clamp(max=0.0).cpu().numpy()
            flat["means"][place] = mean.cpu().numpy()
            flat["deviations"][place] = spread.cpu().numpy()
            hits[place] = (scored.logits.argmax(-1) == scored.packed.targets).cpu().numpy()
    cut = table.offsets[first_pieces(records, pieces)][1:]
    return TextOutputs(
        ids=tuple(records.ids.tolist()),
        log_probs=tuple(np.split(flat["log_probs"], cut)),
        means=tuple(np.split(flat["means"], cut)),
        deviations=tuple(np.split(flat["deviations"], cut)),
        hits=tuple(np.split(hits, cut)),
        answers=answers,
        generated=generated,
        samples=samples,
    )


def token_probabilities(model: LanguageModel, records: Records) -> list[list[tuple[str, float]]]:
    """For each record its answer's tokens as text, each with the probability the model gives it."""
    pieces = model.pieces(records)
    encoded = model.encode(pieces)
    scored = [tokens[start:] for tokens, start in zip(encoded.tokens, encoded.starts, strict=True)]
    first = first_pieces(records, pieces).tolist()
    found = []
    for a, b, log_p in zip(first, [*first[1:], len(scored)], score(model, records).scored, strict=True):
        words = [model.tokenizer.decode([int(t)]) for t in np.concatenate(scored[a:b])]
        found.append(list(zip(words, np.exp(log_p).astype(float).tolist(), strict=True)))
    return found


def first_pieces(records: Records, pieces: Records) -> np.ndarray:
    """Row in `pieces` of the first piece of every record, in order."""
    if pieces is records:
        return np.arange(len(records))
    names = [str(of) or str(own) for own, of in zip(pieces.ids, pieces.column(PIECE_OF), strict=True)]
    return np.array([k for k, name in enumerate(names) if k == 0 or name != names[k - 1]], dtype=np.int64)


def first_answer(said: str) -> str:
    """What was said before a blank line or a further question."""
    for end in ("\n\n", "\nQuestion", "Question:"):
        said = said.split(end)[0]
    return said.strip()


def _longest_answer(model: LanguageModel, answers: Sequence[str], surplus: bool) -> int:
    tokens = model.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    longest = max(map(len, tokens))
    room = MAX_NEW_TOKENS if model.context is None else min(MAX_NEW_TOKENS, max(model.context // 2, 1))
    return min(longest + (longest // 2 + 4) * surplus, room)


def _alternatives(records: Records) -> Records:
    ids, prompts, answers = [], [], []
    for name, prompt, listed in zip(records.ids, records.column("prompt"), records.column(WRONG), strict=True):
        for k, answer in enumerate(json.loads(listed)):
            ids.append(f"{name}#{k}")
            prompts.append(str(prompt))
            answers.append(str(answer))
    return text_records(ids, prompts, answers)
