"""``expunge bench forms``: one request served in every form, beside retraining, under every attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.data.benchmarks.people_benchmark import make_people_benchmark
from expunge.evaluation.benchmarks.challenge import cores
from expunge.evaluation.forms.page import write_forms
from expunge.evaluation.forms.plan import (
    BASE_EPOCHS,
    BASE_LINES,
    BASE_REPEATS,
    TUNED_EPOCHS,
    TUNED_RATE,
    FormsPlan,
    chosen_attacks,
    chosen_forms,
)
from expunge.evaluation.forms.study import FormsStudy
from expunge.evaluation.language.plan import LEAST_STEPS, PEOPLE_TRAINER
from expunge.training.chunks import Progress
from expunge.training.workers import Workers

DIALOGUES = 2500


@dataclass(frozen=True, kw_only=True)
class FormsBench:
    """What is compared.

    Args:
        people, forget: how many there are, and how many of them are forgotten; as many more are never told of.
        forms, attacks: names, or ``all``. references: retrained models, two at least: each is held against the others.
        seeds: of every row. lines: of dialogues that the base learns from; fewer for a first look.
    """

    people: int = 60
    forget: int = 6
    forms: Sequence[str] | str = "all"
    attacks: Sequence[str] | str = "all"
    references: int = 3
    seeds: int = 3
    lines: int = BASE_LINES
    dialogues: int = DIALOGUES

    def plan(self) -> FormsPlan:
        """The comparison.

        Raises:
            UnknownName: a form or an attack. RequestError: none is named, or fewer than two references.
        """
        from expunge.errors import RequestError

        if self.references < 2:
            raise RequestError(
                f"{self.references} retrained models: none could be held against another", "Ask for two at least"
            )
        data = {"people": self.people, "forget": self.forget, "unseen": self.forget, "dialogues": self.dialogues}
        texts = len(make_people_benchmark(**data).retain)  # type: ignore[arg-type]  # numbers, all of them
        steps = math.ceil(texts / PEOPLE_TRAINER.batch_size)
        return FormsPlan(
            data=data,
            forms=chosen_forms(self.forms),
            attacks=chosen_attacks(self.attacks),
            seeds=self.seeds,
            references=self.references,
            base={"lines": self.lines, "repeats": BASE_REPEATS, "epochs": BASE_EPOCHS},
            fine_tuning={"learning_rate": TUNED_RATE, "epochs": max(TUNED_EPOCHS, math.ceil(LEAST_STEPS / steps))},
        )


def run_forms(
    setting: FormsBench,
    out: Path,
    *,
    processes: int = 0,
    progress: Progress | None = None,
    title: str = "Which form of forgetting holds?",
    command: str = "expunge bench forms",
) -> dict[str, Any]:
    """Carry the comparison out into `out`, ``forms.json`` and ``forms.html``; an interrupted one goes on.

    Raises:
        RunError: `out` holds another comparison.
    """
    plan = setting.plan()
    with Workers(processes or cores()) as workers:
        report = FormsStudy(plan, out.resolve(), workers, progress).run()
    report = {
        "title": title,
        "command": command,
        "setting": {"seed": 0, "seeds": setting.seeds, "references": setting.references},
        **report,
    }
    write_forms(report, out)
    return report
