"""The tutorial's block of code does what the script it shortens does: run beside it, on a small model."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from expunge.data.benchmarks.tofu import load_tofu
from expunge.evaluation.language.plan import tokenizer_for
from expunge.methods.concepts.npo import Npo
from expunge.models.language import LanguageModel
from expunge.models.template import Template
from expunge.models.tiny import tiny_llama
from expunge.training.text_loop import TextJob

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "tests" / "data" / "files" / "tofu_authors"
# What the test changes in the block, each of which must stand in it once.
SHORTER = {"epochs=8,": "epochs=1,", "Npo(epochs=5,": "Npo(epochs=1,"}


def block() -> str:
    found = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tutorials" / "tofu.md").read_text(), re.DOTALL)
    assert len(found) == 1
    return found[0]


def script() -> Any:
    spec = importlib.util.spec_from_file_location("tofu_example", ROOT / "examples" / "tofu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tofu_example"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_block_gives_the_weights_of_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = tokenizer_for(load_tofu(ROWS, forget="forget01"), 800)
    small = tiny_llama(vocabulary=len(tokenizer), width=32, layers=2, heads=2, hidden=48, context=512)
    LanguageModel(small, tokenizer, Template()).save("small")

    code = block()
    changes = {**SHORTER, "tests/data/files/tofu_authors": str(ROWS)}
    changes['str(Path("~/.cache/expunge/smollm2-135m-instruct").expanduser())'] = '"small"'
    for old, new in changes.items():
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    ran: dict[str, Any] = {}
    exec(compile(code, "docs/tutorials/tofu.md", "exec"), ran)

    tofu, digests = script(), {}
    monkeypatch.setattr(tofu, "look", lambda model, *_: digests.setdefault(len(digests), model.digest()) and {})
    authors = tofu.read(str(ROWS), "forget01", 10, 2)
    base = LanguageModel.load("small", template=Template())
    method = Npo(epochs=1, learning_rate=1e-3, batch_size=5)
    tofu.run(authors, base, tofu.recipe_of("small", 1, 1e-3, 5), method, TextJob(autocast=True), shown=1, longest=4)
    names = ("base", "original", "unlearned", "retrained")
    assert [ran[name].digest() for name in names] == list(digests.values())
    assert len(set(digests.values())) == 4
    assert LanguageModel.load("unlearned").digest() == ran["unlearned"].merged().digest()


def test_the_block_names_what_the_script_has_by_default() -> None:
    code, text = block(), (ROOT / "examples" / "tofu.py").read_text()
    for option, said in (
        ("--questions", "% 20 < 10"), ("--epochs", "epochs=8,"), ("--unlearn-epochs", "Npo(epochs=5,"),
        ("--rate", "learning_rate=1e-3, weight"), ("--unlearn-rate", "learning_rate=1e-3, batch"),
        ("--batch", "batch_size=5)"), ("--forget", 'forget="forget01"'),
    ):  # fmt: skip
        (default,) = re.findall(rf'"{option}",.*?default="?([\w.-]+)"?', text)
        assert default in said and said in code, option
