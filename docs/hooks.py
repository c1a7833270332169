"""What the site takes from the code when it is built, so that no table in it can go stale.

``<!-- generated: NAME -->`` in a page is replaced by the table NAME of `TABLES`. A metric or an attack without a page
of its own gets one from its docstring; a method's page is always written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

FORMS = ("exact", "certified", "examples", "concepts", "prompting")
ORDER = (
    "index",
    "getting-started",
    "data",
    "requests",
    "language",
    "people",
    "forms",
    "planner",
    "boxed",
    "filters",
    "streisand",
    "service",
    "dashboard",
    "api",
    "webhooks",
    "simulate",
    "concept-requests",
    "tutorials",
    "methods",
    "exact",
    "certified",
    "audit",
    "forecast",
    "accounting",
    "audits-of-epsilon",
    "forging",
    "metrics",
    "attacking",
    "attacks",
    "datasets",
    "estimators",
    "training",
    "report",
    "decisions",
    "reference",
)


def methods() -> str:
    from expunge.methods import METHODS

    def place(item: tuple[str, Any]) -> tuple[int, str, str]:
        form = item[1].form
        return (FORMS.index(form) if form in FORMS else len(FORMS), form, item[0])

    rows = [
        (_link(name), m.summary, m.form, m.kind, m.guarantee.word, _words(m.needs), m.paper)
        for name, m in sorted(METHODS.items(), key=place)
    ]
    return _table(("method", "what it does", "form", "kind", "strongest guarantee", "needs", "paper"), rows)


def prompting_methods() -> str:
    from expunge.methods import PROMPTING_METHODS

    rows = [
        (_link(name), m.summary, m.guarantee.word, _words(m.needs), "yes" if m.in_prompt else "no", m.paper)
        for name, m in PROMPTING_METHODS.items()
    ]
    return _table(("method", "what it does", "guarantee", "needs", "tells the model something", "paper"), rows)


def language_methods() -> str:
    from expunge.methods import LANGUAGE_METHODS

    rows = [
        (_link(name), m.summary, m.kind, m.guarantee.word, "yes" if m.adapters else "no", _words(m.needs), m.paper)
        for name, m in sorted(LANGUAGE_METHODS.items(), key=lambda item: (item[1].kind != "control", item[0]))
    ]
    head = ("method", "what it does", "kind", "strongest guarantee", "trains adapters", "needs", "paper")
    return _table(head, rows)


def learners() -> str:
    from expunge.methods import LEARNERS

    rows = [
        (
            _link(name),
            _sentence(m.summary),
            m.task,
            m.form,
            m.guarantee.word if m.equality is None else f"exact, {m.equality.replace('_', ' ')}",
            _words(m.needs),
            m.paper,
        )
        for name, m in sorted(LEARNERS.items(), key=lambda item: (FORMS.index(item[1].form), item[1].task, item[0]))
    ]
    return _table(("learner", "what it does", "task", "form", "strongest guarantee", "needs", "paper"), rows)


def metrics() -> str:
    from expunge.evaluation.metrics import METRICS

    return _entries("metric", METRICS)


def attacks() -> str:
    from expunge.evaluation.attacks import ATTACKS

    return _entries("attack", ATTACKS)


def language_attacks() -> str:
    from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS

    rows = [
        (_link(name), a.summary, a.access.replace("_", " "), a.unit, _words(a.needs), a.paper)
        for name, a in LANGUAGE_ATTACKS.items()
    ]
    return _table(("attack", "what it does", "access", "cost", "needs", "paper"), rows)


def datasets() -> str:
    from expunge.data import DATASETS

    rows = [(f"`{n}`", d.summary, d.size, d.source, d.licence, d.obtain or "at hand") for n, d in DATASETS.items()]
    return _table(("data set", "what it is", "size", "source", "licence", "how to get it"), rows)


def request_fields() -> str:
    from expunge.request import Request

    return _table(("field", "type", "default", "meaning"), list(_fields(Request, "")))


def _fields(part: Any, prefix: str) -> Iterator[tuple[str, ...]]:
    fields = part.model_fields
    names = rf"(?:{'|'.join(fields)})"
    whole, _, arguments = (part.__doc__ or "").partition("Args:")
    otherwise = " ".join(whole.split()) if prefix else ""
    told = re.split(rf"\b({names}(?:, {names})*): ", " ".join(arguments.split()))
    meaning = {name: text for listed, text in zip(told[1::2], told[2::2], strict=True) for name in listed.split(", ")}
    for name, field in fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from _fields(field.annotation, f"{prefix}{name}.")
        else:
            default = (
                "required" if field.is_required() else f"`{json.dumps(field.get_default(call_default_factory=True))}`"
            )
            kind = part.__annotations__[name].replace(" | ", " or ")
            yield f"`{prefix}{name}`", f"`{kind}`", default, meaning.get(name, otherwise).strip()


def public_names() -> str:
    """A mkdocstrings block for every class and function of ``import expunge``."""
    import expunge

    return "\n\n".join(f"::: {module}.{name}" for name, module in sorted(expunge._PUBLIC.items()) if not name.isupper())


TABLES: dict[str, Callable[[], str]] = {
    "language-methods": language_methods,
    "prompting-methods": prompting_methods,
    "methods": methods,
    "learners": learners,
    "metrics": metrics,
    "attacks": attacks,
    "language-attacks": language_attacks,
    "datasets": datasets,
    "request-fields": request_fields,
    "public-names": public_names,
}


def pages_from_docstrings(written: Iterable[str]) -> dict[str, str]:
    """Path -> Markdown for each metric and attack that has no page among `written` (paths below docs/)."""
    from expunge.evaluation.attacks import ATTACKS
    from expunge.evaluation.metrics import METRICS

    known = {(path.parts[0], path.stem) for path in map(PurePosixPath, written)}
    pages = {}
    for folder, table in (("metrics", METRICS), ("attacks", ATTACKS)):
        for name, entry in table.items():
            if (folder, name) not in known:
                facts = f"{_sentence(entry.summary)} Paper: {entry.paper}. Better: {entry.direction}. "
                reads = f"Reads: {_words(entry.needs)}."
                if entry.page:
                    reads += f" More: [{entry.page}]({entry.page}.md)."
                block = f"::: {entry.function.__module__}.{entry.function.__qualname__}"
                pages[f"{folder}/{name}.md"] = f"# {name}\n\n{facts}{reads}\n\n{block}\n"
    return pages


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for path, text in pages_from_docstrings([f.src_uri for f in files.documentation_pages()]).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_nav(nav: Any, config: Any, files: Any) -> Any:
    def place(item: Any) -> int:
        while item.is_section:
            item = item.children[0]
        top = PurePosixPath(item.file.src_uri).with_suffix("").parts[0]
        return ORDER.index(top) if top in ORDER else len(ORDER)

    nav.items.sort(key=place)
    return nav


def results(name: str = "challenge-digits") -> dict[str, Any]:
    """What the benchmark measured, as it was committed: see `tools/keep_results.py` for how it gets here."""
    kept: dict[str, Any] = json.loads((Path(__file__).parent / "results" / f"{name}.json").read_text("utf-8"))
    return kept


MEASURED = {
    "score": "challenge score",
    "forgetting_quality": "forgetting quality",
    "epsilon_mean": "mean ε",
    "ulira_auc_forget": "U-LiRA AUC",
    "forget_accuracy": "forget accuracy",
    "retain_accuracy": "retain accuracy",
    "test_accuracy": "test accuracy",
    "seconds_ratio": "time / retraining",
}


def measured(name: str) -> str:
    """A method's row of the benchmark between the controls; ``challenge`` and ``n_originals`` are whole tables."""
    kept = results("challenge-digits-n-originals" if name == "n_originals" else "challenge-digits")
    rows = {row["method"]: row for row in kept["rows"]}
    if name in ("challenge", "n_originals"):
        wanted = list(rows)
    elif name in rows:
        wanted = list(dict.fromkeys(["retrain", name, "do_nothing"]))
    else:
        raise KeyError(
            f"docs/results/challenge-digits.json has no row {name!r}: run the benchmark and keep its results"
        )
    lines = [(f"[`{n}`]({n}.md)", *_measured_cells(rows[n])) for n in wanted]
    setting = (
        f"{kept['models']} unlearned against {kept['models']} retrained networks on {kept['dataset']}, protocol "
        f"`{kept['protocol']}`, {kept['forget']} records forgotten, defaults as published; 95% intervals in brackets."
    )
    return f"{setting}\n\n{_table(('method', *MEASURED.values()), lines)}"


def _measured_cells(row: dict[str, Any]) -> list[str]:
    if row["status"] != "ok":
        return [f"{row['status']}: {row['reason']}"] + [""] * (len(MEASURED) - 1)
    cells = []
    for key in MEASURED:
        value = row.get(key)
        cells.append("unscored" if value is None else f"{value[0]:.3g} [{value[1]:.3g}, {value[2]:.3g}]")
    return cells


def measured_certified(name: str, table: int) -> str:
    """Table number `table` of `expunge bench certified`, as it is kept in docs/results, and how to make it again."""
    from expunge.evaluation.certified_page import until_words

    file = Path(__file__).with_name("results") / f"{name}.json"
    if not file.exists():
        return "Not measured."
    document = json.loads(file.read_text(encoding="utf-8"))
    told = document["tables"][table]
    rows = []
    for row in told["rows"]:
        start = (f"`{row['name']}`", "" if row["epsilon"] is None else f"{row['epsilon']:g}")
        if row["status"] == "unscored":
            rows.append((*start, f"unscored: {row['reason']}", *[""] * 6))
            continue
        audit, ratio, cost = row["audit"], row["ratio"], row["cost"]
        seen = "unscored"
        if audit["status"] == "scored":
            promised = f"{audit['promised'][0][0]:.2f}" if audit["promised"] else "no promise"
            seen = f"{audit['observed']:.2f} of {promised}{', **refuted**' if audit['outcome'] == 'refuted' else ''}"
        rows.append(
            (
                *start,
                f"{row['accuracy']:.3f} [{row['accuracy_low']:.2f}, {row['accuracy_high']:.2f}]",
                until_words(row),
                f"{row['seconds']:.2g}",
                "" if ratio is None else f"{ratio:.3g}×",
                f"{row['worst']:.3f} ({row['worst_group']})",
                seen,
                "" if cost is None else f"{cost:+.3f}",
            )
        )
    head = (
        "learner",
        "ε",
        "accuracy",
        "removals until retraining",
        "seconds a removal",
        "a refit takes",
        f"worst {told['by']}",
        "audit: ε at least, of what is promised",
        "lost against tuned DP-SGD",
    )
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items() if k in ("expunge", "torch", "numpy"))
    made = f"\n\nMade by `{document['command']}` with {versions}."
    return _table(head, rows) + made


def measured_language(name: str) -> str:
    """The table of `expunge bench people`, as it is kept in docs/results, and how to make it again."""
    file = Path(__file__).with_name("results") / f"{name}.json"
    if not file.exists():
        return "Not measured."
    document = json.loads(file.read_text(encoding="utf-8"))
    rows = []
    for row in document["rows"]:
        label = f"`{row['label']}`"
        if row["status"] != "ok":
            rows.append((label, f"did not run: {row['reason']}", *[""] * (len(document["columns"]) + 1)))
            continue
        cells = ["–" if c is None else f"{c[0]:.3g} [{c[1]:.2g}, {c[2]:.2g}]" for c in row["cells"]]
        seconds = ("–" if row[k] is None else f"{row[k]:.2g}" for k in ("seconds", "seconds_ratio"))
        rows.append((label, *cells, *seconds))
    versions = ", ".join(
        f"{k} {v}" for k, v in document["versions"].items() if k in ("expunge", "torch", "transformers")
    )
    made = f"\n\nMade by `{document['command']}` with {versions}."
    return _table(("method", *document["columns"], "seconds", "/ retraining"), rows) + made


def measured_forms(table: str) -> str:
    """``table`` (answers, cost and verdicts) or ``recovery`` of `expunge bench forms`, as kept in docs/results."""
    file = Path(__file__).with_name("results") / "forms.json"
    if not file.exists():
        return "Not measured."
    kept = json.loads(file.read_text(encoding="utf-8"))
    good = [row for row in kept["rows"] if row["status"] == "ok"]

    def share(row: dict[str, Any], probe: str) -> str:
        m = row["measurements"].get(probe)
        return "–" if m is None or m["status"] != "scored" else f"{m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]"

    def recovered(curve: dict[str, Any]) -> str:
        if curve["status"] != "ok":
            return "withheld"
        m = curve["headline"]["recovery"]
        return "unscored" if m["status"] != "scored" else f"{m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]"

    if table == "recovery":
        head = ("attack", "access", *(row["label"].replace("_", " ") for row in good))
        lines = [
            (f"[{a['name'].replace('_', ' ')}](attacks/{a['name']}.md)", a["access"].replace("_", " "),
             *(recovered(row["attacks"][a["name"]]) for row in good))
            for a in kept["attacks"]
        ]  # fmt: skip
        return _table(head, lines)
    access = ("black_box", "logits", "weights")
    head = ("row", "form", "guarantee", "forgotten", "near", "far", "seconds", "kept for it", "time to answer",
            *(f"against {a.replace('_', ' ')}" for a in access))  # fmt: skip
    lines = [
        (row["label"].replace("_", " "), row["form"], row["guarantee"],
         *(share(row, p) for p in ("forget", "neighbour", "retain")), f"{row['seconds']:.2g}",
         f"{row['stored_bytes'] / 1024:.0f} KiB", f"{row['latency']:.2f}×",
         *(row["verdict"][a]["word"] for a in access))
        for row in good
    ]  # fmt: skip
    versions = ", ".join(f"{k} {v}" for k, v in kept["versions"].items() if k in ("expunge", "torch", "transformers"))
    made = f"\n\nMade by `{kept['command']}` with {versions}; {kept['references']} retrained models."
    return _table(head, lines) + made


def measured_exact(name: str) -> str:
    """Speed-ups and accuracy over shards and requests, from docs/results/NAME.json."""
    from expunge.evaluation.metrics.intervals import wilson

    kept = results(name)

    def accuracy(row: dict[str, Any]) -> str:
        low, high = wilson(round(row["accuracy"] * kept["test"]), kept["test"])
        return f"{row['accuracy']:.3f} [{low:.3f}, {high:.3f}]"

    head = ("shards", "slices", "requests", "accuracy", "measured", "by the formula", "in example gradients")
    rows = [
        (
            f"{r['shards']}",
            f"{r['slices']}",
            f"{r['requests']}{' at once' if r['batch'] else ''}",
            accuracy(r),
            *(f"{r[key]:.2f}×" for key in ("measured_speedup", "expected_speedup", "examples_speedup")),
        )
        for r in kept["rows"]
    ]
    setting = (
        f"`{kept['command']}`: {kept['records']} records to learn from, {kept['test']} to test on, two busy cores; one "
        f"model on everything has accuracy {kept['retrained_accuracy']:.3f}. Brackets: 95% over the test records. In "
        f"{'every row' if all(r['equals_fresh_fit'] for r in kept['rows']) else 'NOT EVERY ROW'} the bytes after "
        "forgetting were those of a fresh run."
    )
    return f"{setting}\n\n{_table(head, rows)}"


_FORMULAS: list[str] = []


def formulas(markdown: str) -> str:
    """TeX between dollar signs becomes MathML, which browsers draw without a script or a font from elsewhere.

    A word stands in for each formula until the page is HTML: Markdown would take it for a block of its own.
    """
    from latex2mathml.converter import convert

    def keep(mathml: str) -> str:
        _FORMULAS.append(mathml)
        return f"xformula{len(_FORMULAS) - 1}x"

    parts = re.split(r"(^```.*?^```|`[^`\n]*`)", markdown, flags=re.DOTALL | re.MULTILINE)
    for position in range(0, len(parts), 2):
        text = parts[position]
        text = re.sub(r"\$\$(.+?)\$\$", lambda m: keep(convert(m[1].strip(), display="block")), text, flags=re.DOTALL)
        inline = r"(?<![\\\w$])\$([^\s$](?:[^$\n]*[^\s$])?)\$(?![\w$])"
        parts[position] = re.sub(inline, lambda m: keep(convert(m[1])), text)
    return "".join(parts)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    return re.sub(r"xformula(\d+)x", lambda mark: _FORMULAS[int(mark[1])], html)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    markdown = formulas(markdown)
    markdown = re.sub(r"<!-- measured:([a-z0-9_]+) -->", lambda mark: measured(mark[1]), markdown)
    markdown = re.sub(r"<!-- measured-exact:([a-z0-9-]+) -->", lambda mark: measured_exact(mark[1]), markdown)
    markdown = re.sub(
        r"<!-- measured-certified:([a-z-]+):(\d) -->", lambda mark: measured_certified(mark[1], int(mark[2])), markdown
    )
    markdown = re.sub(r"<!-- measured-language:([a-z-]+) -->", lambda mark: measured_language(mark[1]), markdown)
    markdown = re.sub(r"<!-- measured-forms:([a-z]+) -->", lambda mark: measured_forms(mark[1]), markdown)
    return re.sub(r"<!-- generated: ([a-z-]+) -->", lambda mark: TABLES[mark[1]](), markdown)


def _entries(kind: str, table: dict[str, Any]) -> str:
    rows = [(_link(n), e.summary, e.models, e.direction, _words(e.needs), e.paper) for n, e in table.items()]
    return _table((kind, "what it measures", "models", "better", "reads", "paper"), rows)


def _link(name: str) -> str:
    return f"[`{name}`]({name}.md)"


def _words(values: Iterable[str] | str) -> str:
    words = [values] if isinstance(values, str) else sorted(values) if isinstance(values, frozenset) else list(values)
    return ", ".join(words) or "nothing"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(map(_row, [head, ("---",) * len(head), *rows]))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
