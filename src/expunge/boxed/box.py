"""The boxed model: whoever asks sees what goes in and what comes out, and nothing of what is between."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.boxed.batch import Program, run_batch
from expunge.boxed.classifier import Lesson, read_lesson
from expunge.boxed.config import BoxSettings, LocalPart, RemotePart
from expunge.boxed.parts import Sampling, Steps, Turn
from expunge.boxed.rulebook import RuleBook
from expunge.boxed.upstream import Upstream
from expunge.errors import RequestError
from expunge.models.chat import ChatModel, Conversation, checked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from expunge.boxed.answer import End

log = logging.getLogger("expunge.box")
LEAST_KEY = 16


class Box:
    """A `ChatModel` made of a router, workers, a composer and output filters around one or more models.

    Args:
        settings: as declared. upstreams: its models by name. rules: the requests in force.

    Raises:
        RequestError: an instruction of the box holds what a request wants forgotten.
    """

    capabilities = frozenset({"generate"})

    def __init__(self, settings: BoxSettings, upstreams: Mapping[str, Upstream], rules: RuleBook) -> None:
        self.settings, self.upstreams, self.book = settings, dict(upstreams), rules
        told = self.told_in_instructions()
        if told:
            raise RequestError(
                f"the instruction of {', '.join(told)} holds what a request wants forgotten",
                "Write it in general words: whatever stands in a prompt can be asked for",
            )

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        upstreams: Mapping[str, Upstream] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Box:
        """The box that a YAML file declares, its models loaded.

        Args:
            upstreams: models that are there already, by their names in the file. clock: what time it is.

        Raises:
            RequestError: the file, its requests or a key is not usable. ModelError: a model cannot be loaded.
        """
        settings = BoxSettings.read(path)
        book = RuleBook(settings.requests, key=_key(settings), clock=clock, lessons=lessons_of(settings))
        made = {
            name: (upstreams or {}).get(name) or load_upstream(part) for name, part in settings.outline.models.items()
        }
        return cls(settings, made, book)

    @property
    def inside(self) -> ChatModel:
        """The model that the box is around: what somebody with access to the machine holds."""
        return self.main.model

    @property
    def main(self) -> Upstream:
        return self.upstreams[self.settings.main]

    def digest(self) -> str:
        """SHA-256 over the declaration, the requests and the models, hexadecimal."""
        declared = self.settings.outline.model_dump(mode="json")
        models = {name: upstream.model.digest() for name, upstream in self.upstreams.items()}
        told = json.dumps([declared, self.book.current().ids, self.book.current().digest, models], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def refresh(self) -> bool:
        """Take changed requests; whether there were any."""
        changed = self.book.refresh()
        if changed:
            for where in self.told_in_instructions():
                log.error(
                    "the instruction of %s holds what a request wants forgotten; it is left out of prompts", where
                )
        return changed

    def told_in_instructions(self) -> tuple[str, ...]:
        """Places of parts whose instructions hold what a request in force names."""
        rules = self.book.current()
        return tuple(
            where
            for where, part in self.settings.parts()
            if any(rules.told_in(text) or rules.called(text).asked for text in part.instructions())
        )

    # --- whole answers, many at once ---------------------------------------------------------------------------------

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """What a client would be told; see `expunge.models.chat.ChatModel`."""
        self.refresh()
        rules, programs = self.book.current(), []
        for conversation in conversations:
            checked(conversation)
            for draw in range(max(samples, 1)):
                sampling = Sampling(
                    max_new_tokens=max_new_tokens, temperature=temperature if samples else 0.0, seed=seed, draw=draw
                )
                turn = Turn(conversation=conversation, rules=rules, sampling=sampling)
                programs.append(Program(self._whole(turn), self.look_ahead(turn)))
        said = run_batch(programs, self.upstreams)
        each = max(samples, 1)
        return [said[k : k + each] for k in range(0, len(said), each)]

    def _whole(self, turn: Turn) -> Steps[str]:
        names = yield from self.settings.router.route(turn)
        answers = []
        for name in names:
            said = self.settings.workers[name].answer(turn)
            answers.append(said if isinstance(said, str) else (yield said))
        answer = answers[0]
        if not self.settings.composer.passes_on(len(answers)):
            answer = yield from self.settings.composer.compose(turn, answers)
        seen = yield from self.filtered(turn, answer)
        if seen == answer and not self.main.exact:
            return answer  # as long as the server made it
        return self.main.first(seen, turn.sampling.max_new_tokens).strip()  # not what was read beyond the end

    def filtered(self, turn: Turn, answer: str) -> Steps[str]:
        """A complete answer after all filters."""
        for one in self.settings.filters:
            answer = yield from one.whole(turn, answer)
        return answer

    # --- one answer, in pieces ---------------------------------------------------------------------------------------

    def stream(
        self, conversation: Conversation, sampling: Sampling, *, stop: Sequence[str] = ()
    ) -> AsyncGenerator[str | End, None]:
        """Pieces of what a client is told, an `End` last; see `expunge.boxed.answer`.

        Args:
            stop: texts that end the answer where they would begin.
        """
        from expunge.boxed.answer import answer

        turn = Turn(conversation=checked(conversation), rules=self.book.current(), sampling=sampling)
        return answer(self, turn, stop)

    def look_ahead(self, turn: Turn) -> int:
        """Tokens that the filter reads beyond the end of an answer that is cut off: enough for the longest phrase."""
        longest = max((m.longest for m in turn.called.forbidden), default=0)
        return min(self.settings.outline.limits.look_ahead, longest // 6)

    async def close(self) -> None:
        """Let go of the models."""
        for upstream in self.upstreams.values():
            await upstream.close()


def load_upstream(part: LocalPart | RemotePart) -> Upstream:
    """The model that an entry stands for.

    Raises:
        ModelError: it cannot be loaded. RequestError: a device that this machine lacks.
    """
    if isinstance(part, RemotePart):
        from expunge.boxed.remote import RemoteUpstream
        from expunge.models.endpoint import Endpoint

        return RemoteUpstream(
            Endpoint(url=part.url, name=part.name, key_variable=part.key_variable, timeout_seconds=part.timeout_seconds)
        )
    from expunge.boxed.local import LocalUpstream
    from expunge.models.language import LanguageModel
    from expunge.models.template import Template

    template = None if part.template is None else Template(**part.template.model_dump())
    return LocalUpstream(LanguageModel.load(part.folder, template=template, device=part.device, dtype=part.dtype))


def lessons_of(settings: BoxSettings) -> dict[str, Lesson]:
    """Column -> ordinary texts of all parts that learn on it."""
    found: dict[str, Lesson] = {}
    for _, part in settings.parts():
        if part.learns is not None:
            read = read_lesson(settings.path(part.ordinary_texts() or ""), part.learns)
            before = found.get(part.learns)
            texts = tuple(dict.fromkeys((*before.texts, *read.texts))) if before else read.texts
            found[part.learns] = Lesson(texts=texts, where=read.where)
    return found


def _key(settings: BoxSettings) -> bytes:
    variable = settings.outline.key_variable
    if variable is None:
        return secrets.token_bytes(32)
    key = os.environ.get(variable, "").encode()
    if len(key) < LEAST_KEY:
        raise RequestError(
            f"the environment variable {variable} holds {len(key)} bytes, and a key needs {LEAST_KEY}",
            "Set it, or leave key_variable out: a random key is drawn at each start",
        )
    return key
