"""A request on a language model carried out: plan, unlearn, ask, report, hand the model over."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from expunge.data.benchmarks.text_benchmark import TextBenchmark
from expunge.errors import RequestError, RunError
from expunge.evaluation.language import tasks
from expunge.evaluation.language.files import load_files
from expunge.evaluation.language.own_texts import own_texts, write_texts
from expunge.evaluation.language.plan import HowPlan, ModelPlan, StudyPlan, load_model
from expunge.evaluation.language.study import Study
from expunge.evaluation.language.suppressed import load_either
from expunge.guarantee import GUARANTEES, Suppressed
from expunge.language_request import LanguageRequest
from expunge.methods import make_text_method
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.text_base import TextMethod
from expunge.models.language import LanguageModel
from expunge.models.packing import choose_layout
from expunge.models.pieces import told
from expunge.models.template import Template
from expunge.training.chunks import Progress
from expunge.training.estimate import check_room
from expunge.training.files import read_json, write_json
from expunge.training.text_batches import TextTable
from expunge.training.text_loop import score_texts
from expunge.training.text_net import Net
from expunge.training.workers import Workers

OWN_TEXTS = 64
CHOSEN = "the retain texts were written by the original itself: no others were given"
BYTES_OF_ADAM = 8  # two moments in single precision


@dataclass(frozen=True, kw_only=True)
class LanguagePlan:
    """What a run will do, resolved and priced before anything is written.

    Args:
        parameters: of the model. trained: of those, what takes gradients. texts: forget, retain, and tokens of both.
        seconds: rough, from a timed forward pass. memory, disk: bytes, rough. cut: what is said of texts longer than
            the model reads.
    """

    request: LanguageRequest
    folder: Path
    method: TextMethod | PromptMethod
    parameters: int
    trained: int
    texts: Mapping[str, int]
    seconds: float
    memory: int
    disk: int
    layout: str
    digest: str
    cut: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "request": self.request.as_dict(),
            "folder": str(self.folder),
            "method": {"name": self.method.name, **self.method.parameters()},
            "guarantee": self.method.guarantee.word,
            "model": {"parameters": self.parameters, "trained": self.trained, "digest": self.digest},
            "texts": dict(self.texts),
            "cut": list(self.cut),
            "layout": self.layout,
            "estimate": {"seconds": round(self.seconds, 1), "memory_bytes": self.memory, "disk_bytes": self.disk},
        }

    def lines(self) -> list[str]:
        """The plan in words, for a terminal."""
        t = self.texts
        return [
            f"request {self.request.id}: forget {t['forget']} texts by {self.method.name}, keep {t['retain']}",
            *self.cut,
            f"guarantee at most: {self.method.guarantee.word}",
            *self._before_naming(),
            f"model: {self.parameters:,} parameters, {self.trained:,} of them trained, on {self.request.model.device}; "
            f"batches {self.layout}",
            f"time: about {self.seconds:.0f} s; memory: about {self.memory / 2**30:.2f} GiB; "
            f"disk: about {self.disk / 2**30:.2f} GiB in {self.folder}",
        ]

    def _before_naming(self) -> list[str]:
        if not isinstance(self.method, PromptMethod) or not self.method.in_prompt:
            return []
        return ["the model is told something in its prompt: `expunge streisand` measures whether that brings it out"]


def rank() -> int:
    """This process's number among those that were launched together."""
    return int(os.environ.get("RANK", "0"))


def make_language_plan(request: LanguageRequest, folder: Path) -> LanguagePlan:
    """Resolve a request against its texts and its model; writes nothing.

    Raises:
        RequestError, UnknownName, UnknownIds, EmptyForgetSet, EmptyRetainSet, DataError, ModelError.
    """
    method = make_text_method(request.method.name, request.method.parameters)
    least = GUARANTEES[request.least_guarantee]
    if method.guarantee.strength < least.strength:
        hiding = f"; least_guarantee: {Suppressed.word} says that hiding is enough"
        raise RequestError(
            f"the request demands {least.word} and {method.name} may claim at most {method.guarantee.word}",
            "Choose a method with that guarantee (`expunge methods`), or ask for less"
            + (hiding if method.guarantee is Suppressed else ""),
        )
    _check_local(request)
    if isinstance(method, PromptMethod):
        _check_prompting(request, method)
    elif request.lora is not None and not method.adapters:
        raise RequestError(f"{method.name} edits weights directly, which lora leaves alone", "Run it without lora")
    request.check_confirmed()
    texts = load_files(**text_options(request))
    if isinstance(method, PromptMethod):
        _check_askable(texts, method)
    model = model_of(request)
    sets = {"forget": texts.forget, "retain": texts.retain}
    pieces = {name: model.pieces(records) for name, records in sets.items()}
    encoded = {name: model.encode(records) for name, records in pieces.items()}
    parameters = sum(p.numel() for p in model.module.parameters())
    trained = parameters if request.lora is None else _adapter_size(model, request.lora.rank)
    if isinstance(method, PromptMethod):
        trained = 0
    tokens = {f"{name}_tokens": int(e.lengths.sum()) for name, e in encoded.items()}
    cut = {name: told(sets[name], pieces[name]) for name in sets}
    table = TextTable(encoded["forget"], "forget")
    started = time.perf_counter()
    layout, why = choose_layout(model.module)
    score_texts(Net(model.module, layout, autocast=request.bf16), table)
    a_pass = time.perf_counter() - started
    epochs = float(method.parameters().get("epochs", 10)) if trained else 0.0
    width = next(iter(model.module.parameters())).element_size()
    room = (
        parameters * width + trained * (4 + BYTES_OF_ADAM) + request.tokens_at_once * _activations(model, trained > 0)
    )
    return LanguagePlan(
        request=request,
        folder=folder,
        method=method,
        parameters=parameters,
        trained=trained,
        texts={"forget": len(texts.forget), "retain": len(texts.retain), **tokens},
        # forward and backward on both sets are six forward passes over the forget set; twenty more passes to ask
        seconds=a_pass * (6 * epochs + 20),
        memory=int(room),
        disk=parameters * width * 2 + trained * (4 + BYTES_OF_ADAM) if trained else 0,  # the original stays where it is
        layout=f"{layout} ({why})",
        digest=model.digest(),
        cut=tuple(f"{name}: {line}" for name, line in cut.items() if line is not None),
    )


def execute_language(
    plan: LanguagePlan, *, max_minutes: float | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Carry the plan out and return the report; what an interrupted run has done is kept and not done again.

    Under several processes (`accelerate launch`) all train, and the first one asks, reports and writes.

    Raises:
        RunError: the folder holds another request, or the method refused. NotEnoughRoom.
    """
    folder, request = plan.folder, plan.request
    frozen = {**request.as_dict(), "resolved": {"weights": plan.digest, "texts": dict(plan.texts)}}
    if (folder / "request.json").exists():
        if read_json(folder / "request.json") != frozen:
            raise RunError(f"{folder} holds the run of another request", "Choose another --out, or remove that folder")
        if (folder / "report.json").exists() and not (folder / "work").exists():
            return read_json(folder / "report.json")  # type: ignore[no-any-return]
    check_room(folder, plan.disk, plan.seconds, max_minutes)
    if rank() == 0:
        write_json(folder / "request.json", frozen)
        write_json(folder / "plan.json", plan.as_dict())
    data, notes = text_options(request), []
    if not plan.texts["retain"] and isinstance(plan.method, TextMethod) and "retain" in plan.method.wants():
        data["retain"] = {"source": str(_own(request, folder))}
        notes.append(CHOSEN)
    study_plan = StudyPlan(
        data={"name": "files", **data, "notes": notes},
        model=ModelPlan(
            original=request.model.name,
            references=request.evaluation.references,
            template=None if request.model.template is None else request.model.template.model_dump(),
            device=request.model.device,
            dtype=request.model.dtype,
        ),
        methods=((plan.method.name, plan.method.name, dict(request.method.parameters)),),
        seeds=1,
        first_seed=request.seed,
        samples=request.evaluation.samples,
        how=HowPlan(
            lora=None if request.lora is None else request.lora.model_dump(),
            autocast=request.bf16,
            tokens_at_once=request.tokens_at_once,
            checkpointing=request.checkpointing,
        ),
    )
    return _carry_out(plan, study_plan, progress)


def _carry_out(plan: LanguagePlan, study_plan: StudyPlan, progress: Progress | None) -> dict[str, Any]:
    folder, request = plan.folder, plan.request
    with Workers(1) as workers, tasks.telling(progress):
        study = Study(study_plan, folder / "work", workers, progress)
        report = study.run() if rank() == 0 else study.only_train()
    if rank():
        return {}
    row = next(r for r in report["rows"] if r["runs"])
    if row["status"] != "ok":
        raise RunError(
            f"{plan.method.name} did not run: {row['reason']}", "Correct the request; finished steps are kept"
        )
    report = {
        "title": f"Request {request.id}: {plan.method.name.replace('_', ' ')} forgets {plan.texts['forget']} texts",
        "command": f"expunge run {request.id}.yaml",
        "setting": {"seed": request.seed},
        "request": request.as_dict(),
        **report,
    }
    _hand_over(plan, study, report)
    from expunge.evaluation.language_page import write_language  # draws, which planning need not load

    write_language(report, folder, "report")
    shutil.rmtree(folder / "work")
    return report


def _hand_over(plan: LanguagePlan, study: Study, report: Mapping[str, Any]) -> None:
    """The unlearned model in the form that was asked for, and the outputs every number was computed from."""
    target = plan.folder / "model"
    source = study.folder / "unlearned" / plan.method.name
    if plan.request.export == "merged":
        load_model(study.plan, source).save(target, form="merged")
    else:
        shutil.copytree(source, target, dirs_exist_ok=True)
    load_either(study.plan, target)  # read back before anything is removed
    shutil.copytree(study.folder / "outputs", plan.folder / "outputs", dirs_exist_ok=True)


def _check_local(request: LanguageRequest) -> None:
    if request.model.name.startswith(("http://", "https://")):
        raise RequestError(
            f"{request.model.name} is an endpoint, and a run is about a model on this machine",
            "Put a box before it (`expunge serve-model`), or a prompting method around an Endpoint in Python",
        )


def _check_prompting(request: LanguageRequest, method: PromptMethod) -> None:
    """Refuse what a method that changes no weight has no use for."""
    for field, given in (("lora", request.lora is not None), ("bf16", request.bf16)):
        if given:
            raise RequestError(f"{method.name} trains nothing, and the request sets {field}", f"Leave {field} out")
    if request.export != "original":
        raise RequestError(
            f"{method.name} changes no weight, and the request wants an export {request.export!r}", "Leave export out"
        )
    of_all_texts = bool(request.forget.ids or request.forget.owners)  # the other texts of the source are kept
    if "retain" in method.needs and request.retain is None and not of_all_texts:
        raise RequestError(
            f"{method.name} needs texts that are kept, and the request names none",
            "Give retain, or a source of all texts with the ids or owners that must go",
        )


def _check_askable(texts: TextBenchmark, method: PromptMethod) -> None:
    asked = [r for name, r in texts.probes.items() if name not in ("retain", "holdout")]
    if not any(str(p).strip() for records in asked for p in records.column("prompt")):
        raise RequestError(
            f"{method.name} leaves a model that can only be asked, and no text to forget is a question",
            "Give questions about them as a probe (evaluation: probes), or texts with prompts",
        )


def text_options(request: LanguageRequest) -> dict[str, Any]:
    """What a request says of its texts, as arguments of `load_files`."""
    return {
        "forget": request.forget.options(),
        "retain": None if request.retain is None else request.retain.options(),
        "holdout": None if request.holdout is None else request.holdout.options(),
        "probes": {name: part.options() for name, part in request.evaluation.probes.items()},
        "ids": list(request.forget.ids),
        "owners": list(request.forget.owners),
    }


def model_of(request: LanguageRequest) -> LanguageModel:
    """The model of a request, loaded.

    Raises:
        RequestError, ModelError.
    """
    _check_local(request)
    part = request.model
    template = None if part.template is None else Template(**part.template.model_dump())
    return LanguageModel.load(part.name, template=template, device=part.device, dtype=part.dtype)


def _own(request: LanguageRequest, folder: Path) -> Path:
    """Texts of the original's own, written once."""
    path = folder / "work" / "own-texts.jsonl"
    if rank() == 0 and not path.exists():
        write_texts(own_texts(model_of(request), OWN_TEXTS, request.seed), path)
    while not path.exists():  # the other processes wait for the first
        time.sleep(0.2)
    return path


def _adapter_size(model: LanguageModel, rank_: int) -> int:
    linear = [m for m in model.module.modules() if isinstance(m, torch.nn.Linear)]
    return sum(rank_ * (m.in_features + m.out_features) for m in linear)


def _activations(model: LanguageModel, trained: bool) -> int:
    """Bytes a token takes, roughly: its share of the logits, and in a training step the layers' intermediate values."""
    config: Any = model.module.config
    width = int(getattr(config, "hidden_size", 768))
    layers = int(getattr(config, "num_hidden_layers", 12))
    return 4 * (layers * width * 24 * trained + int(getattr(config, "vocab_size", 32000)))
