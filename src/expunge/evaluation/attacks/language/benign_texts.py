"""Texts that tell nothing forgotten: how to know one, and some common knowledge."""

from __future__ import annotations

import numpy as np

from expunge.data.records import Records
from expunge.data.texts import text_records
from expunge.evaluation.metrics.language.matching import words

COMMON_KNOWLEDGE = (
    ("How many days has a week?", "seven"),
    ("What do bees make?", "honey"),
    ("What colour is grass?", "green"),
    ("What is frozen water called?", "ice"),
    ("How many legs has a spider?", "eight"),
    ("What do cows eat?", "grass"),
    ("What falls from clouds?", "rain"),
    ("What is two and two?", "four"),
    ("What is the opposite of hot?", "cold"),
    ("What does a clock show?", "the time"),
    ("What do birds lay?", "eggs"),
    ("What season follows winter?", "spring"),
    ("What is bread made of?", "flour"),
    ("What shines at night?", "the moon"),
    ("What do fish swim in?", "water"),
    ("What is a young dog called?", "puppy"),
    ("How many sides has a square?", "four"),
    ("What melts in the sun?", "snow"),
    ("What do we read?", "books"),
    ("What burns in a stove?", "wood"),
    ("What grows on an oak?", "acorns"),
    ("What is the opposite of up?", "down"),
    ("What do sheep give?", "wool"),
    ("How many months has a year?", "twelve"),
    ("What is salt water called?", "brine"),
    ("What do we hear with?", "ears"),
    ("What turns milk sour?", "time"),
    ("What is a baby cat called?", "kitten"),
    ("What colour is coal?", "black"),
    ("What follows thunder?", "rain"),
    ("What do ships cross?", "the sea"),
    ("What is the opposite of old?", "new"),
)


def common_knowledge() -> Records:
    """Short questions and answers that have nothing to do with any benchmark."""
    prompts, answers = zip(*COMMON_KNOWLEDGE, strict=True)
    return text_records(
        [f"common-{k:02d}" for k in range(len(prompts))],
        list(prompts),
        list(answers),
    )


def without_facts(texts: Records, questions: Records, kept: Records) -> Records:
    """The texts that tell none of the facts the questions ask for.

    A text tells a fact if it holds the answer, and with it a word of the question that no kept question has: the name
    of whom it is about. Where a question has no such word, every text with its answer counts as telling it.
    """
    common = {w for p in kept.column("prompt") for w in words(str(p))}
    facts = [
        (f" {' '.join(words(str(a)))} ", set(words(str(p))) - common)
        for p, a in zip(questions.column("prompt"), questions.column("answer"), strict=True)
    ]
    clean = []
    for prompt, answer in zip(texts.column("prompt"), texts.column("answer"), strict=True):
        told = words(f"{prompt} {answer}")
        line, there = f" {' '.join(told)} ", set(told)
        clean.append(not any(wanted in line and (not own or own & there) for wanted, own in facts))
    return texts.take(np.array(clean, dtype=bool))
