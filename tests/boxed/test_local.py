"""A model on this machine, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest
import torch

from expunge.boxed.local import LocalUpstream
from expunge.boxed.parts import Sampling
from expunge.boxed.upstream import Limit, Refused, Unavailable
from expunge.models.chat import user
from expunge.models.language import LanguageModel
from expunge.models.template import Template
from expunge.models.tiny import tiny_llama, train_tokenizer

TEXTS = ["Grüße aus dem Süden, 你好 and good-bye.", "Norland is cold. 🙂 Is it?", "The quick brown fox"] * 4


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Untrained: it babbles, in bytes that are often no whole characters."""
    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(1)
    module = tiny_llama(vocabulary=len(tokenizer), width=16, layers=1, heads=2, hidden=32, context=128)
    return LanguageModel(module, tokenizer, Template())


@pytest.fixture
def upstream(model: LanguageModel) -> Iterator[LocalUpstream]:
    made = LocalUpstream(model)
    yield made
    asyncio.run(made.close())


def collect(upstream: LocalUpstream, text: str, sampling: Sampling, beyond: int = 0) -> list[str | Limit]:
    async def all_of_it() -> list[str | Limit]:
        return [p async for p in upstream.stream([user(text)], sampling, beyond=beyond)]

    return asyncio.run(all_of_it())


@pytest.mark.parametrize("beyond", [0, 9])
def test_pieces_are_the_answer(upstream: LocalUpstream, model: LanguageModel, beyond: int) -> None:
    for text in TEXTS[:3]:
        found = collect(upstream, text, Sampling(max_new_tokens=30), beyond)
        ((bare,),) = model.chat([[user(text)]], max_new_tokens=30)
        ((longer,),) = model.chat([[user(text)]], max_new_tokens=30 + beyond)
        said = [p for p in found if isinstance(p, str)]
        assert "".join(said).strip() == longer
        marks = [k for k, p in enumerate(found) if isinstance(p, Limit)]
        if marks:
            before = "".join(str(p) for p in found[: marks[0]]).strip()
            assert bare.rstrip("\ufffd").startswith(before) and len(bare) - len(before) <= 3
        assert len(marks) == (upstream.count(bare) >= 30 or len(bare) < len(longer)) or not beyond


def test_draws_are_reproducible_and_differ(upstream: LocalUpstream) -> None:
    state = torch.random.get_rng_state()
    one, again, other = (
        collect(upstream, "fox", Sampling(max_new_tokens=20, temperature=1.0, top_p=0.9, seed=s)) for s in (3, 3, 4)
    )
    assert one[:-1] == again[:-1] and one[:-1] != other[:-1]
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_does_not_fit_is_refused(upstream: LocalUpstream) -> None:
    with pytest.raises(Refused):
        collect(upstream, "fox " * 200, Sampling(max_new_tokens=20))
    assert collect(upstream, "fox", Sampling(max_new_tokens=100), beyond=500)


def test_leaving_ends_the_work(upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    forward = type(upstream.model.module).forward

    def counted(*args: object, **options: object) -> object:
        steps.append(1)
        return forward(*args, **options)

    monkeypatch.setattr(type(upstream.model.module), "forward", counted)

    async def leave() -> None:
        async with aclosing(upstream.stream([user("fox")], Sampling(max_new_tokens=100))) as pieces:
            async for _ in pieces:
                break
        assert await upstream.embed(["the next in line"])  # waits for the model to be free

    asyncio.run(leave())
    assert 0 < len(steps) < 60


def test_a_failure_tells_its_kind_and_no_more(upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("the fox is secret")

    monkeypatch.setattr(upstream.model.module, "generate", fail)
    with pytest.raises(Unavailable, match="ValueError") as caught:
        collect(upstream, "fox", Sampling())
    assert "secret" not in str(caught.value)


def test_counting(upstream: LocalUpstream) -> None:
    text = TEXTS[0]
    size = upstream.count(text)
    assert upstream.first(text, size) == text
    for k in range(size):
        part = upstream.first(text, k)
        assert text.startswith(part) and upstream.count(part) <= k + 1
    assert upstream.room([[user("fox")]], 10) == 128 - 10 - upstream.length([user("fox")])
