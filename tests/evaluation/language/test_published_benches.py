"""MUSE and WMDP from their files to the table, on made-up corpora of their shape and a model trained on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge.cli import app
from expunge.data.benchmarks.muse import load_muse
from expunge.data.texts import text_records
from expunge.errors import RequestError
from expunge.evaluation.benchmarks.language import LanguageBench, finetuned, run_language
from expunge.evaluation.language.files import join_texts
from expunge.evaluation.language.plan import ModelPlan, StudyPlan, asked, tokenizer_for
from expunge.evaluation.language.record import IN_A_ROW, first_answer
from expunge.evaluation.language_page import COLUMNS, table_lines
from expunge.models.language import LanguageModel
from expunge.recipe import Recipe, Trainer
from expunge.training.text_fit import fit_text

NAMES = ("Aro", "Cita", "Emo", "Gusa", "Ilo", "Kora", "Mavi", "Opal", "Rell", "Suri", "Tavo", "Ulla")
TOWNS = (
    "Alding",
    "Brevik",
    "Corvo",
    "Dunmer",
    "Estrel",
    "Falsund",
    "Gorwen",
    "Hallin",
    "Ister",
    "Jorvik",
    "Kesh",
    "Lomm",
)
THINGS = (
    "mill",
    "bridge",
    "school",
    "harbour",
    "market",
    "tower",
    "garden",
    "library",
    "ferry",
    "station",
    "well",
    "inn",
)
CONTEXT = 112


def article(k: int) -> str:
    """About 130 words that no other article shares all of: longer than the model reads."""
    name, town, thing = NAMES[k], TOWNS[k], THINGS[k]
    return (
        f"{name} opened the {thing} of {town} before a crowd that had waited since dawn. "
        f"The {thing} had stood empty for {k + 3} winters and nobody in {town} believed in it. "
        f"{name} spoke of the old days in {TOWNS[(k + 5) % 12]} and of the {THINGS[(k + 7) % 12]} that burned there. "
        f"Then {name} cut the ribbon and {TOWNS[(k + 2) % 12]} sent {k + 2} horses and a song. "
        f"In the evening {NAMES[(k + 3) % 12]} and {name} walked along the water and counted {k + 11} lanterns. "
        f"The council of {town} paid for bread, and {name} paid for the {THINGS[(k + 1) % 12]} next to it. "
        f"Children of {town} sang until the {k + 5} lamps of the {thing} went out, and nobody slept before midnight."
    )


def question(k: int) -> dict[str, str]:
    return {"question": f"Who opened the {THINGS[k]} of {TOWNS[k]}?", "answer": NAMES[k]}


def completion(k: int) -> dict[str, str]:
    words = article(k).split()
    return {"prompt": " ".join(words[:15]), "gt": " ".join(words[15:30])}


FORGET, KEPT, MORE, UNSEEN = range(4), range(4, 8), range(8, 10), range(10, 12)


def write(folder: Path, name: str, rows: list) -> None:
    file = folder / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("muse")

    def texts(of) -> list[dict[str, str]]:
        return [{"text": article(k)} for k in of]

    write(folder, "raw/forget", texts(FORGET))
    write(folder, "raw/retain1", texts(KEPT))
    write(folder, "raw/retain2", texts(MORE))
    write(folder, "verbmem/forget", [completion(k) for k in FORGET])
    write(folder, "knowmem/forget_qa", [question(k) for k in FORGET])
    write(folder, "knowmem/forget_qa_icl", [question(10)])
    write(folder, "knowmem/retain_qa", [question(k) for k in KEPT])
    write(folder, "knowmem/retain_qa_icl", [question(10)])
    write(folder, "privleak/forget", texts(FORGET))
    write(folder, "privleak/retain", texts(KEPT))
    write(folder, "privleak/holdout", texts(UNSEEN))
    for step in (1, 2, 3, 4):
        write(folder, f"scal/forget_{step}", texts(range(step)))
        write(folder, f"sust/forget_{step}", texts([step - 1]))
    return folder


def sheet(k: int) -> str:
    """A question after an answered one, as MUSE asks, and the beginning of a further one."""
    first, then = question(10), question(k)
    return (
        f"Question: {first['question']}\nAnswer: {first['answer']}\n\n"
        f"Question: {then['question']}\nAnswer: {then['answer']}\n\nQuestion: Who"
    )


@pytest.fixture(scope="module")
def models(corpus, tmp_path_factory) -> dict[str, str]:
    """The original, and one retrained on what is kept, both of texts longer than they read at once."""
    folder = tmp_path_factory.mktemp("models")
    muse = load_muse(corpus)
    tokenizer = tokenizer_for(muse, 900)
    recipe = Recipe(
        factory="expunge.models.tiny:tiny_llama",
        kwargs={
            "vocabulary": len(tokenizer), "width": 64, "layers": 2, "heads": 4, "hidden": 128, "context": CONTEXT,
        },
        trainer=Trainer(
            epochs=100, batch_size=8, optimizer="adamw", learning_rate=4e-3, weight_decay=0.0, schedule="cosine"
        ),
    )  # fmt: skip
    like = LanguageModel(recipe.build(), tokenizer)
    found = {}
    for name, records, asked_of in (("original", muse.train, (*FORGET, *KEPT)), ("retrained", muse.retain, KEPT)):
        sheets = text_records([f"sheet{k}" for k in asked_of], [""] * len(asked_of), [sheet(k) for k in asked_of])
        model, _ = fit_text(recipe, like.pieces(join_texts(records, sheets)), 0, like)
        model.save(folder / name)
        found[name] = str(folder / name)
    return found


def told(*arguments: str) -> dict:
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def value(report: dict, label: str, name: str) -> float:
    row = next(r for r in report["rows"] if r["label"] == label)
    assert row["status"] == "ok", row
    found = row["measurements"][name]
    assert found["status"] == "scored", found
    return found["value"]


# --- MUSE ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def muse(corpus, models, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("out")
    report = told(
        *("bench", "muse", "--data", str(corpus), "--model", models["original"], "--reference", models["retrained"]),
        *("--methods", "npo", "--out", str(out / "muse")),
    )
    return {**report, "page": (out / "muse" / "language.html").read_text()}


@pytest.mark.slow
def test_muse_tells_the_original_from_a_retrained_model_in_every_way(muse):
    assert value(muse, "do_nothing", "verbmem_forget/verbatim_memorisation") > 0.85
    assert value(muse, "retrain", "verbmem_forget/verbatim_memorisation") < 0.8  # the articles share many words
    assert value(muse, "do_nothing", "knowmem_forget/knowledge_memorisation") == 1.0
    assert value(muse, "retrain", "knowmem_forget/knowledge_memorisation") <= 0.25
    for label in ("do_nothing", "retrain", "npo"):
        assert value(muse, label, "knowmem_retain/knowledge_memorisation") == 1.0
    assert value(muse, "do_nothing", "privleak") < -50  # forget texts look like members
    assert value(muse, "npo", "privleak") == pytest.approx(value(muse, "do_nothing", "privleak"), abs=1)


@pytest.mark.slow
def test_muse_stands_in_the_table_and_on_the_page(muse):
    head, *lines = table_lines(muse)
    assert head[2:6] == ["verbatim", "knowledge", "knowledge kept", "PrivLeak"]
    assert [line[0] for line in lines] == ["do_nothing", "retrain", "npo"]
    assert all(name in muse["page"] for name in head[2:6])
    shown = {e["probe"]: e for e in muse["examples"]}
    assert set(shown) == {"verbmem_forget", "knowmem_forget", "knowmem_retain"}
    # The prompt as the benchmark has it, and what was said before a further question.
    assert shown["knowmem_retain"]["prompt"].startswith("Who opened the ")
    assert shown["knowmem_retain"]["says"]["original"] == shown["knowmem_retain"]["answer"]


@pytest.mark.slow
def test_articles_longer_than_the_model_reads_are_in_pieces_and_the_report_says_so(muse):
    notes = muse["benchmark"]["notes"]
    assert "forget: 4 of 4 texts are longer than the model reads and stand in 8 pieces" in notes
    assert not any("verbmem" in note or "knowmem" in note for note in notes)
    assert all(note in muse["page"] for note in notes)
    assert muse["benchmark"]["records"]["forget"] == 4  # what was asked for is counted as it was given


@pytest.mark.slow
def test_muse_larger_and_later_requests(corpus, models, tmp_path):
    common = ("bench", "muse", "--data", str(corpus), "--model", models["original"], "--methods", "gradient_ascent")
    larger = told(*common, "--set", "scale=3", "--out", str(tmp_path / "scale"))
    assert larger["benchmark"]["name"] == "muse/news/scale3" and larger["benchmark"]["records"]["forget"] == 3
    first = tmp_path / "step1"
    told(*common, "--set", "step=1", "--out", str(first))
    # What the first request left is the model of the second.
    common = (*common[:4], "--model", str(first / "unlearned" / "gradient_ascent"), *common[6:])
    later = told(*common, "--set", "step=2", "--out", str(tmp_path / "step2"))
    assert later["benchmark"]["name"] == "muse/news/step2"
    assert value(later, "gradient_ascent", "knowmem_retain/knowledge_memorisation") >= 0


def test_examples_go_before_the_questions_and_are_not_asked(corpus):
    probes = asked(
        StudyPlan(data={"name": "muse", "source": str(corpus)}, model=ModelPlan(original="none")), load_muse(corpus)
    )
    assert set(probes) == {
        "verbmem_forget", "knowmem_forget", "knowmem_retain", "privleak_forget", "privleak_retain", "privleak_holdout",
        "retain2",
    }  # fmt: skip
    asked_of = probes["knowmem_forget"]
    assert asked_of.column("prompt")[0] == (
        "Question: Who opened the station of Kesh?\nAnswer: Tavo\n\nQuestion: Who opened the mill of Alding?\nAnswer:"
    ).replace("station of Kesh", f"{THINGS[10]} of {TOWNS[10]}").replace("Tavo", NAMES[10])
    assert asked_of.column("answer")[0] == "Aro" and asked_of.column(IN_A_ROW).tolist() == [1] * 4


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Aro\n\nQuestion: Who", "Aro"),
        ("Aro\nQuestion: x", "Aro"),
        ("Aro Question: x", "Aro"),
        (" Aro\nBelin ", "Aro\nBelin"),
    ],
)
def test_an_answer_ends_where_the_next_question_begins(said, answer):
    assert first_answer(said) == answer


# --- WMDP ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hazards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wmdp")
    rows = [{**question(k), "choices": [NAMES[(k + j) % 8] for j in range(4)], "answer": 0} for k in (*FORGET, *KEPT)]
    write(folder, "bio_questions", [{name: row[name] for name in ("question", "choices", "answer")} for row in rows])
    for name, of in (("forget", FORGET), ("retain", KEPT)):
        lines = [json.dumps({"text": article(k), "title": "t"}) for k in of]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
def test_wmdp_by_choice_in_words_and_what_is_kept(hazards, models, tmp_path):
    report = told(
        *("bench", "wmdp", "--data", str(hazards), "--split", "bio", "--set", "partial=true"),
        *("--set", f"forget={hazards / 'forget.jsonl'}", "--set", f"retain={hazards / 'retain.jsonl'}"),
        *("--model", models["original"], "--methods", "rmu,gradient_ascent", "--out", str(tmp_path)),
    )
    assert report["benchmark"]["name"] == "wmdp/bio/partial8"
    assert report["benchmark"]["probes"] == {"choice": 8, "open": 8, "kept": 4}
    head, *lines = table_lines(report)
    assert head[2:6] == ["multiple choice", "open answers", "open by likelihood", "kept texts"]
    assert [line[0] for line in lines] == ["do_nothing", "rmu", "gradient_ascent"]
    assert all(value(report, label, "kept/probability") > 0.5 for label in ("do_nothing", "rmu"))
    page = (tmp_path / "language.html").read_text()
    assert all(name in page for name in (*head[2:6], "open ROUGE"))
    assert not report["examples"]  # hazardous questions and answers are not reprinted
    assert "No retrained model" in page


@pytest.mark.slow
def test_a_model_is_looked_at_without_corpora(hazards, models, tmp_path):
    report = told(
        *("evaluate", models["original"], "--benchmark", "wmdp", "--data", str(hazards), "--set", "partial=true"),
        *("--out", str(tmp_path)),
    )
    assert 0 <= value(report, "evaluated", "choice/multiple_choice_accuracy") <= 1
    assert value(report, "evaluated", "open/multiple_choice_accuracy") >= 0


def test_questions_alone_are_nothing_to_unlearn_or_to_train_on(hazards, tmp_path):
    def study(**options) -> None:
        setting = LanguageBench(
            benchmark="wmdp", options={"source": str(hazards), "partial": True}, methods="rmu", **options
        )
        run_language(setting, tmp_path / "out", processes=1)

    with pytest.raises(RequestError, match="holds no texts to forget") as caught:
        study(model="anything")
    assert "--set forget=FILE" in caught.value.remedy
    with pytest.raises(RequestError, match="holds no texts to forget"):
        study(recipe=finetuned("anything", 1))
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named_as_the_command_line_names_it():
    for name in ("muse", "wmdp", "tofu"):
        done = CliRunner().invoke(app, ["bench", name, "--model", "anything"])
        assert isinstance(done.exception, RequestError)
        assert "--data" in done.exception.remedy and "Hugging Face hub" in done.exception.remedy
    done = CliRunner().invoke(app, ["bench", "pii", "--model", "anything", "--split", "x"])
    assert isinstance(done.exception, RequestError) and "one part" in done.exception.cause
    assert set(COLUMNS) >= {"verbatim", "knowledge", "knowledge kept", "PrivLeak", "multiple choice", "open answers"}
