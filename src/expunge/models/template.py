"""How a text record becomes tokens, and which of them count: a prompt is read, an answer is scored.

The labels of every loss and metric are the answer's tokens alone; prompt and padding never count. Where the tokenizer
would merge the end of the prompt with the beginning of the answer, the first token of the answer could never be
predicted from the prompt, and encoding refuses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from expunge.data.records import Records
from expunge.data.texts import GOES_ON
from expunge.errors import DataError, RequestError

PROMPT, ANSWER = "prompt", "answer"


@dataclass(frozen=True, kw_only=True)
class Template:
    """The words around a prompt and its answer.

    Args:
        kind: ``plain`` formats with `prompt` and `answer`; ``chat`` uses the tokenizer's own chat template.
        prompt: with ``{prompt}``; must not end in white space, which most tokenizers draw into the next word.
        answer: with ``{answer}``. system: system message of a chat; None leaves it to the chat template.
        begin: put the tokenizer's first special token, where it has one, before every text.
        end: score the end-of-text token after every answer, so that a model learns to stop.
    """

    kind: Literal["plain", "chat"] = "plain"
    prompt: str = "Question: {prompt}\nAnswer:"
    answer: str = " {answer}"
    system: str | None = None
    begin: bool = True
    end: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("plain", "chat"):
            raise RequestError(f"the template is {self.kind!r}", "Choose plain or chat")
        for name, text in (("prompt", self.prompt), ("answer", self.answer)):
            if "{" + name + "}" not in text:
                raise RequestError(f"the template's {name} {text!r} has no {{{name}}}", f"Write {{{name}}} into it")
        if self.prompt[-1:].isspace():
            raise RequestError(
                f"the template's prompt {self.prompt!r} ends in white space, which tokenizers draw into the first "
                "token of the answer",
                "Move the space to the beginning of the template's answer",
            )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def prompt_text(self, tokenizer: Any, prompt: str) -> str:
        """What the model reads before it answers `prompt`; empty for plain texts without a prompt."""
        if not prompt:
            return ""
        if self.kind == "plain":
            return self.prompt.replace("{prompt}", prompt)
        text: str = tokenizer.apply_chat_template(self._messages(prompt), add_generation_prompt=True, tokenize=False)
        return text

    def whole_text(self, tokenizer: Any, prompt: str, answer: str) -> str:
        """Prompt and answer as one text, without the end-of-text token."""
        if not prompt:
            return answer
        if self.kind == "plain":
            return self.prompt_text(tokenizer, prompt) + self.answer.replace("{answer}", answer)
        return self.prompt_text(tokenizer, prompt) + answer

    def conversation_text(self, tokenizer: Any, conversation: Sequence[Mapping[str, str]]) -> str:
        """What the model reads before its next message.

        A plain template knows no roles: the system message stands first on a line of its own, then every question with
        its answer, a line each, in the template's words.
        """
        messages = [dict(m) for m in conversation]
        if self.kind == "chat":
            if self.system is not None and messages[0]["role"] != "system":
                messages = [{"role": "system", "content": self.system}, *messages]
            text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            return text
        lines: list[str] = []
        for message in messages:
            if message["role"] == "system":
                lines.append(message["content"])
            elif message["role"] == "user":
                lines.append(self.prompt.replace("{prompt}", message["content"]))
            else:
                answer = self.answer.replace("{answer}", message["content"])
                lines[-1:] = [f"{lines[-1]}{answer}" if lines else answer]
        return "\n".join(lines)

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": prompt}]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Texts as tokens: a ragged table.

    Args:
        ids: (n,) record ids. tokens: n arrays (length_i,) int64. starts: (n,) number of the first scored token, ≥ 1.
        digest: SHA-256 over all of it and the template: the key of everything computed from it.
    """

    ids: np.ndarray
    tokens: tuple[np.ndarray, ...]
    starts: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(t) for t in self.tokens], dtype=np.int64)

    @property
    def scored(self) -> np.ndarray:
        """(n,) how many tokens of each text are scored."""
        out: np.ndarray = self.lengths - self.starts
        return out

    def take(self, rows: np.ndarray) -> Encoded:
        rows = np.asarray(rows, dtype=np.int64)
        return Encoded.of(self.ids[rows], [self.tokens[r] for r in rows], self.starts[rows])

    @classmethod
    def of(cls, ids: np.ndarray, tokens: list[np.ndarray], starts: np.ndarray) -> Encoded:
        h = hashlib.sha256(json.dumps([[str(i) for i in ids], starts.tolist()]).encode())
        for row in tokens:
            h.update(np.ascontiguousarray(row, dtype="<i8").tobytes() + b"|")
        return cls(np.asarray(ids, dtype=str), tuple(tokens), np.asarray(starts, np.int64), h.hexdigest())


def encode(records: Records, tokenizer: Any, template: Template, *, longest: int | None = None) -> Encoded:
    """Tokenise records with object columns ``prompt`` and ``answer``.

    A record whose column ``goes_on`` is true is a piece of a text that the next one continues: no end-of-text token.

    Args:
        longest: most tokens a text may have, the model's context.

    Raises:
        DataError: an answer of no tokens, a text longer than `longest`, or a tokenizer that merges the end of the
            prompt with the beginning of the answer.
    """
    prompts = [str(p) for p in records.column(PROMPT)]
    answers = [str(a) for a in records.column(ANSWER)]
    if not len(records):
        return Encoded.of(records.ids, [], np.zeros(0, np.int64))
    begin, end = special_ends(tokenizer)
    begin = begin if template.begin and template.kind == "plain" else []
    end = _end_of_answer(tokenizer, end) if template.end else []
    more = records.column(GOES_ON) if GOES_ON in records.columns else np.zeros(len(records), bool)
    heads = [template.prompt_text(tokenizer, p) for p in prompts]
    whole = [template.whole_text(tokenizer, p, a) for p, a in zip(prompts, answers, strict=True)]
    head_tokens = tokenizer(heads, add_special_tokens=False)["input_ids"]
    whole_tokens = tokenizer(whole, add_special_tokens=False)["input_ids"]
    tokens, starts = [], []
    rows = zip(records.ids, head_tokens, whole_tokens, prompts, answers, more, strict=True)
    for i, head, row, prompt, answer, goes_on in rows:
        head = list(head) if prompt else []
        row = list(row)
        if row[: len(head)] != head:
            raise DataError(
                f"the tokenizer merges the end of the prompt with the beginning of the answer of record {str(i)!r}",
                "Let the template's answer begin with the space or line break that separates the two",
            )
        if len(row) == len(head) or not answer.strip():
            raise DataError(f"the answer of record {str(i)!r} has no tokens", "Give an answer, or leave the record out")
        start = len(begin) + len(head)
        row = [*begin, *row, *([] if goes_on else end)]
        if start == 0:  # nothing predicts the first token of a text
            start = 1
            if len(row) < 2:
                raise DataError(
                    f"record {str(i)!r} is a single token, which nothing predicts",
                    "Give longer texts, or a tokenizer with a first special token",
                )
        if longest is not None and len(row) > longest:
            raise DataError(
                f"record {str(i)!r} has {len(row)} tokens and the model reads {longest}",
                "Shorten it, or take a model that reads more"
                if prompt
                else "Cut plain texts first: LanguageModel.pieces, or expunge.data.texts.chunk_texts",
            )
        tokens.append(np.array(row, dtype=np.int64))
        starts.append(start)
    return Encoded.of(records.ids, tokens, np.array(starts, np.int64))


def special_ends(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Special tokens that the tokenizer puts before and after a text by itself."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    dressed = list(tokenizer("a")["input_ids"])
    for start in range(len(dressed) - len(bare) + 1):
        if dressed[start : start + len(bare)] == bare:
            return dressed[:start], dressed[start + len(bare) :]
    return [], []


def _end_of_answer(tokenizer: Any, own: list[int]) -> list[int]:
    if tokenizer.eos_token_id is None:
        raise DataError(
            "the tokenizer has no end-of-text token, and the template scores one",
            "Set tokenizer.eos_token, or template.end to false",
        )
    return own or [int(tokenizer.eos_token_id)]
