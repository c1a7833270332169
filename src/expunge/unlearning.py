"""Two lines of Python: a language model and what it should forget in, an unlearned one out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from expunge.data.records import Records
from expunge.data.texts import content_ids, text_records
from expunge.errors import DataError, EmptyForgetSet, RequestError
from expunge.evaluation.language.own_texts import own_texts
from expunge.methods import make_text_method
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.text_workspace import How
from expunge.models.language import LanguageModel
from expunge.models.template import Template
from expunge.problem import Problem
from expunge.recipe import Recipe
from expunge.result import Unlearned

OWN_TEXTS = 64
Texts = Sequence[str] | Sequence[tuple[str, str]] | Sequence[Mapping[str, str]] | Records


def unlearn(
    model: Any,
    tokenizer: Any = None,
    *,
    forget: Texts,
    retain: Texts | None = None,
    method: str = "npo",
    seed: int = 0,
    template: Template | None = None,
    recipe: Recipe | None = None,
    how: How | None = None,
    **parameters: Any,
) -> Unlearned:
    """A copy of a language model that has unlearned some texts; see `expunge methods` for what there is.

    Args:
        model: a `transformers` causal language model, or an `expunge.LanguageModel`. tokenizer: its tokenizer.
        forget: plain texts, (prompt, answer) pairs, mappings of both, or records with those columns.
        retain: the same, of what must stay. Without it the model writes texts of its own; the outcome's trace says so.
        method, parameters: name of a method on language models, and its hyper-parameters.
        recipe: how the model was made, for methods that train again. how: adapter, precision, memory, of training.

    Returns:
        the outcome: ``.model`` is an `expunge.LanguageModel` (``.module``, ``.tokenizer``, ``.save(folder)``); of a
        prompting method a model that answers messages (``.chat``), with the one that was given inside.

    Raises:
        EmptyForgetSet, DataError, RequestError, UnknownName, NonFiniteLoss, NothingChanged.
    """
    given = model if isinstance(model, LanguageModel) else LanguageModel(model, tokenizer, template)
    chosen = make_text_method(method, parameters)
    if isinstance(chosen, PromptMethod) and how is not None:
        raise RequestError(f"{method} trains nothing, and `how` says how to train", "Leave how out")
    gone = as_texts(forget, "forget")
    if not len(gone):
        raise EmptyForgetSet
    note = None
    if retain is not None:
        kept = as_texts(retain, "retain")
    elif "retain" in (chosen.needs if isinstance(chosen, PromptMethod) else chosen.wants()):
        kept = own_texts(given, OWN_TEXTS, seed)
        note = {"retain": f"chosen for you: {len(kept)} texts that the model wrote itself"}
    else:
        kept = gone.take([])
    nothing = gone.take([])
    gone, kept = given.pieces(gone), given.pieces(kept)  # plain texts longer than the model reads
    problem = Problem(model=given, forget=gone, retain=kept, holdout=nothing, test=nothing, recipe=recipe)
    if isinstance(chosen, PromptMethod):
        outcome = chosen.unlearn(problem, seed=seed)
    else:
        outcome = chosen.unlearn(problem, seed=seed, how=how)
    return outcome if note is None else replace(outcome, trace=(note, *outcome.trace))


def as_texts(texts: Texts, role: str) -> Records:
    """Texts in any of the accepted forms as records.

    Raises:
        DataError: a form that is not one of them.
    """
    if isinstance(texts, Records):
        return texts
    if isinstance(texts, str):
        raise DataError(f"{role} is a single string", "Give a list of texts")
    pairs: list[tuple[str, str]] = []
    for item in texts:
        if isinstance(item, str):
            pairs.append(("", item))
        elif isinstance(item, Mapping) and "answer" in item:
            pairs.append((str(item.get("prompt", "")), str(item["answer"])))
        elif isinstance(item, tuple | list) and len(item) == 2:
            pairs.append((str(item[0]), str(item[1])))
        else:
            raise DataError(
                f"{role} holds {type(item).__name__} {str(item)[:40]!r}",
                "Give texts, (prompt, answer) pairs, or mappings with prompt and answer",
            )
    prompts, answers = [p for p, _ in pairs], [a for _, a in pairs]
    return text_records(content_ids(prompts, answers, prefix=role), prompts, answers)
