"""A model behind an OpenAI-compatible server, here a stub on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from expunge.errors import RequestError, RunError
from expunge.models.chat import ChatModel, ask, assistant, system, user, weights_of
from expunge.models.endpoint import Endpoint

KEY, VARIABLE = "sk-not-to-be-told-77", "EXPUNGE_ENDPOINT_TEST_KEY"
SECRET = "the lighthouse keeper's middle name"


class Stub(ThreadingHTTPServer):
    """Answers with what it was asked last, in capitals; `statuses` are used up first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.headers_back: dict[str, str] = {}
        self.body: str | None = None
        self.heeds_n, self.pause = True, 0.0
        self.busy, self.busiest, self.lock = 0, 0, threading.Lock()

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no error of the stub."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        stub = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with stub.lock:
            stub.seen.append({"path": self.path, "key": self.headers.get("Authorization"), "body": body})
            status = stub.statuses.pop(0) if stub.statuses else 200
            stub.busy += 1
            stub.busiest = max(stub.busiest, stub.busy)
        time.sleep(stub.pause)
        with stub.lock:
            stub.busy -= 1
        text = body["messages"][-1]["content"].upper()
        count = body.get("n", 1) if stub.heeds_n else 1
        choices = [{"message": {"role": "assistant", "content": f" {text} {body['seed']}-{k}\n"}} for k in range(count)]
        told = json.dumps({"choices": choices}) if stub.body is None or status != 200 else stub.body
        self.send_response(status)
        for name, value in stub.headers_back.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write((f"you said: {text}" if status != 200 else told).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def endpoint(stub: Stub, **more: Any) -> Endpoint:
    return Endpoint(**{"url": stub.url, "name": "model-1", "key_variable": VARIABLE, **more})


def test_it_is_a_chat_model_without_weights(stub: Stub) -> None:
    model = endpoint(stub)
    assert isinstance(model, ChatModel)
    assert model.capabilities == {"generate"} and weights_of(model) is None
    assert model.digest() == endpoint(stub).digest() != endpoint(stub, name="model-2").digest()
    conversation = [system("Be brief."), user("one"), assistant("two"), user("three")]
    assert model.chat([conversation], max_new_tokens=9, seed=4) == [["THREE 4-0"]]
    (seen,) = stub.seen
    assert (seen["path"], seen["key"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert seen["body"] == {
        "model": "model-1", "max_tokens": 9, "temperature": 0, "messages": conversation, "seed": 4,
    }  # fmt: skip
    assert model.asked == 1


def test_answers_come_in_the_order_of_the_questions(stub: Stub) -> None:
    stub.pause = 0.01
    asked = [f"question {k}" for k in range(24)]
    assert [a.split(" ")[1] for a in ask(endpoint(stub, at_once=8), asked)] == [str(k) for k in range(24)]


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_more_are_under_way_than_allowed(stub: Stub, at_once: int) -> None:
    stub.pause = 0.03
    ask(endpoint(stub, at_once=at_once), [str(k) for k in range(9)])
    assert stub.busiest == at_once


@pytest.mark.parametrize(("by", "requests"), [("n", 1), ("repeat", 5)])
def test_samples(stub: Stub, by: Any, requests: int) -> None:
    said = endpoint(stub, samples_by=by).chat([[user("x")]], samples=5, temperature=0.7, seed=2)[0]
    assert len(set(said)) == 5 and len(stub.seen) == requests
    assert all(s["body"]["temperature"] == 0.7 for s in stub.seen)
    again = endpoint(stub, samples_by=by).chat([[user("x")]], samples=5, temperature=0.7, seed=2)[0]
    assert again == said


def test_a_server_that_gives_one_answer_a_request_is_asked_again_with_other_seeds(stub: Stub) -> None:
    stub.heeds_n = False
    assert len(set(endpoint(stub).chat([[user("x")]], samples=4)[0])) == 4
    assert [s["body"].get("n", 1) for s in stub.seen] == [4, 3, 2, 1]


def test_conversations_have_seeds_of_their_own(stub: Stub) -> None:
    said = endpoint(stub, samples_by="repeat").chat([[user("x")], [user("x")]], samples=3)
    assert len({s for own in said for s in own}) == 6


def test_a_busy_server_is_asked_again_after_longer_and_longer_waits(stub: Stub) -> None:
    waits: list[float] = []
    stub.statuses = [429, 503, 500]
    assert endpoint(stub, sleep=waits.append).chat([[user("x")]]) == [["X 0-0"]]
    assert waits == [0.5, 1.0, 2.0] and len(stub.seen) == 4


def test_it_waits_as_long_as_it_is_told_and_no_longer_than_a_minute(stub: Stub) -> None:
    for told, seconds in (
        ("7", 7.0),
        ("9999", 60.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.5),
        ("nan", 0.5),
        ("-3", 0.0),
    ):
        waits: list[float] = []
        stub.statuses, stub.headers_back = [429], {"Retry-After": told}
        endpoint(stub, sleep=waits.append).chat([[user("x")]])
        assert waits == [seconds]


@pytest.mark.parametrize("status", [400, 401, 404, 302, 307])
def test_what_will_not_get_better_is_not_tried_again(stub: Stub, status: int) -> None:
    stub.statuses, stub.headers_back = [status] * 9, {"Location": f"http://localhost:{stub.server_port}/elsewhere"}
    with pytest.raises(RunError, match=f"status {status}"):
        endpoint(stub, sleep=lambda _: pytest.fail("it waited")).chat([[user("x")]])
    assert [s["path"] for s in stub.seen] == ["/v1/chat/completions"]


def test_a_server_that_stays_busy_is_given_up(stub: Stub) -> None:
    stub.statuses = [503] * 9
    with pytest.raises(RunError, match="status 503"):
        endpoint(stub, retries=2, sleep=lambda _: None).chat([[user("x")]])
    assert len(stub.seen) == 3


def test_after_a_failure_nothing_more_is_sent(stub: Stub) -> None:
    stub.statuses, stub.pause = [401] * 99, 0.02
    with pytest.raises(RunError):
        ask(endpoint(stub, at_once=2), [str(k) for k in range(40)])
    time.sleep(0.1)
    assert len(stub.seen) < 10


@pytest.mark.parametrize(
    "body",
    ["not json", "[]", "{}", '{"choices": []}', '{"choices": [{"message": {"content": null}}]}', '{"choices": [{}]}'],
)
def test_errors_tell_neither_what_was_asked_nor_the_key(
    stub: Stub, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = endpoint(stub)
    stub.body = body
    with caplog.at_level(0), pytest.raises(RunError, match="OpenAI-compatible") as one:
        model.chat([[user(SECRET)]])
    stub.statuses = [400]
    with caplog.at_level(0), pytest.raises(RunError, match="status 400") as two:
        model.chat([[user(SECRET)]])
    for told in (str(one.value), str(two.value), repr(model), caplog.text):
        assert SECRET not in told and SECRET.upper() not in told and KEY not in told
    assert one.value.__cause__ is None and two.value.__cause__ is None


def test_a_server_that_is_not_there_or_silent(stub: Stub) -> None:
    with pytest.raises(RunError, match=r"cannot reach 127\.0\.0\.1:1 "):
        endpoint(stub, url="http://127.0.0.1:1/v1").chat([[user(SECRET)]])
    stub.pause = 1.0
    with pytest.raises(RunError, match="cannot reach"):
        endpoint(stub, timeout_seconds=0.05).chat([[user(SECRET)]])


def test_a_key_that_is_missing_or_breaks_the_header(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "two\nlines", "schlüssel"):
        monkeypatch.setenv(VARIABLE, value)
        with pytest.raises(RequestError, match=VARIABLE):
            endpoint(stub).chat([[user("x")]])
    endpoint(stub, key_variable=None).chat([[user("x")]])
    assert [s["key"] for s in stub.seen] == [None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://example.org/v1"}, {"url": "ftp://127.0.0.1/v1"}, {"url": "https://me:pw@example.org/v1"},
        {"url": "https://example.org/v1?key=1"}, {"name": ""}, {"retries": -1}, {"at_once": 0}, {"timeout_seconds": 0},
        {"samples_by": "magic"},
    ],
)  # fmt: skip
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Endpoint(**{"url": "http://127.0.0.1:9/v1", "name": "m", **wrong})


def test_what_is_no_conversation_is_not_sent(stub: Stub) -> None:
    with pytest.raises(RequestError):
        endpoint(stub).chat([[user("x")], [assistant("y")]])
    assert stub.seen == []
