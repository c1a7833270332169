"""From nothing to two certificates: a real server, a real worker, a real classifier and a language model's adapters."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from expunge.models.language import LanguageModel
from expunge.models.template import Template
from expunge.models.tiny import tiny_llama, train_tokenizer
from expunge.service.webhooks.signing import verify

pytestmark = pytest.mark.slow
PEOPLE = [f"person-{n:02d}@mail.example" for n in range(12)]
LEAVING = PEOPLE[4]


def expunge(*arguments: str, expect: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "expunge", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == expect, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with (folder / "clicks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "user", "x1", "x2", "label"])
        for n in range(240):
            writer.writerow([f"c{n}", PEOPLE[n % 12], n % 7, (n * 3) % 5, "yes" if n % 2 else "no"])
    lines = [
        {"id": f"t{n}", "owner": PEOPLE[n % 12], "question": f"what is {n}", "answer": f"Quux{n}"} for n in range(24)
    ]
    (folder / "notes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = tiny_llama(vocabulary=259, width=16, layers=2, heads=2, hidden=16, context=64)
    LanguageModel(module, train_tokenizer(["a"], 259), Template(prompt="{prompt}")).save(folder / "base")
    return folder


class Received(BaseHTTPRequestHandler):
    calls: list[tuple[dict[str, str], bytes]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    Received.calls = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Received)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", Received.calls
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str, str]]:
    """(home, address, operator's key) of a service that was started in an empty folder."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "policy.yaml").write_text("serving: {rule: now}\n")
    (home / "service.yaml").write_text("development: true\naccess: {secure: false}\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "expunge", "serve", "--home", str(home), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        lines.extend(iter(process.stdout.readline, ""))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    address = key = None
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None and not (address and key):
        text = "".join(lines)
        address = re.search(r"serves at (http://\S+?)/ ", text)
        key = re.search(r"exk_\S+", text)
        time.sleep(0.1)
    if not (address and key):
        process.kill()
        process.communicate()
        pytest.fail("".join(lines) or "the service did not start")
    yield home, address[1], key[0]
    process.terminate()
    process.wait(timeout=60)
    reader.join(timeout=5)
    assert process.stdout is not None
    process.stdout.close()
    assert process.returncode in (0, -15, 143), "".join(lines)
    assert "Traceback" not in "".join(lines), "".join(lines)
    assert not any(name in "".join(lines) for name in PEOPLE)


def test_from_a_clean_start(data: Path, served: tuple[Path, str, str], receiver: Any, tmp_path: Path) -> None:
    home, address, operator_key = served
    at_home = ("--home", str(home))
    keys = ("--keys", str(home / "keys"))
    expunge("fit", "sisa", str(data / "clicks.csv"), "--out", str(tmp_path / "clf"), "--owner", "user", "--id", "key",
            "--label", "label", "--set", "shards=4", "--epochs", "2", *keys)  # fmt: skip
    expunge("fit", "sharded_adapters", str(data / "notes.jsonl"), "--out", str(tmp_path / "lm"), "--set",
            f"base={data / 'base'}", "--set", "sharding=owner", "--set", "shards=3", "--set", "rank=2", "--set",
            "targets=[q_proj, v_proj]", "--epochs", "1", *keys)  # fmt: skip
    clicks = tmp_path / "clicks.csv"
    clicks.write_bytes((data / "clicks.csv").read_bytes())
    expunge("targets", "add", "clicks", "--kind", "dataset", "--location", str(clicks), "--option", "owner=user",
            "--option", "id=key", *at_home)  # fmt: skip
    expunge("targets", "add", "classifier", "--kind", "learner", "--location", str(tmp_path / "clf"), "--from",
            "clicks", *at_home)  # fmt: skip
    expunge("targets", "add", "assistant", "--kind", "learner", "--location", str(tmp_path / "lm"), *at_home)
    approver_key = expunge("access", "add", "approver", "privacy office", *at_home).strip()

    url, calls = receiver
    with httpx.Client(base_url=address, timeout=30) as client:
        operator = {"Authorization": f"Bearer {operator_key}"}
        approver = {"Authorization": f"Bearer {approver_key}"}
        hook = client.post("/v1/webhooks", json={"url": url, "events": ["*"]}, headers=operator)
        assert hook.status_code == 201, hook.text
        filed = client.post(
            "/v1/requests", json={"identity": LEAVING, "verified": True, "external_id": "case-9"}, headers=operator
        )
        assert filed.status_code == 201, filed.text
        request_id = filed.json()["id"]
        refused = client.post(f"/v1/requests/{request_id}/approve", headers=operator)
        assert refused.status_code == 403
        approved = client.post(f"/v1/requests/{request_id}/approve", headers=approver)
        assert approved.status_code == 200, approved.text
        status = "approved"
        end = time.monotonic() + 150
        while time.monotonic() < end and status not in ("fulfilled", "failed"):
            time.sleep(0.5)
            status = client.get(f"/v1/requests/{request_id}", headers=operator).json()["status"]
        history = client.get(f"/v1/requests/{request_id}/history", headers=operator).text
        assert status == "fulfilled", history
        blocked = client.post("/v1/suppression/check", json={"identities": [LEAVING, PEOPLE[5]]}, headers=operator)
        assert "true" in blocked.text.lower() and "false" in blocked.text.lower(), blocked.text
        end = time.monotonic() + 30
        while time.monotonic() < end and not any(b"fulfilled" in body for _, body in calls):
            time.sleep(0.2)

    certificates = sorted((home / "certificates").glob("batch_*.json"))
    layers = [p for p in certificates if not p.name.endswith(".learner.json")]
    assert len(layers) == 3 and len(certificates) == 5  # and the learners' own two
    public = tmp_path / "trusted.json"
    public.write_bytes((home / "keys" / "trusted.json").read_bytes())
    for path in certificates:
        copy = tmp_path / "auditor" / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
        told = json.loads(expunge("verify", str(copy), "--public-keys", str(public), "--json"))
        assert told["outcome"] == "pass", told
    assert LEAVING not in clicks.read_text() and PEOPLE[5] in clicks.read_text()

    secret = hook.json()["secret"]
    assert any(b"fulfilled" in body for _, body in calls)
    for headers, body in calls:
        verify(secret, headers, body, datetime.now(UTC))
        assert LEAVING.encode() not in body and request_id.encode() in body
    held = json.loads(expunge("doctor", *at_home, "--json"))
    assert held["healthy"], held
    told = expunge("requests", "check", str(_written(tmp_path / "new.txt", LEAVING)), *at_home, expect=1)
    assert told == "line 1: blocked\n"


def _written(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    return path
