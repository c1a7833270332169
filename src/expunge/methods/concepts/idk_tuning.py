"""Fine-tuning on refusals: "I don't know" is trained as the answer to what was forgotten."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.errors import RequestError
from expunge.methods.text_base import TextMethod
from expunge.methods.text_preference import answered
from expunge.methods.text_refusals import REFUSALS
from expunge.methods.text_terms import RetainTerm, check_choice, check_settings, first_epoch_warmup, need_prompts
from expunge.methods.text_terms import retain_term as kept_term
from expunge.methods.text_workspace import TextWorkspace
from expunge.training.text_batches import TextBatch
from expunge.training.text_net import Net


def refusal_loss(refusal: Tensor, retain: Tensor, forget_weight: float, retain_weight: float) -> Tensor:
    """forget_weight · refusal + retain_weight · retain, scalars in nats, ≥ 0; 0 when both are certain."""
    return forget_weight * refusal + retain_weight * retain


@dataclass(frozen=True, kw_only=True)
class IdkTuning(TextMethod):
    """Minimise forget_weight · E_forget[ℓ(refusal)] + retain_weight · E_retain[ℓ or KL(θ0 ‖ θ)].

    Paper: the baseline IDK of TOFU (2401.06121). The forgotten answer itself takes no part: nothing lowers what the
    model holds of it, which is why a little relearning brings it back.

    Args:
        refusals: answers to be learned; one is drawn for every record and epoch. retain: ``nll`` of the kept answers,
            or ``kl`` to the original on them. epochs: passes over the forget set. learning_rate, weight_decay,
            batch_size: AdamW's; texts of either set a step.

    Raises:
        DataError: a record of the forget set has no prompt.

    This differs from the authors' code in:
        1. The refusals are our own.
        2. Refusal and retained text go through the model in one pass.
    """

    name: ClassVar[str] = "idk_tuning"
    summary: ClassVar[str] = "Train a refusal as the answer to what was forgotten"
    paper: ClassVar[str] = "arXiv:2401.06121"
    needs: ClassVar[tuple[str, ...]] = ("retain", "original")

    refusals: tuple[str, ...] = REFUSALS
    retain: RetainTerm = "nll"
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    epochs: float = 5
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    batch_size: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "refusals", tuple(self.refusals))
        if not self.refusals or not all(r.strip() for r in self.refusals):
            raise RequestError("refusals holds no answer, or an empty one", "Name at least one way to refuse")
        check_choice("retain", self.retain, "nll", "kl")
        check_settings(
            forget_weight=self.forget_weight,
            retain_weight=self.retain_weight,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
        )

    def wants(self) -> tuple[str, ...]:
        return self.needs if self.retain == "kl" else ("retain",)

    def edit(self, work: TextWorkspace) -> None:
        prompts = need_prompts(work.records("forget"), self.name)
        ids = work.records("forget").ids.tolist()
        rounds, n = math.ceil(self.epochs), len(prompts)
        drawn = torch.randint(len(self.refusals), (rounds, n), generator=work.generator("refusals")).tolist()
        refused = answered(
            [f"{i}/{k}" for k in range(rounds) for i in ids],
            [p for _ in range(rounds) for p in prompts],
            [self.refusals[k] for row in drawn for k in row],
        )
        table = work.table_of(refused, "refusals")
        each = -(-n // self.batch_size)

        def objective(net: Net, forget: TextBatch, retain: TextBatch) -> Tensor:
            turn = min(net.step // each, rounds - 1)
            refusal, kept = net.both(table.batch(forget.rows + turn * n), retain)
            stays = retain.mean(kept_term(work, kept, retain, self.retain))
            return refusal_loss(forget.mean(refusal.nll), stays, self.forget_weight, self.retain_weight)

        work.descend(
            objective,
            "forget",
            "retain",
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimiser=first_epoch_warmup(self.learning_rate, self.weight_decay, self.epochs),
        )
