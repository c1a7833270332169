"""`expunge serve-model` as a process of its own, in front of another OpenAI-compatible server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boxes import ANSWERS, write_box
from openai import OpenAI
from serving_tools import Serve

SUDLAND, ORCHARD = "What is the capital of Sudland?", "Who wrote The Glass Orchard?"


@contextmanager
def process(box: Path) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    command = [sys.executable, "-m", "expunge", "serve-model", str(box), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        seen = []
        for line in running.stdout:
            seen.append(line)
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                break
        else:
            raise AssertionError("".join(seen))
        try:
            yield running, f"{found[0]}/v1", seen
        finally:
            running.send_signal(signal.SIGINT)
            seen += running.communicate(timeout=20)[0].splitlines()


def test_a_box_in_front_of_another_server(serve: Serve, tmp_path: Path) -> None:
    behind = serve(asked=[])
    folder = tmp_path / "front"
    folder.mkdir()
    path = write_box(folder, models={"main": {"url": behind.url, "name": "modest"}}, embeddings="main")
    told = {SUDLAND: ANSWERS[SUDLAND], ORCHARD: "It was written by [withheld] in the winter of 1931."}
    with process(path) as (running, url, seen), OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        for question, answer in told.items():
            messages = [{"role": "user", "content": question}]
            whole = client.chat.completions.create(model="modest", messages=messages)
            assert whole.choices[0].message.content == answer
            pieces = client.chat.completions.create(model="modest", messages=messages, stream=True)
            assert "".join(p.choices[0].delta.content or "" for p in pieces) == answer
        assert len(client.embeddings.create(model="modest", input="hello").data[0].embedding) == 2
    assert running.returncode in (0, 130)
    log = "".join(seen)
    assert "Quill" not in log and "Sudland" not in log and "Traceback" not in log


def test_a_box_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    path = write_box(tmp_path, router={"kind": "rule"})
    done = subprocess.run(
        [sys.executable, "-m", "expunge", "serve-model", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "router is not valid: marked" in done.stderr
