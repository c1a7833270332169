"""What `expunge methods | learners | metrics | attacks | datasets` print, as lists of objects."""

from __future__ import annotations

from typing import Any


def method_rows() -> list[dict[str, Any]]:
    """name, models, summary, paper, form, kind, guarantee, needs and default hyper-parameters of every method."""
    import dataclasses

    from expunge.methods import LANGUAGE_METHODS, METHODS, PROMPTING_METHODS

    def default(field: Any) -> Any:
        return field.default if field.default is not dataclasses.MISSING else field.default_factory()

    both: list[tuple[str, str, Any]] = [("classifier", name, method) for name, method in METHODS.items()]
    both += [("language", name, method) for name, method in LANGUAGE_METHODS.items()]
    both += [("chat", name, method) for name, method in PROMPTING_METHODS.items()]  # local language models or endpoints
    return [
        {
            "name": name,
            "models": models,
            "summary": method.summary,
            "paper": method.paper,
            "form": method.form,
            "kind": method.kind,
            "guarantee": method.guarantee.word,
            "needs": list(method.needs),
            "parameters": {f.name: default(f) for f in dataclasses.fields(method)},
        }
        for models, name, method in both
    ]


def learner_rows() -> list[dict[str, Any]]:
    """name, summary, paper, form, guarantee, equality, task, needs and default hyper-parameters of every learner."""
    import dataclasses

    from expunge.methods import LEARNERS

    def default(field: Any) -> Any:
        if field.default is not dataclasses.MISSING:
            return field.default
        return field.default_factory() if field.default_factory is not dataclasses.MISSING else "(to be given)"

    return [
        {
            "name": name,
            "summary": learner.summary,
            "paper": learner.paper,
            "form": learner.form,
            "task": learner.task,
            "guarantee": learner.guarantee.word if learner.equality is None else f"exact({learner.equality})",
            "needs": list(learner.needs),
            "parameters": {f.name: default(f) for f in dataclasses.fields(learner)},  # type: ignore[arg-type]
        }
        for name, learner in LEARNERS.items()
    ]


def _entries(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "summary": e.summary,
            "paper": e.paper,
            "direction": e.direction,
            "models": e.models,
            "needs": list(e.needs),
        }
        for name, e in table.items()
    ]


def metric_rows() -> list[dict[str, Any]]:
    from expunge.evaluation.metrics import METRICS

    return _entries(METRICS)


# Attacks of the report that compare whole populations of models: they are measured there, not run alone.
POPULATIONS = {
    "ulira": ("logits", "models asked a record"),
    "adaptive_deletion": ("black_box", "requests for deletion"),
}


def attack_rows() -> list[dict[str, Any]]:
    """name, models, access, unit of its cost, paper, summary, settings and needs of every attack; ``alone`` where
    `expunge attack` runs it on one model, and not only a report on whole populations."""
    from expunge.evaluation.attacks import ATTACKS
    from expunge.evaluation.attacks.classifier import CLASSIFIER_ATTACKS
    from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS

    both: list[tuple[str, str, Any]] = [("language", name, attack) for name, attack in LANGUAGE_ATTACKS.items()]
    both += [("classifier", name, attack) for name, attack in CLASSIFIER_ATTACKS.items()]
    rows = [
        {
            "name": name,
            "models": models,
            "access": attack.access,
            "unit": attack.unit,
            "paper": attack.paper,
            "summary": attack.summary,
            "needs": list(attack.needs),
            "settings": attack().settings(),
            "alone": True,
        }
        for models, name, attack in both
    ]
    for name, entry in ATTACKS.items():
        if name not in CLASSIFIER_ATTACKS:
            access, unit = POPULATIONS.get(name, ("logits", "models"))
            rows.append(
                {
                    "name": name,
                    "models": entry.models,
                    "access": access,
                    "unit": unit,
                    "paper": entry.paper,
                    "summary": f"{entry.summary} (of populations, in the report)",
                    "needs": list(entry.needs),
                    "settings": {},
                    "alone": False,
                }
            )
    return rows


def dataset_rows() -> list[dict[str, Any]]:
    from expunge.data import DATASETS

    return [
        {
            "name": name,
            "summary": e.summary,
            "paper": e.source,
            "licence": e.licence,
            "size": e.size,
            "options": dict(e.options),
            "obtain": e.obtain,
        }
        for name, e in DATASETS.items()
    ]


def without_detail(report: dict[str, Any]) -> dict[str, Any]:
    """A report without the per-example values, for standard output."""
    rows = [
        {
            k: ({n: v for n, v in value.items() if n != "detail"} if isinstance(value, dict) else value)
            for k, value in row.items()
        }
        for row in report["rows"]
    ]
    return {**{k: v for k, v in report.items() if k != "series"}, "rows": rows}
