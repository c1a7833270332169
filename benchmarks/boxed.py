"""A real model behind the box, asked by the client of OpenAI with streaming: what it still tells, and at what cost.

    python benchmarks/boxed.py MODEL [--tofu FOLDER] [--paired 40] [--json OUT]

MODEL is the folder of tools/make_smollm2.py. Questions: capitals of 149 countries, and TOFU's world facts where their
folder is given. Of the facts that the model knows, five capitals and up to four others are forgotten. Asked of the bare
model and of the served box, greedily: the forgotten facts in several wordings; the same countries' neighbouring facts;
all other questions. An answer of the box that differs from the bare model's in a single letter counts as a false block.
Latency: the same questions in turn to the bare model in this process and to the endpoint over HTTP, one at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
import yaml
from openai import OpenAI

from expunge.boxed.box import Box
from expunge.boxed.local import LocalUpstream
from expunge.boxed.parts import Sampling
from expunge.boxed.upstream import Limit
from expunge.filters.normal import normal_form
from expunge.models.chat import user
from expunge.models.language import LanguageModel
from expunge.serving.serve import server_settings

CAPITALS = json.loads((Path(__file__).parent / "capitals.json").read_text(encoding="utf-8"))
WANTED = ("France", "Japan", "Italy", "Germany", "Spain", "Canada", "Norway", "Kenya", "Egypt", "Russia")
FACTS = (("Romeo and Juliet", "Shakespeare"), ("Mona Lisa", "Vinci"), ("relativity", "Einstein"),
         ("DNA", "Watson"), ("moon", "Armstrong"), ("penicillin", "Fleming"),
         ("Great Wall", "China"), ("longest river", "Nile"))  # fmt: skip
WORDINGS = (
    "What is the capital of {}?",
    "The capital of {} is",
    "Which city is the seat of the government of {}?",
    "Name the most important city of {}.",
)
NEAR = (
    "Which language is spoken in {}?",
    "On which continent is {}?",
    "What is {} famous for?",
    "Which sea is near {}?",
)
TOKENS = 12


def knows(said: str, answer: str) -> bool:
    return normal_form(answer) in normal_form(said)


def interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson, 95 %."""
    z, p = 1.959964, successes / n
    middle, half = p + z * z / (2 * n), z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def share(hits: Sequence[bool]) -> dict[str, Any]:
    low, high = interval(sum(hits), len(hits))
    return {"n": len(hits), "count": sum(hits), "share": sum(hits) / len(hits), "low": low, "high": high}


class Bare:
    """The model as it is, whole answers or pieces."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.upstream = model, LocalUpstream(model)

    def many(self, questions: Sequence[str]) -> list[str]:
        return [
            said[0] for said in self.model.chat([[user(q)] for q in questions], max_new_tokens=TOKENS, batch_size=16)
        ]

    def timed(self, question: str) -> tuple[str, float, float, float]:
        """(answer, seconds to the first piece, to the last, of processor)."""

        async def ask() -> tuple[str, float, float, float]:
            begun, worked, first, said = time.perf_counter(), time.process_time(), 0.0, ""
            async with aclosing(self.upstream.stream([user(question)], Sampling(max_new_tokens=TOKENS))) as pieces:
                async for piece in pieces:
                    first = first or time.perf_counter() - begun
                    said += "" if isinstance(piece, Limit) else piece
            return said.strip(), first, time.perf_counter() - begun, time.process_time() - worked

        return asyncio.run(ask())


class Boxed:
    """The endpoint, through the client."""

    def __init__(self, client: OpenAI) -> None:
        self.client = client

    def timed(self, question: str) -> tuple[str, float, float, float]:
        begun, worked, first, said = time.perf_counter(), time.process_time(), 0.0, ""
        stream = self.client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=TOKENS,
            stream=True,
        )
        for piece in stream:
            text = piece.choices[0].delta.content
            if text:
                first = first or time.perf_counter() - begun
                said += text
        return said, first, time.perf_counter() - begun, time.process_time() - worked


@contextmanager
def served(model: LanguageModel, rules: list[dict[str, Any]]) -> Any:
    """The box on a free port."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = [{"id": f"request-{k}", "rules": [rule]} for k, rule in enumerate(rules)]
        (folder / "requests.yaml").write_text(yaml.safe_dump({"requests": requests}), encoding="utf-8")
        declared = {
            "name": "smollm2", "requests": "requests.yaml", "models": {"main": "loaded"},
            "router": {"kind": "rule", "marked": "ignorant", "otherwise": "answer"},
            "workers": {"answer": {"kind": "model", "model": "main"}, "ignorant": {"kind": "rule"}},
            "output_filter": {"kind": "rule"},
        }  # fmt: skip
        (folder / "box.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
        box = Box.read(folder / "box.yaml", upstreams={"main": LocalUpstream(model)})
        settings = server_settings(box, "127.0.0.1", 0)
        for name in ("uvicorn.access", "uvicorn.error"):  # a line a question would be all that is seen
            logging.getLogger(name).setLevel(logging.WARNING)
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=600) as client:
            yield Boxed(client)
        server.should_exit = True
        thread.join()


def questions(tofu: Path | None) -> list[tuple[str, str]]:
    """(question, answer), each question once."""
    found = [(WORDINGS[0].format(country), capital) for country, capital in CAPITALS.items()]
    if tofu is not None:
        lines = (tofu / "world_facts_perturbed.json").read_text(encoding="utf-8").splitlines()
        found += [(row["question"], row["answer"]) for row in map(json.loads, lines)]
    return list(dict(found).items())


def forgotten(
    asked: list[tuple[str, str]], said: dict[str, str]
) -> tuple[list[dict[str, Any]], list[tuple[str, str]], list[str]]:
    """Rules, forgotten questions with answers (other wordings too), and the countries; all known to the model."""
    rules: list[dict[str, Any]] = []
    gone: list[tuple[str, str]] = []
    known = [c for c in WANTED if knows(said[WORDINGS[0].format(c)], CAPITALS[c])][:5]
    for country in known:
        rules += [{"question": ["capital", country]}, {"question": country, "answer": CAPITALS[country]}]
        further = [q for q, a in asked if normal_form(country) in normal_form(q) and knows(a, CAPITALS[country])]
        worded = [wording.format(country) for wording in WORDINGS]
        gone += [(q, CAPITALS[country]) for q in dict.fromkeys([*worded, *further])]
    others = 0
    for key, answer in FACTS:
        about = [
            (q, a)
            for q, a in asked
            if normal_form(key) in normal_form(q) and knows(a, answer) and knows(said[q], answer)
        ]
        if about and others < 4:
            rules.append({"question": key, "answer": answer})
            gone += [(q, answer) for q, _ in about]
            others += 1
    return rules, gone, known


def run(folder: str, tofu: Path | None, paired: int) -> dict[str, Any]:
    """All measurements, JSON-able."""
    torch.set_num_threads(1)
    bare = Bare(LanguageModel.load(folder))
    asked = questions(tofu)
    said = dict(zip([q for q, _ in asked], bare.many([q for q, _ in asked]), strict=True))
    rules, gone, countries = forgotten(asked, said)
    retained = [(q, a) for q, a in asked if q not in dict(gone)]
    near = [wording.format(c) for c in countries for wording in NEAR]
    before = dict(zip([q for q, _ in gone], bare.many([q for q, _ in gone]), strict=True))
    beside = dict(zip(near, bare.many(near), strict=True))
    heard: dict[str, str] = {}
    with served(bare.model, rules) as boxed:
        for number, question in enumerate([*before, *near, *dict(retained)], 1):
            heard[question] = boxed.timed(question)[0]
            if number % 50 == 0:
                print(f"{number} asked", flush=True)

        def same(question: str, alone: str) -> bool:
            """As the bare model's; where padding in the batch may have tipped a tie, it is asked alone."""
            return heard[question] == alone or heard[question] == bare.timed(question)[0]

        kept = [same(q, said[q]) for q, _ in retained]
        kept_near = [same(q, beside[q]) for q in near]
        first = [q for q, _ in retained][:: max(1, len(retained) // paired)][:paired]
        turns = [(bare.timed(q), boxed.timed(q)) for q in first]
    return {
        "model": "SmolLM2-135M-Instruct",
        "rules": len(rules),
        "forget, told by the bare model": share([knows(before[q], a) for q, a in gone]),
        "forget, told by the box": share([knows(heard[q], a) for q, a in gone]),
        "forget as asked, told by the box": share([knows(heard[q], a) for q, a in gone if q in said]),
        "retain, right by the bare model": share([knows(said[q], a) for q, a in retained]),
        "retain, right by the box": share([knows(heard[q], a) for q, a in retained]),
        "false blocks, other questions": share([not k for k in kept]),
        "false blocks, about the same countries": share([not k for k in kept_near]),
        "false blocks, all": share([not k for k in kept + kept_near]),
        "falsely blocked": [
            {"question": q, "bare": {**said, **beside}[q], "box": heard[q]}
            for q, k in zip([*dict(retained), *near], kept + kept_near, strict=True)
            if not k
        ],
        "latency": {
            name: {
                "bare_seconds": statistics.median(b[k] for b, _ in turns),
                "boxed_seconds": statistics.median(x[k] for _, x in turns),
                "ratio": statistics.median(x[k] / b[k] for b, x in turns),
                "n": len(turns),
            }
            for k, name in ((1, "first piece"), (2, "whole answer"), (3, "processor"))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tofu", type=Path)
    parser.add_argument("--paired", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = run(options.model, options.tofu, options.paired)
    print(json.dumps(found, indent=1, ensure_ascii=False))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
