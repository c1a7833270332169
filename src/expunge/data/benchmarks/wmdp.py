"""WMDP (Li et al. 2024, arXiv 2403.03218): hazardous knowledge, as multiple choice and as open questions.

The questions are read from the user's own copy and never come with expunge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.data.benchmarks.layout import Source, find_rows, need_path
from expunge.data.benchmarks.text_benchmark import TextBenchmark, as_json, no_texts, part_of
from expunge.data.entry import DatasetEntry
from expunge.data.records import Records
from expunge.data.text_rows import HUB, Rows, read_rows, text_of, texts_of
from expunge.data.texts import make_texts, text_records
from expunge.errors import DataError, RequestError, UnknownName

COUNTS: Mapping[str, int] = {"bio": 1273, "cyber": 1987, "chem": 408}
SUBJECT = {"bio": "biology", "cyber": "cybersecurity", "chem": "chemistry"}
LETTERS = "ABCD"
KEPT = 200
OBTAIN = "Download cais/wmdp (and cais/wmdp-corpora) from the Hugging Face hub and give the folder, or hub:cais/wmdp"
SOURCE = "Li et al. 2024, The WMDP Benchmark, arXiv:2403.03218; hub cais/wmdp"


def load_wmdp(
    source: Source | None = None,
    *,
    subject: str = "bio",
    forget: Source | None = None,
    retain: Source | None = None,
    partial: bool = False,
) -> TextBenchmark:
    """Read the questions of one subject, and the corpora where they are given.

    Probes: ``choice`` (the four answers are in the prompt; the answer is a letter, ``wrong`` the other letters) and
    ``open`` (the question alone; the answer is the right choice in words, ``wrong`` the other three). Both have
    ``choices`` and, as text, ``right`` (0 to 3). ``kept``: the first 200 texts of the retain corpus, so that a
    collapsed model does not look like one that forgot. `train` holds nothing: the original is somebody else's model.

    Args:
        source: folder of ``wmdp-bio/test-….parquet`` or ``bio_questions.json``, or ``hub:cais/wmdp``.
        subject: bio, cyber or chem. forget, retain: corpora of plain texts under ``text``, e.g.
            ``bio-retain-corpus.jsonl``. partial: accept fewer questions than there are; the name then says so.

    Raises:
        UnknownName: `subject`. RequestError: no source. DataError: questions are missing or damaged, or not 1,273 /
            1,987 / 408.
    """
    source = need_path(source, "wmdp", OBTAIN)
    if subject not in COUNTS:
        raise UnknownName("subject of WMDP", subject, COUNTS)
    rows = _questions(source, subject)
    if len(rows.rows) != COUNTS[subject] and not partial:
        raise DataError(
            f"{rows.where} has {len(rows.rows)} questions and WMDP {subject} has {COUNTS[subject]}",
            "Get the data set again, or say partial=True to score a part under another name",
        )
    corpora = {name: _corpus(path, f"wmdp-{subject}-{name}") for name, path in (("f", forget), ("r", retain))}
    choice, spoken = _probes(rows, subject)
    return TextBenchmark(
        name=f"wmdp/{subject}" + (f"/partial{len(rows.rows)}" if len(rows.rows) != COUNTS[subject] else ""),
        kind="real",
        train=no_texts(),
        forget=corpora["f"],
        retain=corpora["r"],
        probes={"choice": choice, "open": spoken} | ({} if retain is None else {"kept": _some(corpora["r"])}),
        source=f"{SOURCE}; read from {source}",
        licence="MIT (questions); the corpora as on their card",
        notes=() if forget is not None else ("no forget corpus was given",),
    )


def _questions(source: Source, subject: str) -> Rows:
    if str(source).startswith(HUB):
        return read_rows(source, config=f"wmdp-{subject}", split="test")
    for config, split in (
        (f"wmdp-{subject}", "test"),
        (f"{subject}_questions", None),
        (f"wmdp-{subject}", None),
        (subject, None),
    ):
        rows = find_rows(source, config, split, optional=True)
        if rows is not None:
            return rows
    raise DataError(f"there are no questions of {subject} in {source!s}", OBTAIN)


def _corpus(source: Source | None, prefix: str) -> Records:
    if source is None:
        return no_texts()
    rows = read_rows(source)
    if "text" not in rows.columns:
        raise RequestError(
            f"{rows.where} has no column 'text'", "Load it with load_texts and build the problem from it"
        )
    return make_texts(rows, {"text": "text"}, prefix=prefix)


def _some(corpus: Records) -> Records:
    return corpus.take(range(min(len(corpus), KEPT)))


def _probes(rows: Rows, subject: str) -> tuple[Records, Records]:
    questions, choices, right = [], [], []
    for row, place in zip(rows.rows, rows.places, strict=True):
        questions.append(text_of(row, "question", place, rows.where))
        found = texts_of(row, "choices", place, rows.where)
        if len(found) != len(LETTERS):
            raise DataError(f"{place} of {rows.where} has {len(found)} choices and not 4", OBTAIN)
        choices.append(found)
        right.append(_right(row, place, rows.where))
    ids = [f"wmdp-{subject}-{k:04d}" for k in range(len(questions))]
    common = {"choices": as_json(choices), "right": [str(k) for k in right]}
    letters = text_records(
        ids,
        [choice_prompt(q, c, subject) for q, c in zip(questions, choices, strict=True)],
        [LETTERS[k] for k in right],
        wrong=as_json([[x for x in LETTERS if x != LETTERS[k]] for k in right]),
        **common,
    )
    words = text_records(
        [f"{i}-open" for i in ids],
        questions,
        [c[k] for c, k in zip(choices, right, strict=True)],
        wrong=as_json([[x for n, x in enumerate(c) if n != k] for c, k in zip(choices, right, strict=True)]),
        **common,
    )
    return letters, words


def choice_prompt(question: str, choices: list[str], subject: str) -> str:
    """The prompt of multiple-choice tests: a line on the subject, the question, lettered choices, ``Answer:``."""
    lettered = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=True))
    head = f"The following are multiple choice questions (with answers) about {SUBJECT[subject]}."
    return f"{head}\n\n{question.strip()}\n{lettered}\nAnswer:"


def _right(row: Mapping[str, Any], place: str, where: str) -> int:
    value = row.get("answer")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(LETTERS):
        return value
    raise DataError(f"the answer at {place} of {where} is {value!r} and must be 0, 1, 2 or 3", OBTAIN)


def load_wmdp_records(*, path: Source | None = None, subject: str = "bio", part: str = "probes/choice") -> Records:
    """A part of `load_wmdp`, for the data set table."""
    return part_of(load_wmdp(path, subject=subject), part)


ENTRY = DatasetEntry(
    name="wmdp",
    summary="questions of hazardous knowledge in biology, cybersecurity and chemistry",
    source=SOURCE,
    licence="MIT",
    size="1,273 + 1,987 + 408 questions with four choices",
    load=load_wmdp_records,
    options={
        "path": "folder of wmdp-bio/test-….parquet or bio_questions.json, or hub:cais/wmdp (required)",
        "subject": "bio (default), cyber or chem",
        "part": "probes/choice (default) or probes/open",
    },
    obtain=OBTAIN,
)
