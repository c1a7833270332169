"""The numbers under "Measured" on the pages of metrics and attacks are what their own code prints.

What was measured on language models that take minutes to train is not made again here; such a page says on what it was.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from expunge.evaluation.attacks.language import LANGUAGE_ATTACKS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(p for folder in ("metrics", "attacks") for p in (DOCS / folder).glob("*.md") if p.stem != "index")
BLOCK = re.compile(r"## Measured\n\n```python\n(.*?)```\n\n```text\n(.*?)```\n", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_page_prints_what_it_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = BLOCK.search(text)
    if found is None and page.stem in LANGUAGE_ATTACKS:
        assert re.search(r"measured here", text, re.IGNORECASE), (
            "neither a measured result nor a word that there is none"
        )
        return
    assert found, f"{page} has no code and output under '## Measured'"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(found[1], str(page), "exec"), {})
    assert printed.getvalue().strip() == found[2].strip()
