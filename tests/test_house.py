"""The rules of the house that no type checker sees."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SOURCES = sorted(p for folder in ("src", "benchmarks", "docs") for p in (ROOT / folder).rglob("*.py"))

UNPICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNSAFE_LOADS = {
    ("torch", "load"),
    ("torch", "save"),
    ("yaml", "full_load"),
    ("yaml", "load"),
    ("yaml", "unsafe_load"),
    ("pandas", "read_pickle"),
    ("pd", "read_pickle"),
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@cache
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_run_one_way() -> None:
    done = run(
        "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache", "--no-logo"
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments", [("-c", "import expunge"), ("-m", "expunge", "--help")], ids=["import expunge", "expunge --help"]
)
def test_starts_without_heavy_imports(arguments: tuple[str, ...]) -> None:
    done = run("-X", "importtime", *arguments)
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "expunge" in loaded
    assert not loaded & {"torch", "transformers", "sklearn", "scipy", "matplotlib", "datasets"}


def test_every_public_name_resolves() -> None:
    import expunge

    for name in expunge.__all__:
        assert getattr(expunge, name) is not None


def unpickling(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (f"import {n.name}" for n in names if n.name.partition(".")[0] in UNPICKLERS)
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] in UNPICKLERS:
                    yield f"from {module} import"
                yield from (f"from {module} import {n.name}" for n in names if (module, n.name) in UNSAFE_LOADS)
            case ast.Attribute(value=ast.Name(id=module), attr=name) if (module, name) in UNSAFE_LOADS:
                yield f"{module}.{name}"
            case ast.keyword(arg="allow_pickle", value=value):
                if not (isinstance(value, ast.Constant) and value.value is False):
                    yield "allow_pickle"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_ever_unpickled(path: Path) -> None:
    assert list(unpickling(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import os, joblib.externals",
        "from dill import loads",
        "from torch import load",
        "torch.load(path, weights_only=True)",
        "reader = yaml.load",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_search_for_pickles_finds_one(line: str) -> None:
    assert len(list(unpickling(ast.parse(line)))) == 1


def written_pages() -> list[str]:
    return [p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")]


def test_every_method_has_a_page() -> None:
    from expunge.methods import METHODS

    assert [name for name in METHODS if f"methods/{name}.md" not in written_pages()] == []


def test_every_learner_has_a_page() -> None:
    from expunge.methods import LEARNERS

    assert [name for name in LEARNERS if f"methods/{name}.md" not in written_pages()] == []


def test_every_method_on_language_models_has_a_page() -> None:
    from expunge.methods import LANGUAGE_METHODS

    assert [name for name in LANGUAGE_METHODS if f"methods/{name}.md" not in written_pages()] == []


def test_every_page_of_a_method_has_its_method() -> None:
    from expunge.methods import LANGUAGE_METHODS, LEARNERS, METHODS, PROMPTING_METHODS

    assert [n for n in PROMPTING_METHODS if f"methods/{n}.md" not in written_pages()] == []
    stems = {p.stem for p in (DOCS / "methods").glob("*.md")} - {"index"}
    assert stems <= {*METHODS, *LEARNERS, *LANGUAGE_METHODS, *PROMPTING_METHODS, "chain", "challenge-recipes"}


def test_every_metric_and_attack_has_a_page() -> None:
    from expunge.evaluation.attacks import ATTACKS
    from expunge.evaluation.attacks.classifier import CLASSIFIER_ATTACKS
    from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS
    from expunge.evaluation.metrics import METRICS

    written = written_pages()
    pages = {*written, *hooks().pages_from_docstrings(written)}
    assert [n for n in (*LANGUAGE_ATTACKS, *CLASSIFIER_ATTACKS) if f"attacks/{n}.md" not in pages] == []
    for folder, table in (("metrics", METRICS), ("attacks", ATTACKS)):
        for name, entry in table.items():
            assert f"{folder}/{name}.md" in pages
            assert entry.function.__doc__, f"the page of {name} is made from its docstring, and there is none"


@pytest.mark.parametrize(
    "table",
    [
        "methods",
        "learners",
        "metrics",
        "attacks",
        "language-attacks",
        "prompting-methods",
        "datasets",
        "request-fields",
    ],
)
def test_generated_tables_hold_every_entry_in_whole_rows(table: str) -> None:
    head, rule, *rows = hooks().TABLES[table]().splitlines()
    assert rows
    columns = len(re.findall(r"(?<!\\)\|", head))
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in (rule, *rows)} == {columns}


def test_every_generated_table_has_a_place() -> None:
    marks = {
        m
        for p in DOCS.rglob("*.md")
        for m in re.findall(r"<!-- generated: ([a-z-]+) -->", p.read_text(encoding="utf-8"))
    }
    assert marks == set(hooks().TABLES)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(page, code) of every block of `language` on a page written by hand."""
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        for code in re.findall(
            rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            yield str(path.relative_to(ROOT)), code


def test_requests_in_the_docs_are_valid() -> None:
    import yaml

    from expunge.language_request import LanguageRequest, is_language_request
    from expunge.request import Request

    parsed = [(page, yaml.safe_load(code)) for page, code in blocks("yaml")]
    asked = [(page, value) for page, value in parsed if "forget" in value]
    requests = [Request.parse(value, page) for page, value in asked if not is_language_request(value)]
    assert {"first-request", "customer-4711"} <= {r.id for r in requests}
    spoken = [LanguageRequest.parse(value, page) for page, value in asked if is_language_request(value)]
    assert "leave-aro" in {r.id for r in spoken}


def test_getting_started_runs() -> None:
    for page, code in blocks("python"):
        if page == "docs/getting-started.md":
            exec(compile(code, page, "exec"), {})


def pages_with_examples() -> list[str]:
    from expunge.methods import LEARNERS

    guides = [
        "docs/exact.md",
        "docs/audit.md",
        "docs/estimators.md",
        "docs/forecast.md",
        "docs/attacking.md",
        "docs/simulate.md",
    ]
    return [page for page in [*guides, *(f"docs/methods/{name}.md" for name in LEARNERS)] if (ROOT / page).exists()]


@pytest.mark.parametrize("page", pages_with_examples())
def test_examples_of_learners_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for _, code in (found for found in blocks("python") if found[0] == page):
        exec(compile(code, page, "exec"), scope)  # a later block goes on from the earlier ones


def test_changelog_knows_this_version() -> None:
    import expunge

    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] in {"Unreleased", expunge.__version__}
