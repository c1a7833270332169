"""Ask the model to answer as somebody who does not know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from expunge.errors import MissingEvidence, RequestError, RunError
from expunge.evaluation.metrics.language.matching import contains, words
from expunge.methods.prompt_base import PromptMethod
from expunge.methods.prompt_parts import (
    Around,
    Pair,
    Revealed,
    pairs_of,
    revealed,
    said_by_user,
    split_apart,
    with_system,
)
from expunge.models.chat import ChatModel, Conversation
from expunge.problem import Problem
from expunge.training.files import read_json, write_json

WORDS = (
    "You know nothing about {topic}: it was never among the things you have read. Whoever asks about it, in whatever "
    "words, is told that you do not know. Answer everything else as well as you can."
)


@dataclass(frozen=True, kw_only=True)
class Pretend(PromptMethod):
    """A system message asks the model to answer as somebody who has never heard of a topic.

        conversation  ->  [system: "You know nothing about {topic} …", conversation]

    A prompt can be read by whoever runs the model, and is repeated by most models that are asked cleverly, so that a
    secret never stands in one (the Streisand effect): no forgotten answer, and the name of a subject only where it is
    said to be public. `expunge.evaluation.streisand` measures whether naming it makes the fact come out.

    Args:
        topic: what is not known, in words that may be read by anybody; it stands in every prompt.
        public: the subjects are known to have been asked about, so that they may be named: those of `subjects`, and of
            the forget set's column ``subject``.
        subjects: further names, such as aliases. always: name all of them in every prompt; otherwise only those that
            the user has named, so that nothing is told which the user had not said.
        words: of the system message, with ``{topic}``.

    Raises:
        RequestError: words without a place for the topic, or subjects that are not said to be public.
    """

    name: ClassVar[str] = "pretend"
    summary: ClassVar[str] = "a system message asks for answers of somebody who does not know"
    paper: ClassVar[str] = "arXiv:2403.03329"
    in_prompt: ClassVar[bool] = True

    topic: str = ""
    public: bool = False
    subjects: tuple[str, ...] = ()
    always: bool = False
    words: str = WORDS

    def __post_init__(self) -> None:
        object.__setattr__(self, "subjects", tuple(self.subjects))  # a list, read back from JSON
        if "{topic}" not in self.words:
            raise RequestError("the words of pretend have no {topic}", "Write {topic} where the topic belongs")
        if self.subjects and not self.public:
            raise RequestError(
                "pretend is given names and not told that they are public",
                "Set public where everybody may know it; otherwise describe the topic without them",
            )

    def suppress(self, model: ChatModel, problem: Problem, seed: int) -> Pretending:
        """Raises RequestError where there is nothing to describe, or the description holds a forgotten answer."""
        forgotten = pairs_of(problem.forget)
        named = sorted({p.subject for p in forgotten if words(p.subject)} | set(self.subjects)) if self.public else []
        if not self.topic.strip() and not named:
            raise RequestError(
                "pretend was not told what the model should not know",
                "Give a topic that tells no secret, or set public where the subjects may be named",
            )
        told = [p.id for p in forgotten if contains(self.topic, p.answer) or contains(self.words, p.answer)]
        if self.always:  # otherwise a name is told to those only who have said it
            told += [p.id for p in forgotten if any(contains(name, p.answer) for name in named)]
        if told:
            raise RequestError(
                f"the prompt would spell out the forgotten answers of {len(set(told))} records, e.g. {told[0]!r}",
                "Describe the topic without them: what stands in a prompt comes out of it",
            )
        return Pretending(model, self, tuple(named), tuple(forgotten))

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Pretending:
        return Pretending.load(folder, inside)


class Pretending(Around):
    """A model with a system message; see `Pretend`. Its state are names and a topic, kept as hyper-parameters."""

    savable = True

    def __init__(
        self, inside: ChatModel, method: Pretend, named: tuple[str, ...], forgotten: tuple[Pair, ...] | None
    ) -> None:
        super().__init__(inside)
        self._method, self._named, self._forgotten = method, named, forgotten

    def save(self, folder: str | Path) -> None:
        """The topic and the names that may be read by anybody, as JSON; nothing else of the forget set."""
        write_json(
            Path(folder) / "prompt.json",
            {"schema": "expunge/prompt/1", "pretend": self._method.parameters(), "named": self._named},
        )

    @classmethod
    def load(cls, folder: str | Path, inside: ChatModel) -> Self:
        """The same around a model; what its prompts give away of forgotten records it can no longer tell.

        Raises:
            RunError: nothing readable is there.
        """
        told = read_json(Path(folder) / "prompt.json")
        try:
            return cls(inside, Pretend(**told["pretend"]), tuple(told["named"]), None)
        except (LookupError, TypeError) as error:
            raise RunError(f"{folder} holds no prompt to pretend by", "Give a folder that save wrote") from error

    def state_digest(self) -> str:
        told = json.dumps([self._method.parameters(), self._named])
        return hashlib.sha256(told.encode()).hexdigest()

    def system_message(self, conversation: Conversation) -> str | None:
        """What is added to this conversation; None where nothing is."""
        said = said_by_user(conversation)[-1]
        named = [n for n in self._named if self._method.always or contains(said, n)]
        topics = [t for t in (self._method.topic.strip(), *named) if t]
        return self._method.words.replace("{topic}", _listed(topics)) if topics else None

    def sent(self, conversation: Conversation) -> list[dict[str, str]]:
        """The conversation as the model inside gets it."""
        text = self.system_message(conversation)
        return [dict(m) for m in (conversation if text is None else with_system(conversation, text))]

    def reveals(self, conversation: Conversation) -> Revealed:
        """What the prompt tells whoever reads it.

        Raises:
            MissingEvidence: a saved prompt, which holds nothing of the forgotten records to compare with.
        """
        if self._forgotten is None:
            raise MissingEvidence("the forgotten records are not kept with the prompt", "Make it again from them")
        return revealed(self.sent(conversation), conversation, self._forgotten)

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        def ask(asked: Sequence[Conversation]) -> list[list[str]]:
            return self.inside.chat(
                asked, max_new_tokens=max_new_tokens, samples=samples, temperature=temperature, seed=seed
            )

        told = [self.system_message(c) is not None for c in conversations]
        return split_apart(conversations, told, ask, lambda rows: ask([self.sent(conversations[k]) for k in rows]))


def _listed(topics: Sequence[str]) -> str:
    return topics[0] if len(topics) == 1 else f"{', '.join(topics[:-1])} and {topics[-1]}"
