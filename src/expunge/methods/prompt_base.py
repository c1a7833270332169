"""What every prompting method has in common: it puts something around a model and changes no weight."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

from expunge.errors import ModelError
from expunge.guarantee import Guarantee, Suppressed
from expunge.models.chat import ChatModel
from expunge.problem import Problem
from expunge.result import Cost, Unlearned, check_guarantee


class PromptMethod(ABC):
    """A method that turns any model that answers messages, local or remote, into one that keeps answers back.

    A subclass is a frozen, keyword-only dataclass of hyper-parameters and writes `suppress`.

    Class attributes:
        name: key in `PROMPTING_METHODS`. summary: one line. paper: arXiv id or citation.
        needs: what the problem must offer beside the forget set (``retain``) and what of the model
            (``weights``: local ones; most need none).
        in_prompt: whether the model is told something in its prompt; then nothing that must stay secret may be told.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    form: ClassVar[str] = "prompting"
    kind: ClassVar[str] = "method"
    guarantee: ClassVar[type[Guarantee]] = Suppressed
    needs: ClassVar[tuple[str, ...]] = ()
    in_prompt: ClassVar[bool] = False

    @abstractmethod
    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> ChatModel:
        """The model with something around it; its attribute ``inside`` is the model that was given."""

    def unlearn(self, problem: Problem, *, seed: int) -> Unlearned:
        """A model that keeps back what `problem.forget` tells; the weights inside are those of ``problem.model``.

        Raises:
            EmptyRetainSet: the method needs texts that are kept. ModelError: the model does not answer messages, or the
                method needs its weights.
        """
        model = problem.model
        if not isinstance(model, ChatModel):
            raise ModelError(f"{type(model).__name__} answers no messages", "Use a language model or an endpoint")
        if "weights" in self.needs and "weights" not in model.capabilities:
            raise ModelError(f"{self.name} works inside the model, and this one is remote", "Choose another method")
        if "retain" in self.needs:
            problem.need_retain(self.name)
        started = time.process_time()
        outcome = self.suppress(model, problem, seed)
        reached = Suppressed()
        check_guarantee(reached, self.guarantee, self.name)
        return Unlearned(
            model=outcome,
            guarantee=reached,
            cost=Cost(seconds=time.process_time() - started, examples=0, stored_bytes=getattr(outcome, "stored", 0)),
            method=self.name,
            seed=seed,
            parameters=self.parameters(),
        )

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> ChatModel:
        """What a model of this method with `savable` wrote by its ``save``, around the model inside.

        Raises:
            ModelError: models of this method are never saved.
        """
        raise ModelError(
            f"what {cls.name} puts around a model tells of the forgotten and is written nowhere",
            "Make it again from the texts of the request",
        )

    def parameters(self) -> dict[str, Any]:
        """Hyper-parameters as JSON values."""
        return asdict(self) if is_dataclass(self) else {}
