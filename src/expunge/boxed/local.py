"""A language model on this machine, answering piece by piece; one question at a time, each can be broken off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from expunge.boxed.parts import Sampling
from expunge.boxed.upstream import LIMIT, Limit, Refused, Unavailable
from expunge.models.chat import Conversation, checked
from expunge.models.language import LanguageModel, evaluation_mode
from expunge.models.packing import own_attention


class LocalUpstream:
    """Args:
    model: loaded; it is never written to.
    """

    exact = True

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._one = ThreadPoolExecutor(max_workers=1, thread_name_prefix="expunge-model")

    async def stream(
        self, conversation: Conversation, sampling: Sampling, *, beyond: int = 0
    ) -> AsyncGenerator[str | Limit, None]:
        """See `expunge.boxed.upstream.Upstream`."""
        text = self.model.template.conversation_text(self.model.tokenizer, checked(conversation))
        tokens = self.model.tokenizer(text, add_special_tokens=False)["input_ids"]
        new = sampling.max_new_tokens
        context = self.model.context
        if context is not None and len(tokens) + new > context:
            raise Refused("a conversation is longer than the model reads", "Shorten it, or ask for a shorter answer")
        if context is not None:
            beyond = min(beyond, context - len(tokens) - new)
        loop, pieces, gone = asyncio.get_running_loop(), asyncio.Queue[str | Limit | None](), threading.Event()

        def tell(piece: str | Limit | None) -> None:
            if not gone.is_set():  # at most `new + beyond` pieces are ever waiting
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        work = loop.run_in_executor(self._one, self._generate, tokens, sampling, beyond, tell, gone)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await work
        finally:
            gone.set()
            work.cancel()

    def _generate(
        self, tokens: list[int], sampling: Sampling, beyond: int, tell: Callable[[Any], None], gone: threading.Event
    ) -> None:
        try:
            if gone.is_set():
                return
            self._run(tokens, sampling, beyond, tell, gone)
        except Exception as error:  # a message of torch may quote the input
            raise Unavailable(
                f"the model failed ({type(error).__name__})", "See the machine's memory and device"
            ) from None
        finally:
            tell(None)

    def _run(
        self, tokens: list[int], sampling: Sampling, beyond: int, tell: Callable[[Any], None], gone: threading.Event
    ) -> None:
        model, stop = self.model, self.model.stop_tokens()
        begin = model._begin() if model.template.kind == "plain" and model.template.begin else []
        rows = torch.tensor([[*begin, *tokens] or stop[:1]], device=model.device)
        draw = sampling.temperature > 0
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=sampling.max_new_tokens + beyond,
            do_sample=draw,
            temperature=sampling.temperature if draw else None,
            top_k=0 if draw else None,
            top_p=sampling.top_p if draw else None,
            pad_token_id=model.tokenizer.pad_token_id if model.tokenizer.pad_token_id is not None else stop[0],
            eos_token_id=stop,
        )
        teller = _Teller(model.tokenizer, sampling.max_new_tokens, frozenset(stop), tell)
        with torch.no_grad(), evaluation_mode(model.module), own_attention(model.module), torch.random.fork_rng([]):
            torch.manual_seed(sampling.seed + sampling.draw)
            model.module.generate(
                input_ids=rows,
                attention_mask=torch.ones_like(rows),
                generation_config=settings,
                streamer=teller,
                stopping_criteria=StoppingCriteriaList(
                    [lambda ids, scores, **_: torch.full((ids.shape[0],), gone.is_set(), device=ids.device)]
                ),
            )

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The mean of the last hidden states of each text."""
        found = await asyncio.get_running_loop().run_in_executor(self._one, self.model.embed, list(texts))
        return [[float(v) for v in row] for row in found]

    def count(self, text: str) -> int:
        return len(self.model.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0

    def length(self, conversation: Conversation) -> int:
        return self.model.length(conversation)

    def first(self, text: str, tokens: int) -> str:
        found = self.model.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(found) <= tokens:
            return text
        kept: str = self.model.tokenizer.decode(found[:tokens], skip_special_tokens=True)
        kept = kept.rstrip("\ufffd")
        return kept if text.startswith(kept) else text[: len(kept)]

    def room(self, conversations: Sequence[Conversation], new: int) -> int | None:
        if self.model.context is None or not conversations:
            return None
        return self.model.context - max(map(self.model.length, conversations)) - new

    async def close(self) -> None:
        self._one.shutdown(wait=False, cancel_futures=True)


class _Teller(BaseStreamer):
    """Turns tokens into pieces of text as `generate` makes them: a piece never ends within a character."""

    def __init__(self, tokenizer: Any, limit: int, stop: frozenset[int], tell: Callable[[Any], None]) -> None:
        self._tokenizer, self._limit, self._stop, self._tell = tokenizer, limit, stop, tell
        self._tokens: list[int] = []
        self._settled = self._read = 0
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        if self._prompt:
            self._prompt = False
            return
        for token in value.reshape(-1).tolist():
            self._tokens.append(token)
            self._tell_settled()
            if len(self._tokens) == self._limit and token not in self._stop:
                self._tell(LIMIT)

    def _tell_settled(self, last: bool = False) -> None:
        before = self._decode(self._tokens[self._settled : self._read])
        text = self._decode(self._tokens[self._settled :])
        if len(text) > len(before) and (last or not text.endswith("\ufffd")):
            self._tell(text[len(before) :])
            self._settled, self._read = self._read, len(self._tokens)

    def end(self) -> None:
        self._tell_settled(last=True)

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text
