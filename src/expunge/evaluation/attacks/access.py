"""What an attacker has of a model, from the least to the most; the weaker ones are included in the stronger."""

from __future__ import annotations

from typing import Literal

Access = Literal["black_box", "logits", "weights", "pair"]
ACCESSES: tuple[Access, ...] = ("black_box", "logits", "weights", "pair")
