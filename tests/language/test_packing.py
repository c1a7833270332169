"""Texts in one row give the logits of each alone, on any architecture that is run so."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.models import packing
from expunge.models.packing import Packed, base_of, choose_layout, forward, own_attention, packed_attention

LENGTHS = (5, 1, 11, 2)
SIZE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MORE = {**SIZE, "intermediate_size": 48, "max_position_embeddings": 64}


def llama(**options: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**MORE, num_key_value_heads=options.pop("num_key_value_heads", 2), **options))


def qwen() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**MORE, num_key_value_heads=4, use_sliding_window=False))


def neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**MORE))


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def mistral(window: int | None) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**MORE, num_key_value_heads=2, sliding_window=window))


def gemma2() -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(
        Gemma2Config(**MORE, num_key_value_heads=2, head_dim=8, sliding_window=4, attn_logit_softcapping=0.5)
    )


BUILD: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "qwen2": qwen,
    "gpt_neox": neox,
    "gpt2": gpt2,
    "mistral": lambda: mistral(None),
    "mistral window": lambda: mistral(4),
    "gemma2": gemma2,
}


def make(build: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    module = build().eval()
    with torch.no_grad():  # far from the flat logits of a fresh model
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return module


def batch(lengths: tuple[int, ...] = LENGTHS) -> Packed:
    total = sum(lengths)
    tokens = torch.tensor([(7 * k + 3) % 50 for k in range(total)])
    everywhere = torch.arange(total)
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return Packed(tokens, lengths, everywhere, tokens, segment)


def alone(module: Any, packed: Packed) -> Tensor:
    with torch.no_grad():
        return torch.cat([module(input_ids=row[None]).logits[0] for row in packed.tokens.split(packed.lengths)])


@pytest.mark.parametrize("name", BUILD)
def test_every_layout_gives_the_logits_of_each_text_alone(name: str) -> None:
    module, packed = make(BUILD[name]), batch()
    layout, why = choose_layout(module)
    expected = alone(module, packed)
    with torch.no_grad():
        torch.testing.assert_close(forward(module, packed, layout), expected, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(forward(module, packed, "padded"), expected, atol=2e-5, rtol=1e-4)
    windows = {"mistral window": "sliding window", "gemma2": "sliding window"}
    if version("transformers").startswith("4."):  # its GPT-2 hands the lengths of the texts on to no layer
        windows["gpt2"] = "cannot be packed"
    assert (layout == "padded") == (name in windows), why
    assert windows.get(name, "logits of each alone") in why


def test_a_model_whose_packed_logits_differ_is_padded() -> None:
    module = make(llama)
    rotary = module.model.rotary_emb.forward
    # positions that run on over the whole row, as in a model that makes its own
    module.model.rotary_emb.forward = lambda x, position_ids: rotary(x, torch.arange(x.shape[1])[None] ** 2 % 97)
    layout, why = choose_layout(module)
    assert layout == "padded" and "other logits" in why


def test_a_model_that_takes_no_packed_arguments_is_padded() -> None:
    module = make(gpt2)
    inner = module.forward
    module.forward = lambda input_ids, attention_mask=None, use_cache=False: inner(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache
    )
    layout, why = choose_layout(module)
    assert layout == "padded" and "cannot be packed" in why


@pytest.mark.parametrize("waste", [0.0, 1e9], ids=["one by one", "in a table"])
def test_both_ways_of_attention_give_the_gradients_of_each_alone(waste: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PADDED_WASTE", waste)
    module, packed = make(llama), batch()
    assert packed.plan.table == bool(waste)
    weight = torch.linspace(-1, 1, 50)
    (forward(module, packed, "packed") * weight).sum().backward()
    ours = {n: p.grad.clone() for n, p in module.named_parameters()}
    module.zero_grad()
    for row in packed.tokens.split(packed.lengths):
        (module(input_ids=row[None]).logits[0] * weight).sum().backward()
    for name, p in module.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, atol=1e-4, rtol=1e-3)


def test_only_asked_places_have_logits() -> None:
    module, packed = make(llama), batch()
    places = torch.tensor([0, 4, 6, 18])
    few = Packed(packed.tokens, packed.lengths, places, packed.tokens[places], torch.tensor([0, 0, 2, 3]))
    with torch.no_grad():
        for layout in ("packed", "padded"):
            found = forward(module, few, layout)
            torch.testing.assert_close(found, alone(module, packed)[places], atol=2e-5, rtol=1e-4)


def test_attention_is_put_back() -> None:
    module = make(llama)
    before = module.config._attn_implementation
    with packed_attention(module):
        assert module.config._attn_implementation == packing.ATTENTION
        with own_attention(module):
            assert module.config._attn_implementation == before
        with packed_attention(module):
            pass
        assert module.config._attn_implementation == packing.ATTENTION
    assert module.config._attn_implementation == before
    with pytest.raises(ValueError, match="without the lengths"), packed_attention(module):
        module(input_ids=torch.tensor([[1, 2]]))
    assert module.config._attn_implementation == before


def test_a_plan_survives_a_wrapper_that_copies_its_arguments() -> None:
    module, packed = make(llama), batch()
    inner = module.model.forward
    module.model.forward = lambda *a, cu_seq_lens_q, **k: inner(*a, cu_seq_lens_q=cu_seq_lens_q.clone(), **k)
    with torch.no_grad():
        found = forward(module, packed, "packed")
    del module.model.forward
    torch.testing.assert_close(found, alone(module, packed), atol=2e-5, rtol=1e-4)


def test_the_base_is_found_under_wrappers() -> None:
    class Wrapper(torch.nn.Module):
        def __init__(self, module: Any) -> None:
            super().__init__()
            self.module = module

    module = make(llama)
    assert base_of(Wrapper(Wrapper(module))) is module
    from expunge.methods.text_workspace import Lora

    assert base_of(Wrapper(Lora(rank=2).attach(module, 0))) is module
