"""What is done to files, learners and models: rows go, nothing else does, and a killed run ends as one that was not."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from desk_tools import APPROVER, SECOND, Bench

from expunge.audit.keys import owner
from expunge.audit.verify import verify
from expunge.errors import Conflict, RequestError
from expunge.exact import learn
from expunge.service.carry import KINDS
from expunge.service.carry.contract import Hands, Work, matching
from expunge.service.carry.dataset import Dataset
from expunge.service.maintenance import Maintenance
from expunge.service.registry import Target
from expunge.service.service import Service

ROWS = [
    ("r0", "ann", 'a "quoted", cell'),
    ("r1", "bob", "two\nlines"),
    ("r2", "ann", "ünïcode"),
    ("r3", "", "nobody's"),
]


def hands(service: Service) -> Hands:
    return Hands(
        home=service.home, keys=service.keys, identities=service.identities, at=datetime(2026, 3, 2, tzinfo=UTC)
    )


def work(service: Service, name: str, *records: str) -> Work:
    return Work(
        request_id=f"req_{name}",
        regime="gdpr",
        due_at="2026-04-03T00:00:00.000000Z",
        tokens=frozenset(service.identities.tokens(name)),
        records=frozenset(service.identities.record_tokens(r)[-1] for r in records),
    )


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"rows{suffix}"
    if suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "owner", "text"), *ROWS])
    elif suffix == ".jsonl":
        lines = [json.dumps({"id": i, "owner": o or None, "text": t}, ensure_ascii=False) for i, o, t in ROWS]
        path.write_text("\n".join(lines), encoding="utf-8")  # the last line has no end
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"id": [r[0] for r in ROWS], "owner": [r[1] or None for r in ROWS], "text": [r[2] for r in ROWS]}
        pq.write_table(pa.table(columns), path)
    return path


def texts(path: Path) -> list[str]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [row["text"] for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    import pyarrow.parquet as pq

    return pq.read_table(path)["text"].to_pylist()


def target(path: Path, **options: str) -> Target:
    return Target(id="rows", name="rows", version="1", kind="dataset", location=str(path), options=options)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_of_an_owner_leave_a_file_and_the_others_stay_as_they_are(
    suffix: str, tmp_path: Path, bench: Bench
) -> None:
    path, service = written(tmp_path, suffix), bench.service
    place = target(path, owner="owner", id="id")
    index = Dataset().index(place)
    assert dict(index.owners) == {"ann": 2, "bob": 1} and index.rows == 4
    works = [work(service, "ann"), work(service, "zoe")]
    outcome = Dataset().carry_out(hands(service), place, "exact", "batch_1", works)
    assert dict(outcome.rows) == {"req_ann": 2, "req_zoe": 0}
    assert texts(path) == ["two\nlines", "nobody's"]
    assert Dataset().check(hands(service), place, "exact", works, outcome)["rows"] == 2
    again = Dataset().carry_out(hands(service), place, "exact", "batch_1", works)
    assert dict(again.rows) == {"req_ann": 0, "req_zoe": 0} and again.evidence == outcome.evidence
    assert sorted(p.name for p in tmp_path.glob("*rows*") if not p.name.endswith(".lock")) == [f"rows{suffix}"]


def test_single_records_of_an_owner(tmp_path: Path, bench: Bench) -> None:
    path = written(tmp_path, ".csv")
    place = target(path, owner="owner", id="id")
    outcome = Dataset().carry_out(hands(bench.service), place, "exact", "b", [work(bench.service, "ann", "r2", "r1")])
    assert dict(outcome.rows) == {"req_ann": 1}  # r1 is not hers
    assert texts(path) == [ROWS[0][2], ROWS[1][2], ROWS[3][2]]


def test_killed_after_the_rename_leaves_no_old_file(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from expunge.service.carry import dataset

    path = written(tmp_path, ".csv")
    place, works = target(path, owner="owner", id="id"), [work(bench.service, "ann")]
    destroy, calls = dataset.destroy, []

    def killed(old: Path) -> None:
        calls.append(old)
        if len(calls) == 2:
            raise KeyboardInterrupt
        destroy(old)

    monkeypatch.setattr(dataset, "destroy", killed)
    with pytest.raises(KeyboardInterrupt):
        Dataset().carry_out(hands(bench.service), place, "exact", "b", works)
    assert (tmp_path / ".rows.csv.superseded").exists() and len(texts(path)) == 2
    Dataset().carry_out(hands(bench.service), place, "exact", "b", works)
    assert not (tmp_path / ".rows.csv.superseded").exists() and len(texts(path)) == 2


def test_rows_that_came_back_are_a_conflict(tmp_path: Path, bench: Bench) -> None:
    path = written(tmp_path, ".csv")
    place, works = target(path, owner="owner", id="id"), [work(bench.service, "ann")]
    outcome = Dataset().carry_out(hands(bench.service), place, "exact", "b", works)
    written(tmp_path, ".csv")
    with pytest.raises(Conflict, match="2 rows"):
        Dataset().check(hands(bench.service), place, "exact", works, outcome)


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("rows.csv", {}, "not named"),
        ("rows.csv", {"owner": "who"}, "no column 'who'"),
        ("rows.csv", {"owner": "owner", "id": "key"}, "no column 'key'"),
        ("rows.xls", {"owner": "owner"}, "no form of rows"),
        ("none.csv", {"owner": "owner"}, "not there"),
    ],
)
def test_files_that_cannot_be_served(name: str, options: dict, why: str, tmp_path: Path) -> None:
    written(tmp_path, ".csv")
    (tmp_path / "rows.xls").write_bytes(b"x")
    with pytest.raises(RequestError, match=why):
        Dataset().index(target(tmp_path / name, **options))


def test_matching_hashes_owners_and_never_mistakes_one_for_another(bench: Bench) -> None:
    identities = bench.service.identities
    works = [work(bench.service, "ann"), work(bench.service, "bob")]
    identities.rotate()  # the works were filed under the old key
    rows = [("1", "ann"), ("2", "Ann"), ("3", "bob "), ("4", None), ("5", "annb")]
    assert matching(identities, works, rows) == {"req_ann": ["1"], "req_bob": ["3"]}


# --- a learner's folder -----------------------------------------------------------------------------------------------


@pytest.fixture
def learner(tmp_path: Path, bench: Bench) -> Target:
    path = tmp_path / "clicks.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "user", "x", "y"])
        writer.writerows((f"c{n}", f"user-{n % 6}", n % 5, n % 2) for n in range(60))
    columns = {"id": "key", "owner": "user", "label": "y"}
    learn("naive_bayes", str(path), tmp_path / "model", settings={}, columns=columns, keys=bench.service.keys)
    return Target(id="clf", name="clf", version="1", kind="learner", location=str(tmp_path / "model"))


def test_a_learner_forgets_and_its_own_certificate_passes(learner: Target, bench: Bench) -> None:
    service = bench.service
    made = service.registry.register(learner)
    assert made.options["rows"] == 60 and made.options["guarantee"] == {"exact": "exact"}
    assert [t.rows for t in service.registry.reach(service.identities.tokens("user-3"))[0]] == [10]
    works = [work(service, "user-3"), work(service, "nobody")]
    kind = KINDS["learner"]
    outcome = kind.carry_out(hands(service), learner, "exact", "batch_x", works)
    assert dict(outcome.rows) == {"req_user-3": 10, "req_nobody": 0}
    assert outcome.guarantee["class"] == "exact"
    told = kind.check(hands(service), learner, "exact", works, outcome)
    assert told == {"rows left of the subjects": 0, "the learner's certificate": "pass"}
    (_, path, _) = outcome.evidence[0]
    verdict = verify(path, keys=service.keys.trusted)
    assert verdict.outcome == "pass" and "batch_x" in verdict.says["requestIds"]


def test_a_learner_killed_before_its_outcome_was_written_is_not_asked_twice(learner: Target, bench: Bench) -> None:
    service, kind = bench.service, KINDS["learner"]
    works = [work(service, "user-3")]
    first = kind.carry_out(hands(service), learner, "exact", "batch_x", works)
    second = kind.carry_out(hands(service), learner, "exact", "batch_x", works)
    assert first.evidence == second.evidence
    assert dict(second.rows) == {"req_user-3": -1}  # it was done, and how many they were is not known any more
    assert len(list((Path(learner.location) / "audit" / "certificates").iterdir())) == 1


def test_a_learner_killed_while_forgetting_is_finished(
    learner: Target, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from expunge.audit import custody

    def stop(name: str) -> None:
        if name == "forgetting logged":
            raise KeyboardInterrupt

    service, kind, works = bench.service, KINDS["learner"], [work(bench.service, "user-3")]
    with monkeypatch.context() as patched:
        patched.setattr(custody, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            kind.carry_out(hands(service), learner, "exact", "batch_x", works)
    outcome = kind.carry_out(hands(service), learner, "exact", "batch_x", works)
    assert kind.check(hands(service), learner, "exact", works, outcome)["the learner's certificate"] == "pass"


def test_owners_keys_go_when_the_policy_says_so(learner: Target, bench: Bench) -> None:
    service = bench.service
    service.registry.register(learner)
    filed = bench.file("user-3", scope={"targets": ["clf"]})
    bench.desk.approve(APPROVER, filed)
    assert bench.status(filed) == "verified"  # a sixth of the rows: two approvers
    bench.desk.approve(SECOND, filed)
    bench.clock.advance(timedelta(days=31))
    bench.work()
    assert bench.status(filed) == "fulfilled" and service.keys.holds(owner("user-3"))
    bench.clock.advance(timedelta(days=29))
    Maintenance(service).destroy_keys()
    assert service.keys.holds(owner("user-3"))
    bench.clock.advance(timedelta(days=2))
    assert Maintenance(service).destroy_keys() == 1
    assert not service.keys.holds(owner("user-3")) and service.keys.holds(owner("user-4"))
    assert service.suppression.blocked(["user-3"]) == [True]


def test_folders_that_are_no_learners_are_refused(tmp_path: Path, bench: Bench) -> None:
    kind = KINDS["learner"]
    with pytest.raises(RequestError, match="no learner"):
        kind.index(Target(id="x", name="x", version="1", kind="learner", location=str(tmp_path)))
    path = tmp_path / "c.csv"
    path.write_text("key,x,y\n" + "".join(f"k{n},{n},{n % 2}\n" for n in range(20)))
    learn("naive_bayes", str(path), tmp_path / "bare", settings={}, columns={"id": "key", "label": "y"})
    with pytest.raises(RequestError, match="no keys"):
        kind.index(Target(id="x", name="x", version="1", kind="learner", location=str(tmp_path / "bare")))


# --- a model trained in any way ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trained_model_forgets_everybody_who_asked_so_far(tmp_path: Path, bench: Bench) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "user", "a", "b", "y"])
        for n in range(240):
            y = n % 2
            writer.writerow([f"c{n}", f"user-{n % 12}", *np.round(random.normal(y, 1, 2), 3).tolist(), f"class {y}"])
    request = {
        "id": "template",
        "data": {"source": str(path), "id": "key", "owner": "user", "label": "y"},
        "model": {"factory": "expunge.models.architectures:mlp", "kwargs": {"features": 2, "classes": 2},
                  "trainer": {"epochs": 4}},
        "forget": {"owners": ["user-0"]},
        "method": "finetune",
        "evaluation": {"references": 2},
    }  # fmt: skip
    (tmp_path / "request.yaml").write_text(json.dumps(request))
    place = Target(id="mlp", name="mlp", version="1", kind="trained", location=str(tmp_path / "request.yaml"))
    service, kind = bench.service, KINDS["trained"]
    assert service.registry.register(place).options["guarantee"] == {"approximate": "empirical"}
    first = kind.carry_out(hands(service), place, "approximate", "batch_1", [work(service, "user-3")])
    second = kind.carry_out(hands(service), place, "approximate", "batch_2", [work(service, "user-5")])
    assert first.guarantee == {"class": "empirical"} and 0 < first.rows["req_user-3"] <= 20
    ids = json.loads((service.home / "runs" / "mlp" / "batch_2" / "batch.json").read_text())["ids"]
    assert len(ids) == first.rows["req_user-3"] + second.rows["req_user-5"]
    assert json.loads((service.home / "runs" / "mlp" / "batch_2" / "report.json").read_text())["rows"]
    again = kind.carry_out(hands(service), place, "approximate", "batch_2", [work(service, "user-5")])
    assert again.evidence == second.evidence
    assert kind.check(hands(service), place, "approximate", [work(service, "user-5")], second)
