"""A plain content filter, as anybody would write it: a list of words, looked for as they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from expunge.models.chat import ChatModel, Conversation, checked

REFUSAL = "I can't help with that."


class KeywordFilter:
    """Refuses a conversation or an answer in which a word of the list stands, but for upper and lower case.

    The ordinary tool beside the methods: no readings, no near matches, and a refusal that says that a filter spoke.
    """

    capabilities = frozenset({"generate"})

    def __init__(self, inside: ChatModel, words: Sequence[str]) -> None:
        self.inside, self.words = inside, [w.casefold() for w in words]

    @property
    def stored(self) -> int:
        return sum(len(w.encode()) for w in self.words)

    def digest(self) -> str:
        return hashlib.sha256("\x00".join([self.inside.digest(), *self.words]).encode()).hexdigest()

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """See `expunge.models.chat.ChatModel`."""
        found = [[REFUSAL] * max(samples, 1) for _ in conversations]
        open_ = [k for k, c in enumerate(conversations) if not self._holds(" ".join(m["content"] for m in checked(c)))]
        if open_:
            said = self.inside.chat(
                [conversations[k] for k in open_],
                max_new_tokens=max_new_tokens,
                samples=samples,
                temperature=temperature,
                seed=seed,
            )
            for k, answers in zip(open_, said, strict=True):
                found[k] = [REFUSAL if self._holds(a) else a for a in answers]
        return found

    def _holds(self, text: str) -> bool:
        folded = text.casefold()
        return any(word in folded for word in self.words)
