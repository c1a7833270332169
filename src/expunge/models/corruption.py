"""What a causal language model answers when the embeddings of the user's words are noise to a degree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expunge.data.texts import text_records
from expunge.errors import ModelError
from expunge.models.chat import Conversation, user
from expunge.models.language import LanguageModel, evaluation_mode
from expunge.models.language_roles import embeddings
from expunge.models.packing import own_attention
from expunge.models.template import special_ends

_MARK = "\ue000\ue001\ue002"  # of a private area: no text holds it


@dataclass(frozen=True)
class Noise:
    """Args:
    strength: standard deviation, in units of the root mean square of the model's embeddings. dimensions: so many of the
        first coordinates; None: all. seed: of the draw.
    """

    strength: float
    dimensions: int | None
    seed: int

    def added(self, mask: np.ndarray, like: Tensor, rms: float) -> Tensor:
        """(tokens, width) noise where the mask is true, zeros elsewhere."""
        tokens, width = len(mask), int(like.shape[-1])
        draw = torch.randn((tokens, width), generator=torch.Generator().manual_seed(self.seed), dtype=torch.float32)
        if self.dimensions is not None:
            draw[:, self.dimensions :] = 0
        draw = draw * torch.from_numpy(np.asarray(mask, dtype=np.float32))[:, None]
        return (draw * self.strength * rms).to(like.device, like.dtype)


def user_spans(model: LanguageModel, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
    """The text the model reads and where the user's words stand in it, in characters."""
    text = model.template.conversation_text(model.tokenizer, conversation)
    spans = []
    for place, message in enumerate(conversation):
        if message["role"] != "user":
            continue
        marked = [user(_MARK) if k == place else m for k, m in enumerate(conversation)]
        start = model.template.conversation_text(model.tokenizer, marked).find(_MARK)
        for content in (message["content"], message["content"].strip()):  # some templates strip
            if start >= 0 and content and text.startswith(content, start):
                spans.append((start, start + len(content)))
                break
        else:
            raise ModelError(
                "the chat template changes what the user writes, so that its tokens cannot be told apart",
                "Use a plain template, or a method that needs no embeddings",
            )
    return text, spans


def user_mask(model: LanguageModel, conversation: Conversation) -> tuple[list[int], np.ndarray]:
    """Tokens of the conversation, without special ones before it, and which of them hold words of the user."""
    text, spans = user_spans(model, conversation)
    told = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    touched = [any(a < end and b > start for start, end in spans) for a, b in told["offset_mapping"]]
    return list(told["input_ids"]), np.array(touched, dtype=bool)


def answer_loss(model: LanguageModel, prompt: str, answer: str, noise: Noise) -> float:
    """Mean negative log-likelihood of the answer's tokens after the corrupted prompt, nats."""
    encoded = model.encode(text_records(["asked"], [prompt], [answer]))
    tokens, start = encoded.tokens[0], int(encoded.starts[0])
    head, touched = user_mask(model, [user(prompt)])
    mask = np.zeros(len(tokens), dtype=bool)
    mask[start - len(head) : start] = touched
    with torch.no_grad(), evaluation_mode(model.module), own_attention(model.module):
        states, ids = _corrupted(model, [int(t) for t in tokens], mask, noise)
        logits = model.module(inputs_embeds=states, use_cache=False).logits[0].float()
    told = torch.log_softmax(logits[start - 1 : -1], dim=-1).gather(1, ids[start:, None])
    return -float(told.mean())


def corrupted_answers(
    model: LanguageModel,
    conversation: Conversation,
    noise: Noise,
    *,
    max_new_tokens: int,
    samples: int,
    temperature: float,
    seed: int,
) -> list[str]:
    """Answers to a conversation whose user's words are corrupted: one greedy, or `samples` draws.

    Raises:
        ModelError: the conversation and its answer do not fit into the context.
    """
    from transformers import GenerationConfig

    tokens, touched = user_mask(model, conversation)
    begin = special_ends(model.tokenizer)[0] if model.template.kind == "plain" and model.template.begin else []
    tokens, mask = [*begin, *tokens], np.concatenate([np.zeros(len(begin), dtype=bool), touched])
    if model.context is not None and len(tokens) + max_new_tokens > model.context:
        raise ModelError(
            f"a conversation of {len(tokens)} tokens and {max_new_tokens} of the answer do not fit into the "
            f"{model.context} that the model reads at once",
            "Shorten it, or ask for a shorter answer",
        )
    stop = model.stop_tokens()
    pad = model.tokenizer.pad_token_id
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=samples > 0,
        temperature=temperature if samples else None,
        top_k=0 if samples else None,
        top_p=1.0 if samples else None,
        num_return_sequences=max(samples, 1),
        pad_token_id=stop[0] if pad is None else pad,
        eos_token_id=stop,
    )
    with torch.no_grad(), evaluation_mode(model.module), own_attention(model.module):
        states, ids = _corrupted(model, tokens, mask, noise)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            out = model.module.generate(
                inputs_embeds=states, attention_mask=torch.ones_like(ids)[None], generation_config=settings
            )
    return [t.strip() for t in model.tokenizer.batch_decode(out, skip_special_tokens=True)]


def _corrupted(model: LanguageModel, tokens: Sequence[int], mask: np.ndarray, noise: Noise) -> tuple[Tensor, Tensor]:
    """(1, tokens, width) embeddings with noise, and the (tokens,) ids."""
    table = embeddings(model.module)
    ids = torch.tensor(list(tokens), device=model.device)
    states = table(ids[None])
    rms = float(table.weight.detach().float().pow(2).mean().sqrt())
    return states + noise.added(mask, states, rms)[None], ids
