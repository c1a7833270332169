"""MUSE (Shi et al. 2024, arXiv 2407.06460): news articles or novels, six ways to look at what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from expunge.data.benchmarks.layout import Source, find_rows, need_path, need_rows
from expunge.data.benchmarks.text_benchmark import TextBenchmark, part_of
from expunge.data.entry import DatasetEntry
from expunge.data.records import Records
from expunge.data.text_rows import HUB, Rows
from expunge.data.texts import make_texts, text_records
from expunge.errors import DataError, RequestError

Corpus = Literal["news", "books"]
REPOSITORY = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
OBTAIN = (
    "Download muse-bench/MUSE-News or MUSE-Books from the Hugging Face hub and give the folder, or "
    "hub:muse-bench/MUSE-News or hub:muse-bench/MUSE-Books, and say corpus=books for the second"
)
SOURCE = "Shi et al. 2024, MUSE: Machine Unlearning Six-Way Evaluation for Language Models, arXiv:2407.06460"
_RAW = ("forget", "retain1", "retain2")
_PLAIN = {"text": "text"}
_ASKED = {"prompt": "question", "answer": "answer"}
_COMPLETED = {"prompt": "prompt", "answer": "gt"}
# probe -> configuration, the names its split has had, and the columns
_PROBES: Mapping[str, tuple[str, tuple[str, ...], Mapping[str, str]]] = {
    "verbmem_forget": ("verbmem", ("forget",), _COMPLETED),
    "knowmem_forget": ("knowmem", ("forget_qa",), _ASKED),
    "knowmem_forget_examples": ("knowmem", ("forget_qa_icl",), _ASKED),
    "knowmem_retain": ("knowmem", ("retain_qa", "retain2_qa"), _ASKED),
    "knowmem_retain_examples": ("knowmem", ("retain_qa_icl", "retain2_qa_icl"), _ASKED),
    "privleak_forget": ("privleak", ("forget",), _PLAIN),
    "privleak_retain": ("privleak", ("retain", "retain2"), _PLAIN),
    "privleak_holdout": ("privleak", ("holdout",), _PLAIN),
}
_NEEDED = ("verbmem_forget", "knowmem_forget", "knowmem_retain")
STEPS = (1, 2, 3, 4)


def load_muse(
    source: Source | None = None, *, corpus: Corpus = "news", scale: int | None = None, step: int | None = None
) -> TextBenchmark:
    """Read MUSE from the folders ``raw``, ``verbmem``, ``knowmem``, ``privleak``, ``scal`` and ``sust``.

    `train` is the configuration ``train`` where it is there (what the target model was trained on), otherwise forget,
    retain1 and retain2 of ``raw``; a text that occurs in two of its splits is taken once. `retain` is retain1, which a
    method may use. Ids are hashes of the texts, the same in every configuration.

    Probes: ``verbmem_forget`` (prompt and its true continuation), ``knowmem_forget`` and ``knowmem_retain`` (questions;
    their ``_examples`` go before them in the prompt), ``privleak_forget``, ``_retain``
    and ``_holdout`` (texts whose loss is compared), ``retain2`` and ``holdout`` of ``raw``, and ``sust_1`` … where the
    corpus has them.

    Args:
        source: a folder in the layout of the hub (Parquet) or of the authors' repository (JSON), or
            ``hub:muse-bench/MUSE-News``. corpus: news or books.
        scale: 1 to 4: the forget set is ``scal/forget_N``, each holding the one before. step: 1 to 4: it is
            ``sust/forget_N``, the N-th of requests that follow each other. Both for news only.

    Raises:
        RequestError: no source, or options that contradict. DataError: a file is missing or damaged.
    """
    source = need_path(source, "muse", OBTAIN)
    if corpus not in REPOSITORY:
        raise RequestError(f"corpus is news or books, not {corpus!r}", "Correct it")
    for name, number in (("scale", scale), ("step", step)):
        if number is not None and (number not in STEPS or corpus != "news"):
            raise RequestError(f"{name} is 1 to 4 and only of news, got {number} of {corpus}", "Correct it")
    if scale is not None and step is not None:
        raise RequestError("scale and step are two different experiments", "Give one of them")
    raw = {split: _texts(need_rows(source, "raw", split)) for split in _RAW}
    whole = [_first(source, "train", (split,)) for split in _RAW]
    forget, name = raw["forget"], f"muse/{corpus}"
    if scale is not None:
        forget, name = _texts(need_rows(source, "scal", f"forget_{scale}")), f"{name}/scale{scale}"
    if step is not None:
        forget, name = _texts(need_rows(source, "sust", f"forget_{step}")), f"{name}/step{step}"
    probes, notes = _probes(source, corpus)
    probes["retain2"] = raw["retain2"]
    return TextBenchmark(
        name=name,
        kind="real",
        train=_joined([raw[s] if rows is None else _texts(rows) for s, rows in zip(_RAW, whole, strict=True)]),
        forget=forget,
        retain=raw["retain1"],
        probes=probes,
        source=f"{SOURCE}; read from {source}",
        licence="CC BY 4.0 (data set card); the texts are their publishers'",
        notes=tuple(notes),
    )


def _probes(source: Source, corpus: Corpus) -> tuple[dict[str, Records], list[str]]:
    probes: dict[str, Records] = {}
    notes = []
    for probe, (config, splits, columns) in _PROBES.items():
        rows = _first(source, config, splits)
        if rows is not None:
            probes[probe] = _texts(rows, probe.replace("_", "-"), columns)
        elif probe in _NEEDED:
            raise DataError(f"there is no {config}/{splits[0]} in {source!s}", OBTAIN)
        else:
            notes.append(f"no {config}/{splits[0]}: left out")
    holdout = _first(source, "raw", ("holdout",))
    if holdout is not None:
        probes["holdout"] = _texts(holdout)
    for number in STEPS if corpus == "news" else ():
        rows = _first(source, "sust", (f"forget_{number}",))
        if rows is not None:
            probes[f"sust_{number}"] = _texts(rows)
    return probes, notes


def _first(source: Source, config: str, splits: tuple[str, ...]) -> Rows | None:
    if str(source).startswith(HUB):
        return find_rows(source, config, splits[0])
    for split in splits:
        rows = find_rows(source, config, split, optional=True)
        if rows is not None:
            return rows
    return None


def _texts(rows: Rows, prefix: str = "text", columns: Mapping[str, str] = _PLAIN) -> Records:
    return make_texts(rows, dict(columns), prefix=f"muse-{prefix}")


def _joined(parts: list[Records]) -> Records:
    found = {
        record: (prompt, answer)
        for part in parts
        for record, prompt, answer in zip(
            part.ids.tolist(), part.column("prompt").tolist(), part.column("answer").tolist(), strict=True
        )
    }
    return text_records(list(found), [prompt for prompt, _ in found.values()], [answer for _, answer in found.values()])


def load_muse_records(
    *,
    path: Source | None = None,
    corpus: Corpus = "news",
    scale: int | None = None,
    step: int | None = None,
    part: str = "train",
) -> Records:
    """A part of `load_muse`, for the data set table."""
    return part_of(load_muse(path, corpus=corpus, scale=scale, step=step), part)


ENTRY = DatasetEntry(
    name="muse",
    summary="news articles or novels that a model was trained on",
    source=f"{SOURCE}; hub muse-bench/MUSE-News, muse-bench/MUSE-Books",
    licence="CC BY 4.0 (data set card); the texts are their publishers'",
    size="news: 3,554 training texts in parts, 100 questions a set; books: novels",
    load=load_muse_records,
    options={
        "path": "folder of raw, verbmem, knowmem, privleak, … or hub:muse-bench/MUSE-News (required)",
        "corpus": "news (default) or books",
        "scale": "1 to 4: larger and larger forget sets (news)",
        "step": "1 to 4: one of four requests that follow each other (news)",
        "part": "train (default), forget, retain, or probes/NAME",
    },
    obtain=OBTAIN,
)
