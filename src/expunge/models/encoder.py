"""Texts as vectors, from a local causal model or a sentence encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expunge.errors import ModelError

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Args:
    embed: texts -> (n, width) float32. centred: subtract the corpus's mean first: the mean hidden states of a causal
        model share one large direction, which makes any two texts look alike. about: in words.
    """

    embed: Callable[[Sequence[str]], Vectors]
    centred: bool
    about: str


def load_encoder(folder: str, *, device: str = "cpu") -> Encoder:
    """A folder of `transformers`: a causal model (mean of its last hidden states), else an encoder (masked mean).

    Raises:
        ModelError: nothing usable is there. Nothing is ever downloaded.
    """
    config = Path(folder) / "config.json"
    if not config.is_file():
        raise ModelError(f"{folder} is no folder of a model", "Give `model`, or a folder that save_pretrained wrote")
    classes = json.loads(config.read_text(encoding="utf-8")).get("architectures") or [""]
    if classes[0].endswith(("ForCausalLM", "LMHeadModel")):
        from expunge.models.language import LanguageModel

        return of_model(LanguageModel.load(folder, device=device), folder)
    return Encoder(embed=_sentence_encoder(folder, device), centred=False, about=f"sentence encoder {folder}")


def of_model(model: object, name: str) -> Encoder:
    """The encoder that a `LanguageModel` is."""
    return Encoder(embed=model.embed, centred=True, about=f"hidden states of {name}")  # type: ignore[attr-defined]


def unit(vectors: Vectors) -> Vectors:
    """(n, width) each of length 1; a vector of nothing but zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def _sentence_encoder(folder: str, device: str) -> Callable[[Sequence[str]], Vectors]:
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True).to(device).eval()
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"cannot load an encoder from {folder} ({first})", "Give another folder") from error
    longest = int(getattr(model.config, "max_position_embeddings", 512))

    def embed(texts: Sequence[str]) -> Vectors:
        found = np.zeros((len(texts), int(model.config.hidden_size)), np.float32)
        order = sorted(range(len(texts)), key=lambda k: (len(texts[k]), k))
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            batch = tokenizer(
                [texts[r] for r in rows], padding=True, truncation=True, max_length=longest, return_tensors="pt"
            ).to(device)
            with torch.no_grad():
                hidden = model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None]
            found[rows] = ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()
        return found

    return embed
