"""A year of requests over small real targets, so that the dashboard has something real to show.

The people, their rows and their requests are made up by a seed; the classifier in shards, the adapters of a language
model, the file of accounts, the runs, the certificates and the log are what a service makes of them. Only the clock is
turned: the year passes as fast as the work can be done.
"""

from __future__ import annotations

import csv
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.errors import ExpungeError
from expunge.service.clock import FixedClock
from expunge.service.entities import Actor, Filing
from expunge.service.policy import Policy, Serving
from expunge.service.registry import Target
from expunge.service.service import Service, open_service
from expunge.training.chunks import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

PEOPLE, MODELLED = 1200, 40
DAYS, REQUESTS = 365, 260
OPERATOR = Actor(id="demo-operator", role="operator")
APPROVER = Actor(id="demo-approver", role="approver")
POLICY = Policy(serving=Serving(rule="batched", margin_hours=48.0, cost_per_hour=2.5))


def make_year(home: Path, *, seed: int = 0, today: datetime | None = None, progress: Progress | None = None) -> Service:
    """A service in `home` whose last year is behind it; a folder that has one is opened as it is.

    Args:
        today: where the year ends, aware; now by default.
    """
    end = (today or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    if (home / "year.json").exists():
        return open_service(home, policy=POLICY)
    if home.exists():
        shutil.rmtree(home)  # of a demo that was interrupted
    clock = FixedClock(end - timedelta(days=DAYS))
    service = open_service(home, policy=POLICY, clock=clock)
    names = [f"account-{n:04d}" for n in range(PEOPLE)]
    _targets(service, home / "targets", names, seed)
    random = np.random.default_rng(seed)
    arrivals = np.sort(random.uniform(0, DAYS, REQUESTS))
    who = random.permutation(PEOPLE)[:REQUESTS]
    who[:12] = np.arange(12)  # of those whom the models learned from, a dozen leave
    random.shuffle(who)
    filed = 0
    for day in range(DAYS):
        clock.at = end - timedelta(days=DAYS - day)
        while filed < REQUESTS and arrivals[filed] < day + 1:
            _one(service, names[int(who[filed])], random)
            filed += 1
        _decide(service, random)
        _work(service)
        if progress is not None and day % 5 == 0:
            progress("a year of requests", day, DAYS)
    service.close()
    (home / "policy.yaml").write_text(json.dumps(POLICY.model_dump(mode="json"), indent=1), encoding="utf-8")
    (home / "year.json").write_text(json.dumps({"seed": seed, "end": end.isoformat()}), encoding="utf-8")
    return open_service(home, policy=POLICY)


def _targets(service: Service, folder: Path, names: Sequence[str], seed: int) -> None:
    """A file of accounts, a classifier in shards and a language model's adapters that learned from some of them."""
    from expunge.exact import learn

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed + 1)
    accounts = folder / "accounts.csv"
    with accounts.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["entry", "account", "visits", "spent", "stays"])
        for number, name in enumerate(names):
            for k in range(2):
                visits, spent = int(random.poisson(9)), round(float(random.gamma(2, 40)), 2)
                writer.writerow([f"r{2 * number + k}", name, visits, spent, "yes" if visits > 8 else "no"])
    learned = folder / "learned.csv"
    with learned.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["entry", "account", "visits", "spent", "stays"])
        for n in range(20 * MODELLED):
            visits = int(random.poisson(9))
            stays = "yes" if visits > 8 else "no"
            writer.writerow([f"m{n}", names[n % MODELLED], visits, float(random.gamma(2, 40)), stays])
    notes = folder / "notes.jsonl"
    with notes.open("w", encoding="utf-8") as file:
        for n in range(2 * MODELLED):
            row = {"id": f"t{n}", "owner": names[n % MODELLED], "question": f"what did {n} say", "answer": f"note {n}"}
            file.write(json.dumps(row) + "\n")
    base = _base(folder / "base")
    learn("sisa", str(learned), folder / "classifier", settings={"shards": 8, "sharding": "owner"}, architecture="mlp",
          epochs=3, columns={"id": "entry", "owner": "account", "label": "stays"}, keys=service.keys)  # fmt: skip
    learn("sharded_adapters", str(notes), folder / "assistant",
          settings={"base": str(base), "sharding": "owner", "shards": 4, "rank": 2, "targets": ["q_proj", "v_proj"]},
          epochs=1, keys=service.keys)  # fmt: skip
    register = service.registry.register
    register(Target(id="accounts", name="Accounts", version="2026", kind="dataset", location=str(accounts),
                    options={"owner": "account", "id": "entry"}))  # fmt: skip
    register(Target(id="churn", name="Churn classifier, 8 shards", version="3", kind="learner",
                    location=str(folder / "classifier"), made_from=("accounts",)))  # fmt: skip
    register(Target(id="assistant", name="Assistant, 4 adapters", version="1", kind="learner",
                    location=str(folder / "assistant"), made_from=("accounts",)))  # fmt: skip
    register(Target(id="churn-mobile", name="Churn classifier, distilled for phones", version="1", kind="other",
                    location="phones", parent="churn"))  # fmt: skip


def _base(folder: Path) -> Path:
    """A base model that has seen nobody: small, and untrained, for what is shown here is not what it says."""
    import torch

    from expunge.models.language import LanguageModel
    from expunge.models.template import Template
    from expunge.models.tiny import tiny_llama, train_tokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = tiny_llama(vocabulary=259, width=16, layers=2, heads=2, hidden=16, context=64)
    LanguageModel(module, train_tokenizer(["a"], 259), Template(prompt="{prompt}")).save(folder)
    return folder


def _one(service: Service, name: str, random: Any) -> None:
    """Somebody asks: mostly for privacy, mostly under the GDPR, mostly verified."""
    service.desk.file(
        OPERATOR,
        Filing(
            identity=name,
            reason=str(random.choice(["privacy", "correction", "staleness"], p=[0.86, 0.09, 0.05])),
            regime=str(random.choice(["gdpr", "ccpa", "uk_gdpr"], p=[0.6, 0.28, 0.12])),
            external_id=f"ticket-{int(random.integers(10_000, 99_999))}",
            verified=bool(random.random() < 0.93),
        ),
    )


def _decide(service: Service, random: Any) -> None:
    """Each morning the office looks at what waits: approves, and now and then denies, extends, holds."""
    from expunge.service.entities import Filter, Page

    desk = service.desk
    for request in desk.list(OPERATOR, Filter(status=("verified",)), Page(limit=500)).items:
        draw = random.random()
        try:
            if draw < 0.04:
                desk.deny(APPROVER, request.id, "claim_not_covered" if random.random() < 0.5 else "insuf_verification")
            elif draw < 0.06:
                desk.hold(OPERATOR, request.id, "preserved for a dispute")
            elif draw < 0.08 and request.extended_at is None:
                desk.extend(OPERATOR, request.id, "more requests than usual")
            elif draw < 0.85:
                desk.approve(APPROVER, request.id)
        except ExpungeError:
            continue
    for request in desk.list(OPERATOR, Filter(status=("paused",)), Page(limit=50)).items:
        if random.random() < 0.03:
            desk.release(APPROVER, request.id)


def _work(service: Service) -> None:
    from expunge.service.work import STEPS

    while service.work.plan_approved():
        pass
    for batch_id in service.work.batches_due():
        for step in STEPS:
            getattr(service.work, step)(batch_id)
