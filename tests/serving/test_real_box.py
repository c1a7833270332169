"""SmolLM2 behind the box, asked by the client of OpenAI: it no longer tells two capitals, and all else as before."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_forgotten_capitals_are_withheld_and_others_told_as_before() -> None:
    from expunge.models.language import LanguageModel

    folder = load("language_assets", ROOT / "tests" / "language" / "assets.py").smollm2()
    script = load("boxed_benchmark", ROOT / "benchmarks" / "boxed.py")
    bare = script.Bare(LanguageModel.load(folder))
    gone, kept = ["France", "Japan"], ["Italy", "Germany", "Spain", "Canada"]
    rules = [{"question": c, "answer": script.CAPITALS[c]} for c in gone] + [{"question": ["capital", gone[0]]}]
    wordings = script.WORDINGS[:2]
    with script.served(bare.model, rules) as boxed:
        for country in gone:
            for asked in (w.format(country) for w in wordings):
                assert script.knows(bare.timed(asked)[0], script.CAPITALS[country])
                assert not script.knows(boxed.timed(asked)[0], script.CAPITALS[country])
        for asked in (script.WORDINGS[0].format(country) for country in kept):
            said = bare.timed(asked)[0]
            assert said and boxed.timed(asked)[0] == said
        assert (
            sum(script.knows(bare.timed(w.format(c))[0], script.CAPITALS[c]) for c in kept for w in wordings[:1]) >= 3
        )
