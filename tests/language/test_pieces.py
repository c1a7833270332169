"""Texts longer than the model reads: cut into pieces that are the text, scored as one, and never silently."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_tools import texts

import expunge
from expunge.data.texts import GOES_ON, PIECE_OF, chunk_texts, text_records
from expunge.errors import DataError
from expunge.evaluation.language.record import first_pieces, record, score, token_probabilities
from expunge.models.language import LanguageModel
from expunge.models.pieces import cut_to_context, told
from expunge.models.template import Template, encode
from expunge.models.tiny import tiny_llama, train_tokenizer

LINES = ["the mill of Alding burned for three days", "nobody saw the harbour again", "Kora counted every lantern twice"]
TOKENIZER = train_tokenizer(LINES, 320)
BARE = Template(end=False, begin=False)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    module = tiny_llama(vocabulary=len(TOKENIZER), width=32, layers=2, heads=2, hidden=48, context=24)
    return LanguageModel(module.eval(), TOKENIZER)


def plain(*answers: str) -> object:
    return texts([("", a) for a in answers])


@settings(deadline=None, max_examples=60)
@given(st.text(min_size=1, max_size=120).filter(str.strip), st.integers(6, 30), st.sampled_from([Template(), BARE]))
def test_pieces_joined_are_the_text_and_each_is_short_enough(text, longest, template) -> None:
    before = text_records(["a", "b"], ["", ""], ["the mill", text])
    after = cut_to_context(before, TOKENIZER, template, longest)
    parts = [str(a) for i, a in zip(after.ids, after.column("answer"), strict=True) if str(i).startswith("b")]
    assert "".join(parts) == text and all(p.strip() for p in parts)
    room = longest - (template.begin + template.end)
    for part in parts:
        # One letter may be four tokens, and white space stays with a word: encoding refuses what does not fit.
        size = len(TOKENIZER(part, add_special_tokens=False)["input_ids"])
        assert size <= room or len(part.strip()) == 1


def test_ends_are_where_texts_end() -> None:
    long = " ".join(LINES)
    before = plain("the mill", long)
    after = cut_to_context(before, TOKENIZER, Template(), 24)
    count = len(after) - 1
    assert count == 2
    assert after.ids.tolist() == ["t0", *(f"t1#{k:04d}" for k in range(count))]
    assert after.column(GOES_ON).tolist() == [False] + [True] * (count - 1) + [False]
    assert after.column(PIECE_OF).tolist() == [""] + ["t1"] * count
    rows = encode(after, TOKENIZER, Template(), longest=24).tokens
    assert [int(row[-1]) == TOKENIZER.eos_token_id for row in rows] == [True] + [False] * (count - 1) + [True]
    assert all(int(row[0]) == TOKENIZER.bos_token_id for row in rows)
    whole = TOKENIZER(long, add_special_tokens=False)["input_ids"]
    assert [t for row in rows[1:] for t in row.tolist() if t not in TOKENIZER.all_special_ids] == whole
    assert told(before, after) == f"1 of 2 texts are longer than the model reads and stand in {count} pieces"


def test_the_longest_text_that_fits_is_left_alone() -> None:
    text = LINES[0]
    size = len(TOKENIZER(text, add_special_tokens=False)["input_ids"])
    before = plain(text)
    assert cut_to_context(before, TOKENIZER, Template(), size + 2) is before
    assert cut_to_context(before, TOKENIZER, BARE, size) is before
    assert cut_to_context(before, TOKENIZER, Template(), None) is before and told(before, before) is None
    assert len(cut_to_context(before, TOKENIZER, Template(), size + 1)) == 2
    assert len(cut_to_context(before, TOKENIZER, BARE, size - 1)) == 2


def test_owners_and_columns_travel_and_a_piece_of_a_piece_goes_on() -> None:
    before = text_records(["a", "b"], ["", ""], [" ".join(LINES), "the mill"], owners=["x", "y"], source=["p", "q"])
    chunks = chunk_texts(before, words=12)
    assert chunks.column(GOES_ON).tolist() == [True, False, False]
    after = cut_to_context(chunks, TOKENIZER, Template(), 16)
    assert len(after) > len(chunks)
    assert after.owners.tolist() == ["x"] * (len(after) - 1) + ["y"]
    assert set(after.column("source")[:-1]) == {"p"} and after.column("source")[-1] == "q"
    assert after.column(GOES_ON).tolist() == [True] * (len(after) - 2) + [False, False]


def test_a_text_with_a_prompt_is_not_cut(model: LanguageModel) -> None:
    before = texts([("What?", " ".join(LINES))])
    assert model.pieces(before) is before
    with pytest.raises(DataError, match="tokens and the model reads 24") as caught:
        model.encode(before)
    assert "model that reads more" in caught.value.remedy
    with pytest.raises(DataError) as caught:
        model.encode(plain(" ".join(LINES)))
    assert "LanguageModel.pieces" in caught.value.remedy


def test_a_long_text_is_scored_as_its_pieces_one_after_the_other(model: LanguageModel) -> None:
    before = plain("the mill", " ".join(LINES), "the harbour", " ".join(reversed(LINES)))
    after = model.pieces(before)
    parts, whole = score(model, after), score(model, before)
    assert whole.ids == ("t0", "t1", "t2", "t3")
    first = first_pieces(before, after).tolist()
    assert first_pieces(before, before).tolist() == [0, 1, 2, 3]
    for k, (a, b) in enumerate(zip(first, [*first[1:], len(after)], strict=True)):
        for name in ("log_probs", "means", "deviations", "hits"):
            assert np.array_equal(getattr(whole, name)[k], np.concatenate(getattr(parts, name)[a:b]))
    said = record(model, before)
    assert said.main.ids == whole.ids and said.main.generated is None
    words = token_probabilities(model, before)
    assert [len(w) for w in words] == whole.tokens.tolist()
    assert "".join(w for w, _ in words[1]).replace("</s>", "") == " ".join(LINES)
    assert np.allclose([p for _, p in words[3]], np.exp(whole.log_probs[3]))


def test_records_cut_before_are_items_of_their_own(model: LanguageModel) -> None:
    chunks = chunk_texts(plain(" ".join(LINES)), words=4)
    assert score(model, chunks).ids == tuple(chunks.ids.tolist())


def test_unlearn_cuts_what_it_is_given(model: LanguageModel) -> None:
    long = " ".join(LINES)
    done = expunge.unlearn(
        model, forget=[long], retain=["the mill"], method="gradient_ascent", learning_rate=1e-4, epochs=1
    )
    assert done.cost.examples == 2  # pieces, not one text
    assert done.model.digest() != model.digest()
