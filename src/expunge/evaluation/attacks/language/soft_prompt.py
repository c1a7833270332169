"""Words that no vocabulary has: vectors that stand in a prompt as new tokens, and can be trained."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from expunge.data.records import Records
from expunge.models.language import LanguageModel
from expunge.models.language_roles import embeddings
from expunge.models.packing import base_of
from expunge.training.seeds import generator


class SoftEmbedding(nn.Module):
    """Input embeddings with some trainable rows for new tokens; all else of the model is as it was.

    Args:
        base: the embeddings. rows: (soft tokens, width) where they start. first: number of the first new token.
    """

    def __init__(self, base: nn.Module, rows: Tensor, first: int) -> None:
        super().__init__()
        self.base, self.soft, self.first = base, nn.Parameter(rows), first

    @property
    def weight(self) -> Tensor:
        """(vocabulary + soft tokens, width), for whoever asks how many rows there are."""
        return torch.cat([self.base.weight.detach(), self.soft.detach()])  # type: ignore[operator]

    def forward(self, tokens: Tensor) -> Tensor:
        place = tokens - self.first
        new = (place >= 0) & (place < len(self.soft))
        known: Tensor = self.base(tokens.masked_fill(new, 0))
        return torch.where(new[..., None], self.soft[place.clamp(0, len(self.soft) - 1)].to(known.dtype), known)


class SoftPrompt:
    """A model whose questions can begin with trainable tokens; nothing else of it takes gradients.

    Args:
        model: written to. count: soft tokens. seed: of their start, the embeddings of tokens drawn at random.

    Attributes:
        model: answers questions that `before` has put the tokens in front of. rows: the trainable parameter.
    """

    def __init__(self, model: LanguageModel, count: int, seed: int) -> None:
        tokenizer = copy.deepcopy(model.tokenizer)
        names = [f"<soft-{k}>" for k in range(count)]
        size = len(tokenizer)
        tokenizer.add_tokens(names, special_tokens=True)
        table = embeddings(model.module).weight.detach()
        drawn = torch.randint(size, (count,), generator=generator(seed, "soft prompt"))
        rows = table[drawn.to(table.device)].float().clone()
        model.module.requires_grad_(False)
        layer = SoftEmbedding(embeddings(model.module), rows, size)
        base_of(model.module).set_input_embeddings(layer)
        self.model = LanguageModel(model.module, tokenizer, model.template)
        self.rows, self.words = layer.soft, "".join(names)

    def before(self, questions: Records) -> Records:
        """The questions with the soft tokens in front."""
        prompts = np.array([f"{self.words}{p}" for p in questions.column("prompt")], dtype=object)
        return Records(ids=questions.ids, columns={**questions.columns, "prompt": prompts}, owners=questions.owners)
