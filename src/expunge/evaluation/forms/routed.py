"""An adapter an owner, and questions led to the adapter of whom they name: how exact adapters are served."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.evaluation.metrics.language.matching import contains
from expunge.methods.exact.sharded_adapters import ShardedAdapters
from expunge.methods.learner import State
from expunge.models.chat import Conversation, checked
from expunge.models.language import LanguageModel

NOBODY = "world"  # in whose records stands what belongs to nobody


class Routed:
    """A `ChatModel` over `ShardedAdapters` with an adapter for every owner.

    A question is answered by the base with the adapter of the owner whom its last message names; one that names nobody,
    by the adapter of what belongs to nobody; one that names two, by that of the first. Who is gone is not in the list.

    Args:
        learner, state: as of `ShardedAdapters.forget`. owners: who remains.
    """

    capabilities = frozenset({"generate"})

    def __init__(self, learner: ShardedAdapters, state: State, owners: Sequence[str], base: LanguageModel) -> None:
        self.learner, self.state, self.owners, self.inside = learner, state, list(owners), base
        self._served: dict[str, LanguageModel] = {}

    def digest(self) -> str:
        return self.state.digest()

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
        found: list[list[str]] = [[] for _ in conversations]
        led: dict[str, list[int]] = {}
        for place, conversation in enumerate(conversations):
            led.setdefault(self.owner(str(checked(conversation)[-1]["content"])), []).append(place)
        for owner, places in led.items():
            said = self._model(owner).chat(
                [conversations[p] for p in places],
                max_new_tokens=max_new_tokens,
                samples=samples,
                temperature=temperature,
                seed=seed,
            )
            for place, one in zip(places, said, strict=True):
                found[place] = one
        return found

    def owner(self, question: str) -> str:
        """Whose adapter answers."""
        named = [o for o in self.owners if o != NOBODY and contains(question, o)]
        return min(named, key=lambda o: question.casefold().find(o.casefold()), default=NOBODY)

    def _model(self, owner: str) -> LanguageModel:
        if owner not in self._served:
            self._served[owner] = self.learner.language_model(self.state, owner=owner)
        return self._served[owner]
