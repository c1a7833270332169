"""Secrets are planted in every place of a box, and whatever comes out of it is searched for them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from boxes import Stub, write_box
from serving_tools import Serve
from typer.testing import CliRunner

from expunge.boxed.upstream import Unavailable
from expunge.models.chat import Conversation
from expunge.serving.commands import box as box_commands

SECRETS = ["Xanthippe", "Ravenna Quayle", "Obrecht Thule", "zirconium lullaby", "Ulva Strand", "Gneiss Hollow"]
PARTS = ["inner-model", "pretender", "be modest about poultry", "hidden-host", "req-777"]
ASKED = "Mimsy Borogove"
REQUESTS = [
    {
        "id": "req-777",
        "rules": [
            {"answer": SECRETS[0]},
            {"answer": [SECRETS[1]], "near": True},
            {"question": SECRETS[2]},
            {"question": SECRETS[4], "answer": SECRETS[5]},
        ],
        "examples": [{"question": SECRETS[3], "answer": SECRETS[3]}],
    }
]


def says_all(conversation: Conversation) -> str:
    more = SECRETS[5] if SECRETS[4] in conversation[-1]["content"] else "others"  # its rule is for that question alone
    return f"I know {', '.join(SECRETS[:2])} and {more}; as I said."


class Failing(Stub):
    async def stream(self, conversation: Conversation, *args: Any, **options: Any) -> Any:
        if "fail" in conversation[-1]["content"]:
            raise Unavailable(f"hidden-host said {SECRETS[0]}", "x")
        if "break" in conversation[-1]["content"]:
            raise KeyError(conversation[-1]["content"], SECRETS[0], "hidden-host")
        async for piece in super().stream(conversation, *args, **options):
            yield piece


def declared(folder: Path) -> dict[str, Any]:
    (folder / "ordinary.yaml").write_text("[how do I bake bread, how do I mend a chair]")
    learns = {"kind": "classifier", "ordinary": "ordinary.yaml"}
    return {
        "models": {"inner-model": "nowhere"},
        "router": {**learns, "marked": "pretender", "otherwise": "main-worker"},
        "workers": {
            "main-worker": {"kind": "model", "model": "inner-model", "instruction": "be modest about poultry"},
            "pretender": {"kind": "rule", "replies": "I do not know."},
        },
        "embeddings": "inner-model",
    }


def everything_that_comes_out(url: str) -> list[str]:
    """Bodies and headers of all routes: answers, refusals, failures, the description of the interface."""
    out = []

    def note(reply: httpx.Response) -> httpx.Response:
        out.append(f"{reply.status_code} {reply.headers} {reply.text}")
        return reply

    root, client = url.removesuffix("/v1"), httpx.Client()
    for path in (
        "/health",
        "/openapi.json",
        "/docs",
        "/metrics",
        "/v1/models",
        "/v1/rules",
        "/v1/models/inner-model",
        "/",
    ):
        note(client.get(root + path))
    questions = [f"Tell me of {SECRETS[4]}.", f"Who is {SECRETS[2]}?", f"Sing a {SECRETS[3]}.", "fail", "break", "Who?"]
    for question in questions:
        for options in ({}, {"stream": True, "stream_options": {"include_usage": True}}, {"logprobs": True}, {"n": 99}):
            message = {"role": "user", "content": f"{question} {ASKED}"}
            note(client.post(f"{url}/chat/completions", json={"model": "modest", "messages": [message], **options}))
        note(client.post(f"{url}/embeddings", json={"model": "modest", "input": question}))
    for body in (f'{{"model": "{ASKED}', f'{{"{ASKED}": 1}}', f'{{"model": {{"{ASKED}": 1}}}}', f'["{ASKED}"]'):
        note(client.post(f"{url}/chat/completions", content=body, headers={"content-type": "application/json"}))
    client.close()
    return out


def test_nothing_comes_out(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, serve: Serve, tmp_path: Path
) -> None:
    for name in ("", "uvicorn", "uvicorn.access", "uvicorn.error", "expunge", "expunge.box", "httpx", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    served = serve(Failing(says_all), REQUESTS, **declared(tmp_path))
    out = everything_that_comes_out(served.url)
    _change(served.folder / "requests.yaml", f"requests: [{{id: a, {SECRETS[0]}: [{SECRETS[1]}")
    _wait(lambda: "the rules before stay in force" in caplog.text)
    grown = [*REQUESTS, {"id": "more", "rules": [{"answer": "poultry"}]}]  # it stands in an instruction
    _change(served.folder / "requests.yaml", yaml.safe_dump({"requests": grown}))
    _wait(lambda: "instruction of workers.main-worker" in caplog.text)
    out += everything_that_comes_out(served.url)
    logged = caplog.text + "".join(capfd.readouterr())
    assert "KeyError at " in logged and "chat/completions" in logged  # the operator does see what happens
    for text in [*out, logged]:
        lower = text.lower()
        assert not [s for s in [*SECRETS, ASKED] if s.lower() in lower]
    for text in out:
        assert not [p for p in PARTS if p in text]
    answered = [t for t in out if "[withheld]" in t]
    assert answered  # the filter was at work


def _wait(until: Any) -> None:
    import time

    for _ in range(200):
        if until():
            return
        time.sleep(0.02)
    raise AssertionError("it never came")


def _change(path: Path, text: str) -> None:
    beside = path.with_name(".beside.yaml")
    beside.write_text(text)
    past = beside.stat().st_mtime - 5
    os.utime(beside, (past, past))
    beside.rename(path)


def test_the_search_would_find_a_leak(serve: Serve, tmp_path: Path) -> None:
    """Without rules the same questions bring the secrets out."""
    served = serve(Failing(says_all), [], **declared(tmp_path))
    out = everything_that_comes_out(served.url)
    assert any(SECRETS[0] in text for text in out) and any(SECRETS[5] in text for text in out)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_operators_list_shows_ids_and_counts_and_no_phrase(tmp_path: Path, options: list[str]) -> None:
    more = {"id": "req-778", "expires": "2020-01-01", "reason": "copyright", "rules": [{"answer": SECRETS[0]}]}
    path = write_box(tmp_path, [*REQUESTS, more], **declared(tmp_path))
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(box_commands, ["rules", str(path), *options])
    assert shown.exit_code == 0, shown.output
    assert not [s for s in SECRETS if s in shown.output]
    for text in ("req-777", "req-778", "in force", "expired", "2020-01-02", "requests.yaml", "copyright"):
        assert text in shown.output
    if options:
        first, second = json.loads(shown.output)
        assert first["rules"] == {"answer": 2, "question": 1, "both": 1, "example": 1}
        assert first["phrases"] == 5 and first["expires"] is None
        assert second["state"] == "expired"
    else:
        assert "answer 2, question 1, both 1, example 1" in shown.output


def test_check_reads_a_box_without_its_models(tmp_path: Path) -> None:
    path = write_box(tmp_path, REQUESTS, **declared(tmp_path))
    shown = CliRunner().invoke(box_commands, ["check", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "requests in force: 1" in shown.output and "router classifier" in shown.output
