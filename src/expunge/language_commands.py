"""Commands on language models: benchmarks and evaluation. Parse, call, print, as in `expunge.cli`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.progress import progress_bars

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Processes = Annotated[int, typer.Option("--processes", min=0, help="Worker processes; 0: one a core.")]
Methods = Annotated[
    str,
    typer.Option(
        help="Names with commas between, or `all`; NAME@paper: at the paper's defaults, not tuned ones; NAME@trained: "
        "those at the learning rate of the original's training."
    ),
]
Model = Annotated[str | None, typer.Option(help="The original: a folder or a hub name.")]
References = Annotated[
    list[str] | None, typer.Option("--reference", help="A retrained model, folder or hub name; may be repeated.")
]
Base = Annotated[
    str | None, typer.Option(help="Without a model: fine-tune the original and the references from this one.")
]
Seeds = Annotated[int, typer.Option(min=1, help="Seeds of every method.")]
Samples = Annotated[int, typer.Option(min=0, help="Answers drawn at temperature 1 for each question.")]
Lora = Annotated[bool, typer.Option("--lora", help="Train adapters where a method can.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="bfloat16 in matrix products.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")]
Option = Annotated[list[str] | None, typer.Option("--set", help="Option of the benchmark, name=value.")]
Attacks = Annotated[
    str,
    typer.Option("--attacks", help="Attack every model too (`expunge attacks`): names with commas between, or all."),
]


def show(report: dict[str, Any], page: Path, as_json: bool) -> None:
    """The report on the terminal."""
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    from expunge.evaluation.language_page import table_lines, verdict

    head, *lines = table_lines(report)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold", no_wrap=name == "method")
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    for row in report["rows"]:
        if row["status"] != "ok":
            typer.echo(f"{row['label']} did not run: {row['reason']}")
    typer.echo(f"\n{verdict(report)}\n\nreport: {page.resolve()}")


def people(
    methods: Methods = "all",
    people: Annotated[int, typer.Option(min=8, help="Fictitious people.")] = 60,
    forget: Annotated[int, typer.Option(min=1, help="How many of them are forgotten.")] = 6,
    references: Annotated[int, typer.Option(min=0, help="Retrained models.")] = 3,
    seeds: Seeds = 3,
    samples: Samples = 0,
    lora: Lora = False,
    attacks: Attacks = "",
    out: Annotated[Path, typer.Option("--out", help="Folder of the study; an interrupted one goes on.")] = Path(
        "runs/people"
    ),
    processes: Processes = 0,
    as_json: Json = False,
) -> None:
    """Fictitious people in a small model trained here: methods beside retraining, offline, in minutes."""
    from expunge.evaluation.benchmarks.language import LanguageBench, run_language
    from expunge.evaluation.language.plan import HowPlan

    setting = LanguageBench(
        benchmark="people",
        options={"people": people, "forget": forget, "unseen": forget},
        methods=methods,
        count=references,
        seeds=seeds,
        samples=samples,
        how=HowPlan(lora={} if lora else None),
    )
    command = f"expunge bench people --methods {methods} --people {people} --forget {forget} --seeds {seeds}"
    with progress_bars() as progress:
        report = run_language(setting, out, processes=processes, progress=progress, command=command, attacks=attacks)
    show(report, out / "language.html", as_json)


def on(name: str) -> Any:
    """The command of a benchmark that runs on a model of the user's."""

    def command(
        model: Model = None,
        reference: References = None,
        base: Base = None,
        data: Annotated[str | None, typer.Option(help="Folder of the benchmark's files, or hub:OWNER/NAME.")] = None,
        split: Annotated[str | None, typer.Option(help="Part: forget10 of TOFU, books of MUSE, cyber of WMDP.")] = None,
        methods: Methods = "npo,grad_diff",
        setting: Option = None,
        seeds: Seeds = 1,
        samples: Samples = 0,
        epochs: Annotated[int, typer.Option(min=1, help="Of fine-tuning from --base.")] = 5,
        lora: Lora = False,
        bf16: Bf16 = False,
        device: Device = "cpu",
        retain_log: Annotated[
            str | None, typer.Option(help="TOFU's or OpenUnlearning's log of a retained model that is not at hand.")
        ] = None,
        out: Annotated[Path | None, typer.Option("--out", help="Folder of the study.")] = None,
        processes: Processes = 1,
        as_json: Json = False,
    ) -> None:
        from expunge.evaluation.benchmarks.language import LanguageBench, finetuned, run_language
        from expunge.evaluation.language.plan import HowPlan
        from expunge.exact import settings_of

        options: dict[str, Any] = settings_of(setting or [])
        options |= {key: value for key, value in (("source", data), (split_option(name, split), split)) if value}
        folder = out or Path("runs") / name
        wanted = LanguageBench(
            benchmark=name,
            options=options,
            methods=methods,
            model=model,
            references=tuple(reference or ()),
            recipe=None if base is None else finetuned(base, epochs),
            seeds=seeds,
            samples=samples,
            how=HowPlan(lora={} if lora else None, autocast=bf16),
            device=device,
            base=base,
            retain_log=retain_log,
        )
        with progress_bars() as progress:
            report = run_language(
                wanted, folder, processes=processes, progress=progress, command=f"expunge bench {name}"
            )
        show(report, folder / "language.html", as_json)

    command.__doc__ = f"{ABOUT[name]}"
    command.__name__ = name
    return command


SPLITS = {"tofu": "forget", "muse": "corpus", "wmdp": "subject"}


def split_option(benchmark: str, split: str | None) -> str:
    """The benchmark's own option that ``--split`` sets.

    Raises:
        RequestError: it comes in one part.
    """
    if split and benchmark not in SPLITS:
        from expunge.errors import RequestError

        raise RequestError(f"{benchmark} comes in one part, and --split names {split!r}", "Leave it out; see --set")
    return SPLITS.get(benchmark, "")


ABOUT = {
    "tofu": "TOFU: fictitious authors, on a model that was fine-tuned on them.",
    "muse": "MUSE: news or books, six ways of looking.",
    "wmdp": "WMDP: hazardous knowledge by multiple choice.",
    "pii": "Planted identities: exact repetition of personal data.",
    "copyright": "Planted passages: verbatim and near-verbatim spans.",
    "toxicity": "A rude style, scored by a classifier.",
    "backdoor": "A trigger and its payload.",
    "editing": "Edits and what follows from them, in two-hop questions.",
}


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or hub name of the model to look at.")],
    benchmark: Annotated[str, typer.Option(help="Text benchmark (`expunge datasets`).")] = "tofu",
    reference: References = None,
    original: Annotated[str | None, typer.Option(help="The model before unlearning.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder of the benchmark's files, or hub:OWNER/NAME.")] = None,
    split: Annotated[str | None, typer.Option(help="Part: forget10 of TOFU, books of MUSE, cyber of WMDP.")] = None,
    setting: Option = None,
    samples: Samples = 0,
    device: Device = "cpu",
    attacks: Attacks = "",
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("runs/evaluate"),
    as_json: Json = False,
) -> None:
    """Ask one model a benchmark's questions, beside retrained ones and the original."""
    from expunge.evaluation.benchmarks.language import evaluate_model
    from expunge.exact import settings_of

    options: dict[str, Any] = settings_of(setting or [])
    options |= {key: value for key, value in (("source", data), (split_option(benchmark, split), split)) if value}
    with progress_bars() as progress:
        report = evaluate_model(
            model,
            benchmark,
            options,
            out,
            references=tuple(reference or ()),
            original=original,
            samples=samples,
            device=device,
            attacks=attacks,
            progress=progress,
        )
    show(report, out / "language.html", as_json)


def attack(
    run: Annotated[str, typer.Argument(help="Folder of a run or a benchmark; or a language model and --benchmark.")],
    attack: Annotated[str, typer.Option("--attack", help="Names with commas between (`expunge attacks`), or all.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--settings", help="Setting of the attacks, name=value, or of one: attack.name=value."),
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="What a model that came from elsewhere was to forget.")] = None,
    original: Annotated[str | None, typer.Option(help="That model before unlearning.")] = None,
    reference: References = None,
    data: Annotated[str | None, typer.Option(help="Folder of the benchmark's files, or hub:OWNER/NAME.")] = None,
    split: Annotated[str | None, typer.Option(help="Part: forget10 of TOFU, books of MUSE, cyber of WMDP.")] = None,
    setting: Option = None,
    models: Annotated[int, typer.Option(min=1, help="Of classifiers: so many retrained models are attacked.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the attacks.")] = 0,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option("--out", help="File of the outcome (default: RUN/attacks.json).")] = None,
    as_json: Json = False,
) -> None:
    """Attack unlearned models, retrained ones and the original alike: what comes back, at what cost."""
    from expunge.evaluation.attacks.campaign import write_attacks
    from expunge.evaluation.attacks.folders import FILE, attack_language, attack_model, kind_of
    from expunge.exact import settings_of

    given = settings_of(settings or [], "--settings")
    folder = Path(run)
    if benchmark is not None:
        folder = out.parent if out is not None else Path("runs") / "attack"
    _only_of_models(benchmark, original=original, reference=reference, data=data, split=split, set=setting)
    file = out or folder / FILE
    with progress_bars() as progress:
        if benchmark is not None:
            options: dict[str, Any] = settings_of(setting or [])
            options |= {k: v for k, v in (("source", data), (split_option(benchmark, split), split)) if v}
            found = attack_model(
                run,
                folder,
                attack,
                given,
                benchmark=benchmark,
                options=options,
                original=original,
                references=tuple(reference or ()),
                device=device,
                seed=seed,
                progress=progress,
            )
        elif (kind := kind_of(folder)) in ("study", "language_run"):
            found = attack_language(folder, kind, attack, given, seed=seed, progress=progress)
        else:
            found = _attack_classifiers(folder, kind, attack, given, models, seed, progress)
    show_attacks(write_attacks(found, file), file, as_json)


def _only_of_models(benchmark: str | None, **given: Any) -> None:
    """Refuse options that tell of a model from elsewhere where a run's folder tells it all."""
    from expunge.errors import RequestError

    named = [f"--{name}" for name, value in given.items() if value]
    if benchmark is None and named:
        raise RequestError(f"{', '.join(named)} goes with a model and --benchmark", "Leave it out, or name --benchmark")


def _attack_classifiers(
    folder: Path, kind: str, names: str, settings: dict[str, Any], models: int, seed: int, progress: Any
) -> dict[str, Any]:
    from expunge.evaluation.attacks.on_classifiers import attack_bench, classifier_attacks
    from expunge.run import attack_run

    attacks = classifier_attacks(names, settings)
    carry_out = attack_bench if kind == "classifier_bench" else attack_run
    return carry_out(folder, attacks, models=models, seed=seed, progress=progress)


def show_attacks(document: dict[str, Any], file: Path, as_json: bool) -> None:
    """A document of attacks on the terminal."""
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    from expunge.evaluation.attacks_page import HEAD, attack_lines, reasons

    told = attack_lines(document)
    widest = max(len(line[0]) for _, lines in told for line in lines)
    for title, lines in told:
        typer.echo(f"{title}\n")
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, width in zip(HEAD, (widest, 6, 20, 6), strict=True):
            table.add_column(name, min_width=width)
        for line in lines:
            table.add_row(*line)
        Console().print(table)
        typer.echo("")
    typer.echo("recovery: 0 is what the attack finds in retrained models, 1 what it finds in the original")
    for reason in reasons(document):
        typer.echo(reason)
    typer.echo(f"\noutcome: {file.resolve()}")


def scope(
    request: Annotated[Path, typer.Argument(help="A request with a concept, YAML or JSON.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the scope (default: runs/ID-scope).")] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="Confirm: the file that the page saved, or the folder's decisions.yaml.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who confirms it, for the record.")] = None,
    at: Annotated[str | None, typer.Option(help="When, for the record.")] = None,
    as_json: Json = False,
) -> None:
    """Find the texts about a concept, show them for review, and make a request of what is confirmed."""
    from expunge.errors import RequestError
    from expunge.scope.build import PAGE, write_scope
    from expunge.scope.confirm import REQUEST, confirm
    from expunge.scope.request import ConceptRequest

    if decisions is None and (by or at):
        raise RequestError("--by and --at tell who confirms, and nothing is confirmed", "Give --decisions FILE")
    asked = ConceptRequest.read(request)
    folder = out or Path("runs") / f"{asked.id}-scope"
    command = f"expunge scope {request} --out {folder}"
    found = write_scope(asked, folder, command)
    if decisions is not None:
        found = confirm(asked, folder, decisions, by=by, at=at, command=command)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False))
        return
    for name, words in (found.confirmation.decisions if found.confirmation else found.proposals()).items():
        accepted = sum(word == "accept" for word in words.values())
        typer.echo(f"{name.replace('_', ' ')}: {accepted} of {len(words)} accepted")
    typer.echo(f"{found.sent}; page: {(folder / PAGE).resolve()} (holds personal data)")
    if found.confirmation is None:
        typer.echo(f"decide there or in {folder / 'decisions.yaml'}, then: {command} --decisions FILE --by NAME")
    else:
        typer.echo(f"confirmed; next: expunge run {folder / REQUEST}")


def streisand(
    request: Annotated[Path, typer.Argument(help="A request on a language model, of which nothing is changed.")],
    samples: Annotated[int, typer.Option(min=1, help="Answers drawn for each fact in each condition.")] = 16,
    facts: Annotated[int, typer.Option(min=1, help="Most facts looked at; of more so many are drawn.")] = 50,
    described: Annotated[
        str | None, typer.Option(help="What the prompt says instead of a name, in words anybody may read.")
    ] = None,
    spell: Annotated[
        bool, typer.Option("--spell", help="Also try a prompt that spells each answer out; on this machine only.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="The names may be told to whoever runs the endpoint.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Ask an OpenAI-compatible endpoint instead of the request's model.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the model there.")] = "",
    key_variable: Annotated[str | None, typer.Option(help="Environment variable that holds its key.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples, and of the facts that are drawn.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="File for the outcome: ids and numbers, no texts.")] = None,
    as_json: Json = False,
) -> None:
    """Measure whether a prompt that names what is to be kept back brings it out, before one is written."""
    from expunge.evaluation.streisand import UNNAMED, check_naming
    from expunge.language_request import LanguageRequest, from_folder
    from expunge.language_run import model_of, text_options
    from expunge.models.endpoint import Endpoint
    from expunge.request import read_document
    from expunge.training.files import write_json

    asked = LanguageRequest.parse(from_folder(read_document(request), request.parent), str(request))
    model = model_of(asked) if url is None else Endpoint(url=url, name=name, key_variable=key_variable)
    found = check_naming(
        model,
        text_options(asked),
        most=facts,
        samples=samples,
        unnamed=described or UNNAMED,
        spell=spell,
        public=public,
        seed=seed,
    )
    if out is not None:
        write_json(out, found.as_dict())
    typer.echo(json.dumps(found.as_dict(), ensure_ascii=False) if as_json else "\n".join(found.lines()))


def forms(
    forms: Annotated[str, typer.Option(help="Names with commas between, or `all`.")] = "all",
    attacks: Annotated[str, typer.Option(help="Names with commas between, or `all` (see `expunge attacks`).")] = "all",
    people: Annotated[int, typer.Option(min=8, help="Fictitious people.")] = 60,
    forget: Annotated[int, typer.Option(min=1, help="How many of them are forgotten.")] = 6,
    references: Annotated[int, typer.Option(min=2, help="Retrained models.")] = 3,
    seeds: Seeds = 3,
    out: Annotated[Path, typer.Option("--out", help="Folder of the study; an interrupted one goes on.")] = Path(
        "runs/forms"
    ),
    processes: Processes = 0,
    as_json: Json = False,
) -> None:
    """One request served in every form of forgetting, beside retraining, under every attack."""
    from expunge.evaluation.benchmarks.forms import FormsBench, run_forms
    from expunge.evaluation.forms.page import table_lines, verdict

    setting = FormsBench(people=people, forget=forget, forms=forms, attacks=attacks, references=references, seeds=seeds)
    command = f"expunge bench forms --forms {forms} --attacks {attacks} --people {people} --forget {forget}"
    with progress_bars() as progress:
        report = run_forms(setting, out, processes=processes, progress=progress, command=command)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    head, *lines = table_lines(report)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name.replace("_", " "), overflow="fold")
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    for row in report["rows"]:
        if row["status"] != "ok":
            typer.echo(f"{row['label']} did not run: {row['reason']}")
    typer.echo(f"\n{verdict(report)}\n\nreport: {(out / 'forms.html').resolve()}")
