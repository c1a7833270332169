"""The tables of methods and learners: name -> class. Adding one touches a line, its file, a test and a docs page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from expunge.errors import RequestError, UnknownName
from expunge.methods.base import WeightMethod
from expunge.methods.certified.descent_to_delete import DescentToDelete
from expunge.methods.certified.dp_lora import DpLora
from expunge.methods.certified.dp_sgd import DpSgd
from expunge.methods.certified.langevin import Langevin
from expunge.methods.certified.newton_removal import NewtonRemoval
from expunge.methods.certified.noisy_finetune import NoisyFinetune
from expunge.methods.certified.private_shards import PrivateShards
from expunge.methods.certified.rewind_to_delete import RewindToDelete
from expunge.methods.certified.sekhari import Sekhari
from expunge.methods.compose import Chain, chain
from expunge.methods.concepts import do_nothing as concepts_do_nothing
from expunge.methods.concepts import finetune as concepts_finetune
from expunge.methods.concepts import gradient_ascent as concepts_gradient_ascent
from expunge.methods.concepts import retrain as concepts_retrain
from expunge.methods.concepts.alt_po import AltPo
from expunge.methods.concepts.ce_u import CeU
from expunge.methods.concepts.component_deletion import ComponentDeletion
from expunge.methods.concepts.eul import Eul
from expunge.methods.concepts.grad_diff import GradDiff
from expunge.methods.concepts.gradient_routing import GradientRouting
from expunge.methods.concepts.idk_dpo import IdkDpo
from expunge.methods.concepts.idk_tuning import IdkTuning
from expunge.methods.concepts.knowledge_unlearning import KnowledgeUnlearning
from expunge.methods.concepts.lora_negation import LoraNegation
from expunge.methods.concepts.memit import Memit
from expunge.methods.concepts.mend import Mend
from expunge.methods.concepts.mudman import Mudman
from expunge.methods.concepts.npo import Npo
from expunge.methods.concepts.pdu import Pdu
from expunge.methods.concepts.rmu import Rmu
from expunge.methods.concepts.rome import Rome
from expunge.methods.concepts.sat_imp import SatImp
from expunge.methods.concepts.serac import Serac
from expunge.methods.concepts.simnpo import SimNpo
from expunge.methods.concepts.steering import SteeringAway
from expunge.methods.concepts.task_vector import TaskVector
from expunge.methods.concepts.undial import Undial
from expunge.methods.concepts.undo import Undo
from expunge.methods.concepts.wga import Wga
from expunge.methods.concepts.whos_harry_potter import WhosHarryPotter
from expunge.methods.concepts.yao import Yao
from expunge.methods.exact.cooccurrence import Cooccurrence
from expunge.methods.exact.dare import DareForest
from expunge.methods.exact.dckmeans import DivideAndConquerKMeans
from expunge.methods.exact.knn import NearestNeighbours
from expunge.methods.exact.naive_bayes import NaiveBayes
from expunge.methods.exact.periodic import PeriodicRetraining
from expunge.methods.exact.qkmeans import QuantisedKMeans
from expunge.methods.exact.replay import Replay
from expunge.methods.exact.ridge import Ridge
from expunge.methods.exact.sharded_adapters import ShardedAdapters
from expunge.methods.exact.sisa import Sisa
from expunge.methods.exact.statistical_query import StatisticalQuery
from expunge.methods.examples.amnesiacs import Amnesiacs
from expunge.methods.examples.ascent_random_labels import AscentRandomLabels
from expunge.methods.examples.bad_teacher import BadTeacher
from expunge.methods.examples.cf_k import CfK
from expunge.methods.examples.ct import ConvolutionTranspose
from expunge.methods.examples.do_nothing import DoNothing
from expunge.methods.examples.eu_k import EuK
from expunge.methods.examples.fanchuan import Fanchuan
from expunge.methods.examples.finetune import Finetune
from expunge.methods.examples.fisher_noise import FisherNoise
from expunge.methods.examples.forget_cycle import ForgetCycle
from expunge.methods.examples.gradient_ascent import GradientAscent
from expunge.methods.examples.influence import Influence
from expunge.methods.examples.kga import Kga
from expunge.methods.examples.kl_retain import KlRetain
from expunge.methods.examples.kookmin import Kookmin
from expunge.methods.examples.l1_sparse import L1Sparse
from expunge.methods.examples.neggrad_plus import NegGradPlus
from expunge.methods.examples.prune import Prune
from expunge.methods.examples.prune_finetune import PruneFinetune
from expunge.methods.examples.random_labels import RandomLabels
from expunge.methods.examples.reinit_similar import ReinitSimilar
from expunge.methods.examples.reset import Reset
from expunge.methods.examples.reset_first import ResetFirst
from expunge.methods.examples.reset_last import ResetLast
from expunge.methods.examples.retrain import Retrain
from expunge.methods.examples.rollback import Rollback
from expunge.methods.examples.salun import SalUn
from expunge.methods.examples.scrub import Scrub
from expunge.methods.examples.sebastian import Sebastian
from expunge.methods.examples.seif import Seif
from expunge.methods.examples.ssd import Ssd
from expunge.methods.examples.sun import Sun
from expunge.methods.examples.unsir import Unsir
from expunge.methods.learner import Learner
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.prompting.boxed import Boxed
from expunge.methods.prompting.eco import Eco
from expunge.methods.prompting.guardrail_classifier import GuardrailClassifier
from expunge.methods.prompting.guardrail_embedding import GuardrailEmbedding
from expunge.methods.prompting.guardrail_prefix import GuardrailPrefix
from expunge.methods.prompting.guardrail_string import GuardrailString
from expunge.methods.prompting.in_context import InContext
from expunge.methods.prompting.mem_free import MemFree
from expunge.methods.prompting.pretend import Pretend
from expunge.methods.text_base import TextMethod
from expunge.recipe import Recipe

__all__ = [
    "LANGUAGE_METHODS",
    "LEARNERS",
    "METHODS",
    "PROMPTING_METHODS",
    "Chain",
    "chain",
    "make_language_method",
    "make_learner",
    "make_method",
    "make_prompting_method",
    "make_text_method",
    "text_method",
]

METHODS: dict[str, type[WeightMethod]] = {
    method.name: method
    for method in (
        Retrain,
        DoNothing,
        Finetune,
        GradientAscent,
        AscentRandomLabels,
        RandomLabels,
        NegGradPlus,
        KlRetain,
        ReinitSimilar,
        Prune,
        PruneFinetune,
        Reset,
        ResetFirst,
        ResetLast,
        CfK,
        EuK,
        L1Sparse,
        Rollback,
        Scrub,
        BadTeacher,
        Kga,
        SalUn,
        Unsir,
        Ssd,
        FisherNoise,
        Influence,
        Fanchuan,
        Kookmin,
        Seif,
        Sebastian,
        ConvolutionTranspose,
        Amnesiacs,
        Sun,
        ForgetCycle,
    )
}


# Methods of others, from the entry-point group `expunge.methods`: name -> class, under the same contract.
METHODS |= {point.name: point.load() for point in entry_points(group="expunge.methods") if point.name not in METHODS}


def make_method(name: str, parameters: Mapping[str, Any] | None = None) -> WeightMethod:
    """A method by its name in the table and its hyper-parameters; ``chain`` takes ``parts``, a list of the same.

    Raises:
        UnknownName: no such method. RequestError: a hyper-parameter it does not have.
    """
    parameters = dict(parameters or {})
    if name == "chain":
        parts = parameters.get("parts") or []
        return Chain(parts=tuple(make_method(p["name"], {k: v for k, v in p.items() if k != "name"}) for p in parts))
    if name in LEARNERS:
        raise RequestError(
            f"{name} is a learner: it forgets from what it has learned itself, not from a model that is there",
            f"Learn with it (`expunge fit {name} …`) and use `expunge forget`, or name a method",
        )
    if name not in METHODS:
        raise UnknownName("method", name, [*METHODS, "chain"])
    known = {f.name: f for f in dataclasses.fields(METHODS[name])}  # type: ignore[arg-type]
    for key in parameters:
        if key not in known:
            raise RequestError(f"{name} has no hyper-parameter {key!r}", f"It has: {', '.join(known) or 'none'}")
    return METHODS[name](**parameters)


# Methods on language models; where one of both kinds shares a name, they share the idea.
LANGUAGE_METHODS: dict[str, type[TextMethod]] = {
    method.name: method
    for method in (
        concepts_retrain.Retrain,
        concepts_do_nothing.DoNothing,
        concepts_finetune.Finetune,
        concepts_gradient_ascent.GradientAscent,
        KnowledgeUnlearning,
        GradDiff,
        Yao,
        Eul,
        Npo,
        SimNpo,
        IdkTuning,
        IdkDpo,
        AltPo,
        Undial,
        CeU,
        Pdu,
        Wga,
        SatImp,
        WhosHarryPotter,
        Undo,
        Mudman,
        Rmu,
        ComponentDeletion,
        TaskVector,
        LoraNegation,
        SteeringAway,
        Rome,
        Memit,
        Mend,
        Serac,
        GradientRouting,
    )
}


# Methods of others on language models, from the entry-point group `expunge.language_methods`.
LANGUAGE_METHODS |= {
    point.name: point.load()
    for point in entry_points(group="expunge.language_methods")
    if point.name not in LANGUAGE_METHODS
}


def make_language_method(name: str, parameters: Mapping[str, Any] | None = None) -> TextMethod:
    """A method on language models by its name in the table and its hyper-parameters.

    Raises:
        UnknownName: no such method. RequestError: a hyper-parameter it does not have.
    """
    parameters = dict(parameters or {})
    if name not in LANGUAGE_METHODS:
        raise UnknownName("method on language models", name, LANGUAGE_METHODS)
    known = {f.name for f in dataclasses.fields(LANGUAGE_METHODS[name])}  # type: ignore[arg-type]
    for key in parameters:
        if key not in known:
            raise RequestError(
                f"{name} has no hyper-parameter {key!r}", f"It has: {', '.join(sorted(known)) or 'none'}"
            )
    return LANGUAGE_METHODS[name](**parameters)


# Methods that put something around a model, local or remote, and change no weight.
PROMPTING_METHODS: dict[str, type[PromptMethod]] = {
    method.name: method
    for method in (
        Pretend,
        InContext,
        GuardrailEmbedding,
        GuardrailClassifier,
        Eco,
        GuardrailPrefix,
        GuardrailString,
        MemFree,
        Boxed,
    )
}


# Methods of others, from the entry-point group `expunge.prompting_methods`, under the same contract.
PROMPTING_METHODS |= {
    point.name: point.load()
    for point in entry_points(group="expunge.prompting_methods")
    if point.name not in PROMPTING_METHODS
}


def make_prompting_method(name: str, parameters: Mapping[str, Any] | None = None) -> PromptMethod:
    """A prompting method by its name in the table and its hyper-parameters.

    Raises:
        UnknownName: no such method. RequestError: a hyper-parameter it does not have.
    """
    parameters = dict(parameters or {})
    if name not in PROMPTING_METHODS:
        raise UnknownName("prompting method", name, PROMPTING_METHODS)
    known = {f.name for f in dataclasses.fields(PROMPTING_METHODS[name])}  # type: ignore[arg-type]
    for key in parameters:
        if key not in known:
            raise RequestError(
                f"{name} has no hyper-parameter {key!r}", f"It has: {', '.join(sorted(known)) or 'none'}"
            )
    return PROMPTING_METHODS[name](**parameters)


def text_method(name: str) -> type[TextMethod] | type[PromptMethod]:
    """A method on language models, of either kind: one that trains or edits, or one that prompts.

    Raises:
        UnknownName: no such method.
    """
    if name in PROMPTING_METHODS:
        return PROMPTING_METHODS[name]
    if name not in LANGUAGE_METHODS:
        raise UnknownName("method on language models", name, [*LANGUAGE_METHODS, *PROMPTING_METHODS])
    return LANGUAGE_METHODS[name]


def make_text_method(name: str, parameters: Mapping[str, Any] | None = None) -> TextMethod | PromptMethod:
    """The same with its hyper-parameters.

    Raises:
        UnknownName: no such method. RequestError: a hyper-parameter it does not have.
    """
    if text_method(name) is PROMPTING_METHODS.get(name):
        return make_prompting_method(name, parameters)
    return make_language_method(name, parameters)


# Models built to forget: `fit`, `forget`, `predict`.
LEARNERS: dict[str, type[Learner]] = {
    learner.name: learner
    for learner in (
        Sisa,
        Replay,
        ShardedAdapters,
        PeriodicRetraining,
        QuantisedKMeans,
        DivideAndConquerKMeans,
        NaiveBayes,
        Cooccurrence,
        StatisticalQuery,
        Ridge,
        NearestNeighbours,
        DareForest,
        DescentToDelete,
        Langevin,
        PrivateShards,
        NewtonRemoval,
        Sekhari,
        DpSgd,
        DpLora,
        NoisyFinetune,
        RewindToDelete,
    )
}


# Learners of others, from the entry-point group `expunge.learners`, under the same contract.
LEARNERS |= {point.name: point.load() for point in entry_points(group="expunge.learners") if point.name not in LEARNERS}


def make_learner(name: str, parameters: Mapping[str, Any] | None = None) -> Learner:
    """A learner by its name in the table and its hyper-parameters; a recipe may be given as a mapping.

    Raises:
        UnknownName: no such learner. RequestError: a hyper-parameter it does not have, or one that is missing.
    """
    parameters = dict(parameters or {})
    if name not in LEARNERS:
        raise UnknownName("learner", name, LEARNERS)
    known = {f.name: f for f in dataclasses.fields(LEARNERS[name])}  # type: ignore[arg-type]
    for key in parameters:
        if key not in known:
            raise RequestError(f"{name} has no hyper-parameter {key!r}", f"It has: {', '.join(known) or 'none'}")
    for key, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in parameters:
            raise RequestError(f"{name} needs the hyper-parameter {key!r}", "Give it")
    if isinstance(parameters.get("recipe"), Mapping):
        parameters["recipe"] = Recipe.from_dict(parameters["recipe"])
    return LEARNERS[name](**parameters)
