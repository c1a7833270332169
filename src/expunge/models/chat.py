"""What answers messages: a local language model, a remote endpoint, a prompted, guarded or boxed one. Behaviour only.

Evaluation compares all of them by what they answer. What an attacker with the weights would hold is `weights_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from expunge.errors import RequestError

if TYPE_CHECKING:
    from expunge.models.language import LanguageModel

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
Conversation = Sequence[Message]
ROLES = ("system", "user", "assistant")


@runtime_checkable
class ChatModel(Protocol):
    """What every model that answers messages offers; `capabilities` holds ``generate`` at least."""

    @property
    def capabilities(self) -> frozenset[str]: ...

    def digest(self) -> str: ...

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """The next message of the assistant in each conversation.

        Args:
            conversations: each ends with a message of the user. samples: draws at `temperature`; 0: one greedy.
            seed: of the draws.

        Returns:
            For each conversation its answers: one where `samples` is 0.
        """
        ...


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def ask(model: ChatModel, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
    """Greedy answers to prompts, each in a conversation of its own."""
    return [said[0] for said in model.chat([[user(p)] for p in prompts], max_new_tokens=max_new_tokens)]


def checked(conversation: Conversation) -> Conversation:
    """The conversation, if it is one.

    Raises:
        RequestError: no messages, an unknown role, a system message that is not the first, or the last message is not
            the user's.
    """
    for place, message in enumerate(conversation):
        role = message.get("role")
        if role not in ROLES or not isinstance(message.get("content"), str):
            raise RequestError(f"message {place} has the role {role!r}", f"Use {', '.join(ROLES)} and a text")
        if role == "system" and place:
            raise RequestError("a system message stands in the middle of a conversation", "Put it first")
    if not conversation or conversation[-1]["role"] != "user":
        raise RequestError("a conversation must end with a message of the user", "Add the question")
    return conversation


def weights_of(model: ChatModel) -> LanguageModel | None:
    """What somebody with access to the machine holds: the model itself, or what stands inside a prompted or boxed one.

    None where nobody here has weights (a remote endpoint).
    """
    from expunge.models.language import LanguageModel

    if isinstance(model, LanguageModel):
        return model
    inside: ChatModel | None = getattr(model, "inside", None)
    return None if inside is None else weights_of(inside)
