"""The endpoint, as the official client of OpenAI sees it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from boxes import ANSWERS, Stub
from serving_tools import Serve, Served

from expunge.boxed.upstream import Refused, Unavailable

NORLAND, SUDLAND, HERRING, ORCHARD, ABOUT = ANSWERS
USER = {"role": "user", "content": "x"}
JSON = {"content-type": "application/json"}
SOUP = "Is the soup of Norland good?"
CASES = [
    (SUDLAND, ANSWERS[SUDLAND]),
    (ORCHARD, "It was written by [withheld] in the winter of 1931."),
    (NORLAND, "The capital of Norland is [withheld]. It lies by the sea."),
    (SOUP, "No idea."),
]


def asked(question: str, **fields: Any) -> dict[str, Any]:
    return {"model": "modest", "messages": [{"role": "user", "content": question}], **fields}


@pytest.mark.parametrize(("question", "answer"), CASES)
def test_answers(serve: Serve, question: str, answer: str) -> None:
    with serve().client() as client:
        found = client.chat.completions.create(**asked(question))
        assert found.choices[0].message.content == answer
        assert found.choices[0].finish_reason == "stop"
        assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
        pieces = list(
            client.chat.completions.create(**asked(question), stream=True, stream_options={"include_usage": True})
        )
    assert pieces[-1].usage == found.usage
    said = [p.choices[0].delta.content for p in pieces[1:-2]]
    assert "".join(said) == answer
    assert len(said) == len(answer.split())
    assert pieces[0].choices[0].delta.role == "assistant"
    assert pieces[-2].choices[0].finish_reason == "stop"


def shape(value: Any) -> Any:
    """Fields and kinds of values, without the values."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    return [shape(v) for v in value[:1]] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("stream", [False, True])
def test_who_answered_does_not_show(serve: Serve, stream: bool) -> None:
    """Model, filter and rule: same fields, headers and shape; token counts of the public texts alone."""
    served = serve(limits={"usual_tokens": 64})
    seen = []
    for question, answer in CASES:
        reply = httpx.post(f"{served.url}/chat/completions", json=asked(question, stream=stream))
        headers = {k: v for k, v in reply.headers.items() if k not in ("date", "content-length")}
        if stream:
            events = [json.loads(e[6:]) for e in reply.text.strip().split("\n\n")[:-1]]
            assert len(events) == len(answer.split()) + 2
            seen.append((headers, [shape(e) for e in (events[0], events[1], events[-1])]))
        else:
            body = reply.json()
            assert body["usage"]["completion_tokens"] == served.stub.count(answer)
            assert body["usage"]["prompt_tokens"] == served.stub.count(question) + 4
            seen.append((headers, shape(body)))
    assert all(one == seen[0] for one in seen)


def test_limits_ends_stops_and_choices(serve: Serve) -> None:
    with serve().client() as client:
        found = client.chat.completions.create(**asked(SUDLAND, max_tokens=4, n=2, seed=1))
        assert [(c.index, c.message.content, c.finish_reason) for c in found.choices] == [
            (0, "The capital of", "length"), (1, "The capital of", "length")
        ]  # fmt: skip
        found = client.chat.completions.create(**asked(SUDLAND, stop=[" is"]))
        assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("The capital of Sudland", "stop")
        pieces = list(client.chat.completions.create(**asked(SUDLAND, max_completion_tokens=2, n=2, stream=True)))
        assert [p.choices[0].index for p in pieces] == [0, 0, 0, 1, 1, 1] or len(pieces) == 8
        parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": "of Norland?"}]
        assert client.chat.completions.create(
            model="modest", messages=[{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
        ).choices[0].message.content.startswith("I have heard nothing")  # fmt: skip


def test_models(serve: Serve) -> None:
    with serve().client() as client:
        assert [m.id for m in client.models.list()] == ["modest"]
        assert client.models.retrieve("modest").owned_by == "operator"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("main")


def test_embeddings_of_what_is_left_of_a_text(serve: Serve) -> None:
    served = serve()
    with served.client() as client:
        texts = ["The sea is warm.", "Zelda Quill wrote it.", "… wrote it."]
        for options in ({}, {"encoding_format": "float"}):
            found = client.embeddings.create(model="modest", input=texts, **options)
            vectors = [d.embedding for d in found.data]
            assert vectors[1] == vectors[2] != vectors[0]
            assert found.usage.prompt_tokens == sum(map(served.stub.count, texts))
        assert client.embeddings.create(model="modest", input="one").data[0].index == 0


@pytest.mark.parametrize(
    ("fields", "status", "parameter"),
    [
        ({"model": "other"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, None),
        ({"messages": [USER, {"role": "system", "content": "x"}, USER]}, 400, None),
        ({"messages": [{"role": "user", "content": "x" * 2001}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "messages"),
        ({"messages": [{**USER, "content": [{"type": "image_url"}]}]}, 400, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": "x"}] * 5}, 400, "messages"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 1025}, 400, "max_tokens"),
        ({"max_completion_tokens": 1025}, 400, "max_completion_tokens"),
        ({"n": 5}, 400, "n"),
        ({"temperature": 3}, 400, "temperature"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"logit_bias": {"1": 2}}, 400, None),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"stop": ["a"] * 5}, 400, "stop"),
        ({"stop": ""}, 400, "stop.0"),
    ],
)  # fmt: skip
def test_refusals_have_one_form_and_repeat_nothing(
    serve: Serve, fields: dict[str, Any], status: int, parameter: str | None
) -> None:
    served = serve(limits={"characters": 2000, "messages": 4})
    reply = httpx.post(f"{served.url}/chat/completions", content=json.dumps({**asked("x"), **fields}), headers=JSON)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == parameter
    assert served.stub.asked == []


def test_bodies_that_are_no_requests(serve: Serve) -> None:
    served = serve(limits={"body_bytes": 2048})
    post = f"{served.url}/chat/completions"
    for body, status in ((b"{", 400), (b"[" * 2000, 400), (b"[]", 400), (b"\xff", 400), (b"x" * 2049, 413)):
        reply = httpx.post(post, content=body, headers=JSON)
        assert reply.status_code == status and set(reply.json()["error"]) == {"message", "type", "param", "code"}
    endless = httpx.post(post, content=(b"x" * 100 for _ in range(100)))  # chunks, and no length told before
    assert endless.status_code == 413
    assert httpx.get(served.url + "/nowhere").json()["error"]["code"] is None
    assert httpx.get(post).status_code == 405
    for body in (
        {"input": []},
        {"input": [""]},
        {"input": [[1, 2]]},
        {"input": ["x"] * 300},
        {"input": "x", "dimensions": 2},
    ):
        assert httpx.post(f"{served.url}/embeddings", json={"model": "modest", **body}).status_code == 400


def test_a_key_where_the_operator_wants_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOX_CLIENT_KEY", "a-key-of-clients")
    served = serve(client_key_variable="BOX_CLIENT_KEY")
    with served.client() as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**asked(SUDLAND))
    with served.client().with_options(api_key="a-key-of-clients") as client:
        assert client.chat.completions.create(**asked(SUDLAND)).choices[0].message.content == ANSWERS[SUDLAND]


class Broken(Stub):
    """Fails after some tokens."""

    def __init__(self, error: Exception, after: int) -> None:
        super().__init__()
        self.error, self.after = error, after

    async def stream(self, *args: Any, **options: Any) -> Any:
        number = 0
        async for piece in super().stream(*args, **options):
            if number == self.after:
                raise self.error
            yield piece
            number += 1


@pytest.mark.parametrize("question", [SUDLAND, SOUP])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unavailable("the secret backend", "x"), 503),
        (Refused("the secret backend", "x"), 400),
        (ZeroDivisionError("the secret backend"), 500),
    ],
)
def test_failures_are_the_same_whoever_would_have_answered(
    serve: Serve, error: Exception, status: int, question: str
) -> None:
    served = serve(Broken(error, 0))
    for stream in (False, True):
        reply = httpx.post(f"{served.url}/chat/completions", json=asked(question, stream=stream))
        assert reply.status_code == status
        assert "secret" not in reply.text


def test_a_failure_within_a_stream_ends_it(serve: Serve) -> None:
    with serve(Broken(Unavailable("the secret backend", "x"), 6)).client() as client:
        with pytest.raises(openai.APIError, match="not available") as caught:
            list(client.chat.completions.create(**asked(SUDLAND, stream=True)))
        assert "secret" not in str(caught.value)


def test_an_answer_that_takes_too_long(serve: Serve) -> None:
    served = serve(Stub(pause=0.2), limits={"seconds": 0.3})
    assert httpx.post(f"{served.url}/chat/completions", json=asked(SUDLAND)).status_code == 503
    assert served.stub.running == 0


def change(served: Served, text: str) -> None:
    path = served.folder / "requests.yaml"
    beside = served.folder / ".requests.yaml"
    beside.write_text(text)
    past = beside.stat().st_mtime - 5
    os.utime(beside, (past, past))
    beside.rename(path)


def until(served: Served, question: str, answer: str) -> None:
    import time

    said = ""
    for _ in range(100):
        with served.client() as client:
            said = str(client.chat.completions.create(**asked(question)).choices[0].message.content)
        if said == answer:
            return
        time.sleep(0.02)
    raise AssertionError(said)


def test_requests_take_effect_and_expire_while_serving(serve: Serve) -> None:
    from datetime import UTC, datetime, timedelta

    now = [datetime(2027, 1, 1, tzinfo=UTC)]
    served = serve(clock=lambda: now[0])
    until(served, SUDLAND, ANSWERS[SUDLAND])
    rule = {"id": "late", "expires": now[0] + timedelta(days=1), "rules": [{"answer": "Warmholm"}]}
    change(served, yaml.safe_dump({"requests": [rule]}))
    until(served, SUDLAND, "The capital of Sudland is [withheld]. It lies in the hills.")
    change(served, "requests: [")
    import time

    time.sleep(0.2)
    until(served, SUDLAND, "The capital of Sudland is [withheld]. It lies in the hills.")
    now[0] += timedelta(days=1)
    until(served, SUDLAND, ANSWERS[SUDLAND])


def test_the_models_are_let_go(tmp_path: Path) -> None:
    import asyncio

    from boxes import make_box

    from expunge.serving.app import create_app

    stub = Stub()
    app = create_app(make_box(tmp_path, stub))

    async def live() -> None:
        async with app.router.lifespan_context(app):
            assert not stub.closed

    asyncio.run(live())
    assert stub.closed
