"""Making one row: whatever the form, a model that answers, the word it may use, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.errors import MissingEvidence
from expunge.evaluation.benchmarks.language import presets
from expunge.evaluation.forms.table import Form
from expunge.methods import make_language_method, make_learner, make_prompting_method
from expunge.models.chat import ChatModel, ask
from expunge.models.language import LanguageModel
from expunge.problem import Problem

NOISE_KEY = "a published key: this table shows what noise costs, and protects nobody"
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
    if form.maker == "prompting":
        method = make_prompting_method(form.name, form.parameters)
        outcome = method.unlearn(problem, seed=seed)
    else:
        settings = form.parameters or presets().get(form.name, {})
        outcome = make_language_method(form.name, settings).unlearn(problem, seed=seed)
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
    secret = {"noise_key": NOISE_KEY} if form.name == "dp_lora" else {}
    learner = make_learner(form.name, {**form.parameters, **secret, "base": str(base)})
    state = learner.fit(benchmark.train, seed=seed)
    started = time.process_time()
    state, outcome = learner.forget(state, benchmark.forget.ids.tolist())
    seconds = time.process_time() - started
    model: LanguageModel = learner.language_model(state)  # type: ignore[attr-defined]
    return Made(
        model=model,
        guarantee=str(outcome.guarantee),
        seconds=seconds,
        stored=outcome.cost.stored_bytes,
        parameters=outcome.parameters,
    )


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
