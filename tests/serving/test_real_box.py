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
    first, *further = script.WORDINGS[:2]
    told = {c: bare.timed(first.format(c))[0] for c in script.WANTED[:8]}
    known = [c for c in told if script.knows(told[c], script.CAPITALS[c])]
    assert len(known) >= 4
    gone, kept = known[:2], [c for c in told if c not in known[:2]]
    rules = [{"question": c, "answer": script.CAPITALS[c]} for c in gone] + [{"question": ["capital", gone[0]]}]
    with script.served(bare.model, rules) as boxed:
        for country in gone:
            for asked in (w.format(country) for w in (first, *further)):
                assert not script.knows(boxed.timed(asked)[0], script.CAPITALS[country])
        for country in kept:
            assert told[country] and boxed.timed(first.format(country))[0] == told[country]
