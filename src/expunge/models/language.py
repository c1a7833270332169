"""A causal language model as a model here: any that `transformers` loads, with its tokenizer and its template."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from expunge.data.records import Records
from expunge.environment import loading
from expunge.errors import ContextTooLong, ModelError, RequestError
from expunge.models.chat import Conversation, checked
from expunge.models.classifier import state_digest
from expunge.models.packing import own_attention
from expunge.models.pieces import cut_to_context
from expunge.models.scoped_memory import NOTES, load_scoped_memory
from expunge.models.steering import attach, load_steering, save_steering, without_steering
from expunge.models.template import Encoded, Template, encode

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LanguageModel:
    """Adapter over a `transformers` causal language model.

    Args:
        module: a `PreTrainedModel` with a language-modelling head, or a `PeftModel` around one; never written to by a
            method, which edits a copy. tokenizer: its tokenizer. template: words around prompt and answer; by default
            the tokenizer's chat template where it has one.

    Raises:
        ModelError: the module has no output embeddings, or fewer of them than the tokenizer has tokens.
    """

    capabilities = frozenset({"weights", "logits", "generate", "embed"})

    def __init__(self, module: Any, tokenizer: Any, template: Template | None = None) -> None:
        if not hasattr(module, "get_output_embeddings") or module.get_output_embeddings() is None:
            raise ModelError(
                f"{type(module).__name__} has no language-modelling head", "Load it with AutoModelForCausalLM"
            )
        rows = module.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            raise ModelError(
                f"the tokenizer has {len(tokenizer)} tokens and the model {rows} embeddings",
                "Give the model its own tokenizer, or resize its embeddings before training",
            )
        if template is None:
            template = Template(kind="chat") if getattr(tokenizer, "chat_template", None) else Template()
        if template.kind == "chat" and not getattr(tokenizer, "chat_template", None):
            raise RequestError("the tokenizer has no chat template", "Use a plain template")
        self.module, self.tokenizer, self.template = module, tokenizer, template

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        template: Template | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        revision: str | None = None,
    ) -> LanguageModel:
        """Load a folder or a hub model; a folder of a LoRA adapter loads its base too.

        Raises:
            ModelError: nothing is there, the hub cannot be reached, or it is no causal language model.
            RequestError: unknown dtype, or a device that this machine lacks.
        """
        with loading():
            from transformers import AutoModelForCausalLM, AutoTokenizer

            for part in ("modeling_utils", "generation"):  # of every model; each would be loaded on first use
                import_module(f"transformers.{part}")
        _own_progress()
        check_device(device)
        if dtype not in DTYPES:
            raise RequestError(f"unknown dtype {dtype!r}", f"Choose one of {', '.join(DTYPES)}")
        name = str(source)
        options: dict[str, Any] = {"revision": revision} if revision else {}
        try:
            if (Path(name) / "adapter_config.json").exists():
                from peft import AutoPeftModelForCausalLM

                with quiet_peft():
                    module = AutoPeftModelForCausalLM.from_pretrained(
                        name, torch_dtype=DTYPES[dtype], is_trainable=False
                    )
            else:
                module = AutoModelForCausalLM.from_pretrained(name, dtype=DTYPES[dtype], **options)
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
        except (OSError, ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0][:200]
            raise ModelError(
                f"cannot load a causal language model and its tokenizer from {name!r} ({first})",
                "Give a folder written by save_pretrained; a hub name needs the network, or the model in the cache",
            ) from error
        kept = Path(name) / "template.json"
        if template is None and kept.exists():
            template = Template(**json.loads(kept.read_text(encoding="utf-8")))
        steering = load_steering(Path(name))
        if steering:
            attach(module, steering)
        if (Path(name) / NOTES).exists():
            words = template or Template(kind="chat" if getattr(tokenizer, "chat_template", None) else "plain")
            module = load_scoped_memory(module, Path(name), tokenizer, words)
        return cls(module.to(device).eval(), tokenizer, template)

    @property
    def device(self) -> torch.device:
        placed: torch.device | None = getattr(self.module, "placed_on", None)
        return placed or next(iter(self.module.parameters())).device

    @property
    def context(self) -> int | None:
        """Most tokens the model reads at once; None when its configuration does not say."""
        value = getattr(self.module.config, "max_position_embeddings", None)
        return None if value is None else int(value)

    @property
    def adapted(self) -> bool:
        """Whether the module is a frozen base with an adapter."""
        return hasattr(self.module, "peft_config")

    def encode(self, records: Records) -> Encoded:
        """The records as tokens, in this model's template; see `expunge.models.template.encode`."""
        return encode(records, self.tokenizer, self.template, longest=self.context)

    def pieces(self, records: Records) -> Records:
        """The records, plain texts longer than the context in pieces; see `expunge.models.pieces.cut_to_context`."""
        return cut_to_context(records, self.tokenizer, self.template, self.context)

    def copy(self) -> LanguageModel:
        return LanguageModel(copy.deepcopy(self.module), self.tokenizer, self.template)

    def digest(self) -> str:
        """SHA-256 over names, shapes and bytes of all parameters and buffers, hexadecimal."""
        return state_digest(self.module.state_dict())

    def merged(self) -> LanguageModel:
        """The same model with its adapter added into the weights; a new one, or itself where there is no adapter."""
        if not self.adapted:
            return self
        return LanguageModel(copy.deepcopy(self.module).merge_and_unload(), self.tokenizer, self.template)

    def save(self, folder: str | Path, *, form: Literal["original", "adapter", "merged"] = "original") -> None:
        """Write it as `transformers` (and `peft`) do, tokenizer and template beside.

        Args:
            form: ``original`` as the module is, ``adapter`` only the adapter, ``merged`` the adapter added in.

        Raises:
            ModelError: an adapter is asked for and there is none.
        """
        if form == "adapter" and not self.adapted:
            raise ModelError("there is no adapter to save", "Unlearn with lora, or save the whole model")
        _own_progress()
        module = self.merged().module if form == "merged" else self.module
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with without_steering(module) as steering:
            module.save_pretrained(str(folder), safe_serialization=True)
        save_steering(steering, folder)
        self.tokenizer.save_pretrained(str(folder))
        (folder / "template.json").write_text(json.dumps(self.template.as_dict(), indent=1) + "\n", encoding="utf-8")

    # --- what it says --------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
        batch_size: int = 32,
        raw: bool = False,
    ) -> list[str] | list[list[str]]:
        """Answers to prompts: greedy, or `samples` draws each at `temperature` (then a list of lists).

        Args:
            prompts: as a user writes them; the template is put around them unless `raw`.
            seed: of the draws, which depend on it and the batch alone.

        Raises:
            ModelError: the tokenizer has no end-of-text token, so that nothing would stop.
        """
        texts = [p if raw else self.template.prompt_text(self.tokenizer, p) for p in prompts]
        order = sorted(range(len(texts)), key=lambda k: (len(texts[k]), k))
        found: list[Any] = [None] * len(texts)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            told = self._generate([texts[r] for r in rows], max_new_tokens, samples, temperature, seed + start)
            for r, text in zip(rows, told, strict=True):
                found[r] = text
        return found

    def chat(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 64,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
        batch_size: int = 32,
    ) -> list[list[str]]:
        """Answers to conversations; see `expunge.models.chat.ChatModel`.

        Raises:
            RequestError: not a conversation. ContextTooLong: one is longer than the model reads at once.
        """
        texts = [self.template.conversation_text(self.tokenizer, checked(c)) for c in conversations]
        if self.context is not None and texts:
            longest = max(map(len, self.tokenizer(texts, add_special_tokens=False)["input_ids"]))
            if longest + max_new_tokens > self.context:
                raise ContextTooLong(
                    f"a conversation of {longest} tokens and {max_new_tokens} of the answer do not fit into the "
                    f"{self.context} that the model reads at once",
                    "Shorten it, or ask for a shorter answer",
                )
        said = self.generate(
            texts, max_new_tokens=max_new_tokens, samples=samples, temperature=temperature, seed=seed,
            batch_size=batch_size, raw=True,
        )  # fmt: skip
        return [[one] if isinstance(one, str) else list(one) for one in said]

    def length(self, conversation: Conversation) -> int:
        """Tokens that a conversation takes."""
        text = self.template.conversation_text(self.tokenizer, conversation)
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _generate(self, texts: list[str], new: int, samples: int, temperature: float, seed: int) -> list[Any]:
        from transformers import GenerationConfig

        eos = self.stop_tokens()
        begin = self._begin() if self.template.kind == "plain" and self.template.begin else []
        rows = [[*begin, *t] for t in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        rows = [row or [eos[0]] for row in rows]
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else eos[0]
        tokens = torch.full((len(rows), longest), pad, dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for k, row in enumerate(rows):
            tokens[k, longest - len(row) :] = torch.tensor(row)
            mask[k, longest - len(row) :] = 1
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=new,
            do_sample=samples > 0,
            temperature=temperature if samples else None,
            top_k=0 if samples else None,
            top_p=1.0 if samples else None,
            num_return_sequences=max(samples, 1),
            pad_token_id=pad,
            eos_token_id=eos,
        )
        with _quiet(self.module), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            out = self.module.generate(
                input_ids=tokens.to(self.device), attention_mask=mask.to(self.device), generation_config=settings
            )
        told = self.tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
        told = [t.strip() for t in told]
        if not samples:
            return told
        return [told[k * samples : (k + 1) * samples] for k in range(len(texts))]

    def _begin(self) -> list[int]:
        from expunge.models.template import special_ends

        return special_ends(self.tokenizer)[0]

    def stop_tokens(self) -> list[int]:
        """Tokens that end an answer."""
        told = getattr(getattr(self.module, "generation_config", None), "eos_token_id", None)
        own = self.tokenizer.eos_token_id
        found = {*(told if isinstance(told, list) else [told]), own} - {None}
        if not found:
            raise ModelError("the tokenizer has no end-of-text token, so that no answer would end", "Set its eos_token")
        return sorted(int(t) for t in found if t is not None)

    def embed(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """(n, width) float32: the mean of the last hidden states over a text's tokens."""
        found = []
        for start in range(0, len(texts), batch_size):
            rows = self.tokenizer(list(texts[start : start + batch_size]), add_special_tokens=False)["input_ids"]
            for row in rows:
                with _quiet(self.module):
                    out = self.module(
                        input_ids=torch.tensor([row or self.stop_tokens()[:1]], device=self.device),
                        output_hidden_states=True,
                        use_cache=False,
                    )
                found.append(out.hidden_states[-1][0].float().mean(0).cpu().numpy())
        return np.stack(found) if found else np.zeros((0, self.module.config.hidden_size), np.float32)


@contextmanager
def _quiet(module: Any) -> Iterator[None]:
    with torch.no_grad(), evaluation_mode(module), own_attention(module):
        yield


@contextmanager
def quiet_peft() -> Iterator[None]:
    """While peft builds a model: it asks by a name that transformers 5 has deprecated and still answers to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


@contextmanager
def evaluation_mode(module: Any) -> Iterator[None]:
    """The module in evaluation mode, and in its own again afterwards."""
    was = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was)


def _own_progress() -> None:
    """No bars of `transformers`: expunge shows its own."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]


def check_device(device: str) -> None:
    """Refuse a device that this machine lacks.

    Raises:
        RequestError.
    """
    kind = device.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in there:
        raise RequestError(f"unknown device {device!r}", f"Choose one of {', '.join(there)}")
    if not there[kind]:
        raise RequestError(f"this machine has no {kind} device", "Choose cpu")
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # one of several processes: each its own accelerator
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def trainable_parameters(module: Any) -> dict[str, Tensor]:
    """Name -> parameter of all that take gradients, tied ones once."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
