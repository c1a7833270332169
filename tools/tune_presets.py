"""Tune every method on language models for the small model of `expunge bench people`, and keep the best trial of each.

    python tools/tune_presets.py OUT [--trials 12] [--first 0] [--methods all] [--processes 0]

Each method gets the same number of trials, on other people (another seed) than the benchmark's, and no trial is judged
by a retrained model. The result goes to src/expunge/evaluation/benchmarks/presets.json. With --first K the trials
before the K-th count as done: the preset that is kept stays unless a later trial is better.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.environment import environment
from expunge.evaluation.benchmarks.challenge import cores
from expunge.evaluation.benchmarks.language import PRESETS, chosen_methods
from expunge.evaluation.language.plan import ModelPlan, StudyPlan, people_model
from expunge.evaluation.language.study import Study
from expunge.evaluation.language.tuning import PROBES, TUNED_ON, best_of, distinct, judge
from expunge.progress import progress_bars
from expunge.training.files import read_json, write_json
from expunge.training.workers import Workers


def tune(out: Path, names: list[str], first: int, trials: int, processes: int) -> dict[str, list[dict[str, Any]]]:
    """What each trial of each method was worth; trials of equal hyper-parameters are the same run, made once."""
    data = {"name": "people", **TUNED_ON}
    made = StudyPlan(data=data, model=ModelPlan(original="none")).benchmark()
    drawn = {name: distinct(name, first, trials) for name in names}
    methods = tuple((f"{name}~{k}", name, given) for name, each in drawn.items() for k, given in each.items())
    plan = StudyPlan(
        data=data, model=people_model(made, count=0), methods=methods, seeds=1, probes=PROBES, keep_models=False
    )
    with Workers(processes or cores()) as workers, progress_bars() as progress:
        study = Study(plan, out, workers, progress)
        study.carry_out()
    original = study.recorded("original")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for name, each in drawn.items():
        for k, parameters in each.items():
            outcome = read_json(out / "outcomes" / f"{name}~{k}-0.json")
            told: dict[str, Any] = {"score": -1.0, "reason": outcome.get("cause")}
            if outcome["status"] == "ok":
                told = {**judge(study.recorded(f"{name}~{k}-0"), original), "seconds": outcome["seconds"]}
            found[name].append({"trial": k, "parameters": parameters, **told})
    return found


def keep(kept: dict[str, Any], name: str, told: list[Mapping[str, Any]], first: int, trials: int) -> None:
    """Put the best trial of a method among the presets."""
    before = kept["judged"].get(name) if first else None
    if first and before is None:
        raise SystemExit(f"{name} has no preset of the first {first} trials: tune it with --first 0")
    known = [] if before is None else [{**before, "parameters": kept["methods"].get(name, {})}]
    best = dict(best_of([*known, *told]))
    parameters = best.pop("parameters")
    if best["score"] >= 0:
        kept["methods"][name] = parameters
    else:
        kept["methods"].pop(name, None)
    kept["judged"][name] = {**best, "trials": trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--methods", default="all")
    parser.add_argument("--processes", type=int, default=0)
    given = parser.parse_args()
    names = [name for _, name, _ in chosen_methods(given.methods, {})]
    told = tune(given.out, names, given.first, given.trials, given.processes)
    kept = read_json(PRESETS) if PRESETS.exists() else {"methods": {}, "judged": {}}
    for name in names:
        keep(kept, name, told[name], given.first, given.trials)
    kept.pop("trials", None)
    kept |= {"tuned_on": dict(TUNED_ON), "environment": dict(environment())}
    kept["methods"] = dict(sorted(kept["methods"].items()))
    kept["judged"] = dict(sorted(kept["judged"].items()))
    write_json(PRESETS, kept)


if __name__ == "__main__":
    main()
