"""Making one row: whatever the form, a model that answers, the word it may use, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.data.records import Records
from expunge.errors import MissingEvidence
from expunge.evaluation.forms.keyword_filter import KeywordFilter
from expunge.evaluation.forms.routed import Routed
from expunge.evaluation.forms.table import Form
from expunge.methods import make_language_method, make_learner, make_prompting_method
from expunge.methods.exact.sharded_adapters import ShardedAdapters
from expunge.methods.forbidden import names_of
from expunge.methods.learner import Learner, State
from expunge.models.chat import ChatModel, ask
from expunge.models.language import LanguageModel
from expunge.problem import Problem

KEY = "a published key: this table shows what a form costs, and protects nobody"
SECRETS = {"dp_lora": "noise_key", "sharded_adapters": "name_key"}
TIMED = 24


@dataclass(frozen=True, kw_only=True)
class Made:
    """Args:
    model: what answers. guarantee: in words. seconds: processor seconds of serving the request, training before it
        not counted. stored: bytes kept only to be able to forget, or to keep back. parameters: as JSON values.
    """

    model: ChatModel
    guarantee: str
    seconds: float
    stored: int
    parameters: Mapping[str, Any]


def make(form: Form, problem: Problem, benchmark: TextBenchmark, base: Path, seed: int) -> Made:
    """One request served in one form.

    Raises:
        ExpungeError: what the form itself refuses.
    """
    if form.maker == "learner":
        return _learned(form, benchmark, base, seed)
    if form.maker == "tool":
        started = time.process_time()
        filtered = KeywordFilter(problem.model, names_of(problem))  # type: ignore[arg-type]  # it answers messages
        seconds = time.process_time() - started
        return Made(model=filtered, guarantee="suppressed", seconds=seconds, stored=filtered.stored, parameters={})
    if form.maker == "prompting":
        method = make_prompting_method(form.name, form.parameters)
        outcome = method.unlearn(replace(problem, retain=_told(problem.retain)), seed=seed)
    else:
        outcome = make_language_method(form.name, form.parameters).unlearn(problem, seed=seed)
    model = outcome.model
    if not isinstance(model, ChatModel):
        raise MissingEvidence(f"{form.name} gives a model that answers no messages", "Leave it out of this table")
    return Made(
        model=model,
        guarantee=str(outcome.guarantee),
        seconds=outcome.cost.seconds,
        stored=outcome.cost.stored_bytes,
        parameters=outcome.parameters,
    )


def _learned(form: Form, benchmark: TextBenchmark, base: Path, seed: int) -> Made:
    """A learner is trained on everybody first; only its answer to the request is timed."""
    learner = make_learner(form.name, {**form.parameters, SECRETS[form.name]: KEY, "base": str(base)})
    train = _told(benchmark.train)
    gone = set(benchmark.forget.ids.tolist())
    state = learner.fit(train, seed=seed)
    started = time.process_time()
    state, outcome = learner.forget(state, [i for i in train.ids.tolist() if i in gone])
    seconds = time.process_time() - started
    return Made(
        model=_served(learner, state, base, benchmark),
        guarantee=str(outcome.guarantee),
        seconds=seconds,
        stored=outcome.cost.stored_bytes,
        parameters=outcome.parameters,
    )


def _told(records: Records) -> Records:
    """Without dialogues, which teach habits: an adapter and a prompt are about what is told of somebody."""
    return records.take(np.array([kind != "dialogue" for kind in records.column("kind")], dtype=bool))


def _served(learner: Learner, state: State, base: Path, benchmark: TextBenchmark) -> ChatModel:
    if isinstance(learner, ShardedAdapters) and learner.sharding == "each_owner":
        owners = list(dict.fromkeys(map(str, np.asarray(_told(benchmark.retain).owners))))
        return Routed(learner, state, owners, LanguageModel.load(base))
    model: LanguageModel = learner.language_model(state)  # type: ignore[attr-defined]
    return model


def latency(model: ChatModel, bare: ChatModel, prompts: list[str], room: int) -> float:
    """Seconds an answer against those of the bare model: the median ratio over prompts, in turns so that noise of the
    machine meets both."""
    ratios = []
    for prompt in prompts[:TIMED]:
        spent = []
        for one in (bare, model):
            started = time.perf_counter()
            ask(one, [prompt], max_new_tokens=room)
            spent.append(time.perf_counter() - started)
        ratios.append(spent[1] / spent[0])
    return float(np.median(ratios))
