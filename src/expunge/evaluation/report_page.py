"""The report as one HTML file that needs nothing else: no network, no script, no font of its own.

Everything that comes from the JSON is escaped by the template; the only markup handed to it is our own drawings. A
short script adds sorting and opening on hover; the page says the same without it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from expunge.evaluation import report_plots
from expunge.evaluation.forms.picture import SHOWN, UTILITY, picture
from expunge.evaluation.report_cells import Column, Fact, column, track
from expunge.evaluation.report_schema import Provenance, Report, Row, Scored, Unscored
from expunge.evaluation.report_series import cost_shares, hard_records, selected, worst_records
from expunge.evaluation.report_view import (
    FACTS,
    MEANING,
    QUESTIONS,
    claimed,
    group_of,
    interval,
    keys_of,
    label_of,
    main_keys,
    methods,
    number,
    places_for,
    verdict,
)

TEMPLATES = Path(__file__).with_name("templates")
FOLDED_FROM = 4  # methods beyond which details are folded away


def page(report: Report) -> str:
    """The whole page; the same report gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "interval": interval,
        "bytes": _bytes,
        "percent": _percent,
        "breakable": _breakable,
    }
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return environment.get_template("report.html.j2").render(
        report=report,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy=f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'",
        verdict=verdict(report),
        meaning=MEANING,
        claimed=claimed(report),
        request=json.dumps(report.request, indent=2, ensure_ascii=False) if report.request else "",
        facts=_facts(report),
        **_tables(report),
        **_plots(report),
        **_worst(report),
        costs=[(share, share.row.cost) for share in cost_shares(report)],
        published=[(entry, _ours(report, entry.key, entry.method)) for entry in report.published],
        provenance=_provenance(report.provenance),
        definitions=_definitions(report),
        heat=None if report.forms is None else picture(report.forms.model_dump()),
        utility=UTILITY,
        accesses=SHOWN,
    )


def _facts(report: Report) -> list[tuple[str, list[tuple[str, Scored, int, Markup]]]]:
    """Under each of the field's three questions, the few measurements that answer it for the method in question."""
    row = claimed(report)
    if row is None or row.status != "ok":
        return []
    groups = []
    for group, question in QUESTIONS.items():
        keys = [key for names in FACTS[group] if (key := next((n for n in names if row.scored(n)), None))]
        keys = keys or [key for key in keys_of(report) if group_of(key) == group and row.scored(key)][:3]
        found = [
            (label_of(k), m, places_for([m.value, m.floor, m.ceiling]), track(m)) for k in keys if (m := row.scored(k))
        ]
        if found:
            groups.append((question, found))
    return groups


def _tables(report: Report) -> dict[str, Any]:
    first = main_keys(report)
    rest = [key for key in keys_of(report) if key not in first]
    columns = [column(report, key, report.rows, f"m{i}") for i, key in enumerate(first)]
    rest.sort(key=lambda k: list(QUESTIONS).index(group_of(k)))
    more = [column(report, key, report.rows, f"r{i}") for i, key in enumerate(rest)]
    ran = [row for row in report.rows if row.status == "ok"]
    return {
        "columns": columns,
        "questions": _spans(columns),
        "more": more,
        "more_questions": _spans(more),
        "controls": [r for r in ran if r.role != "method"],
        "ran": methods(report),
        "troubled": [r for r in report.rows if r.status != "ok"],
        "references": _references(report, columns),
        "upright": len(methods(report)) < FOLDED_FROM,
        "unscored": _unscored(report),
        "numbered": {row.label: i for i, row in enumerate(report.rows)},
        "row_facts": {row.label: _row_facts(report, row) for row in report.rows},
    }


def _unscored(report: Report) -> list[tuple[str, str, list[str]]]:
    """(measurement, reason, rows): what could not be measured, said once a reason."""
    told: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        for key, m in row.measured.items():
            if isinstance(m, Unscored):
                told.setdefault((label_of(key), m.reason), []).append(row.label)
    return [(label, reason, rows) for (label, reason), rows in told.items()]


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    asked = [c.question for c in columns]
    return [(question, asked.count(question)) for question in dict.fromkeys(asked)]


def _references(report: Report, columns: Sequence[Column]) -> list[tuple[str, str, list[str]]]:
    """Lines of floors and ceilings, for a report whose controls are no rows of their own."""
    lines = []
    for role, name in (("floor", "retraining"), ("ceiling", "doing nothing")):
        if any(row.role == role and row.status == "ok" for row in report.rows):
            continue
        texts = []
        for c in columns:
            values = {getattr(m, role) for row in report.rows if (m := row.scored(c.key))} - {None}
            texts.append(
                number(min(values)) + (f" to {number(max(values))}" if len(values) > 1 else "") if values else ""
            )
        if any(texts):
            lines.append((role, name, texts))
    return lines


def _row_facts(report: Report, row: Row) -> tuple[Fact, ...]:
    facts = [("Guarantee", row.guarantee), ("Form", row.form), ("Kind", row.kind), ("Models", number(row.models, 0))]
    facts += [("Protocol", row.protocol)]
    facts += [("Repetitions", str(row.repetitions))] if row.repetitions else []
    facts += [("Run", row.run)] if row.run else []
    facts += [(name, json.dumps(value, ensure_ascii=False)) for name, value in row.parameters.items()]
    return (*facts, ("Where", f"rows[{report.rows.index(row)}] in report.json"))


def _plots(report: Report) -> dict[str, Any]:
    close = [row.label for row in selected(report)]
    drawn = {
        row.label: found
        for i, row in enumerate(report.rows)
        if row.status == "ok" and row.role == "method" and (found := report_plots.losses(report, row.label, f"loss{i}"))
    }
    keys = report_plots.front_keys(report)
    return {
        "front": _marked(report_plots.front(report)),
        "front_labels": [label_of(key) for key in keys] if keys else [],
        "epsilon": _marked(report_plots.epsilon(report)),
        "cost_plot": _marked(report_plots.cost(report)),
        "close_losses": [(label, _svgs(drawn[label])) for label in close if label in drawn],
        "other_losses": [(label, _svgs(found)) for label, found in drawn.items() if label not in close],
        "all_methods": len(methods(report)),
    }


def _marked(plot: report_plots.Plot | None) -> dict[str, Any] | None:
    return None if plot is None else {"wide": Markup(plot.wide), "narrow": Markup(plot.narrow), "note": plot.note}


def _svgs(found: Sequence[report_plots.LossPlot]) -> list[tuple[str, Markup]]:
    return [(plot.split, Markup(plot.svg)) for plot in found]


def _worst(report: Report) -> dict[str, Any]:
    """The worst records: by record for a few methods, by method for many."""
    rows = methods(report)
    few = [row.label for row in (rows if len(rows) < FOLDED_FROM else []) if row.label in report.series.epsilon]
    by_method = [] if few else [(row.label, worst_records(report, [row.label], 3)) for row in rows]
    cap = max((v for values in report.series.epsilon.values() for v in values), default=0.0)
    return {
        "worst": worst_records(report, few),
        "worst_labels": few,
        "worst_by_method": [(label, records) for label, records in by_method if records],
        "hard": [] if few else hard_records(report, [row.label for row in rows]),
        "cap": cap,
    }


def _ours(report: Report, key: str | None, method: str | None) -> str:
    """Our number for a published one: of the row it names, or the range over methods."""
    rows = [r for r in report.rows if r.method == method] if method else methods(report)
    found = [m for row in rows if key and (m := row.scored(key))]
    if not found:
        return ""
    if len(found) == 1:
        return f"{number(found[0].value)} {interval(found[0])}"
    return f"{number(min(m.value for m in found))} to {number(max(m.value for m in found))} ({len(found)} rows)"


def _provenance(given: Provenance) -> list[Fact]:
    out: list[Fact] = []
    for name, value in {**{k: getattr(given, k) for k in Provenance.model_fields}, **given.others}.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        out += [(f"{name.replace('_', ' ')} {part}".strip(), "not known" if v is None else str(v)) for part, v in parts]
    return out


def _definitions(report: Report) -> list[tuple[str, str, str]]:
    told: dict[str, str] = {}
    for row in report.rows:
        for key, m in row.measured.items():
            if isinstance(m, Scored) and m.definition:
                told.setdefault(key, m.definition)
    told = {**report.definitions, **told}
    order = keys_of(report)
    return [
        (k, label_of(k), told[k]) for k in sorted(told, key=lambda k: (order.index(k) if k in order else len(order), k))
    ]


def _bytes(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return "none" if not size else f"{number(size, 0 if unit == 'bytes' else 1)} {unit}"


def _breakable(text: str) -> Markup:
    """Names with underscores may break after them."""
    return escape(text).replace("_", Markup("_<wbr>"))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.3g} %"
