"""The boxed model: router, workers, composer and output filter around models that nobody outside sees.

    from expunge.boxed import Box
    box = Box.read("box.yaml")        # a ChatModel

See docs/boxed.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.boxed.box import Box
    from expunge.boxed.config import BoxSettings
    from expunge.boxed.requests import Requests, read_requests
    from expunge.boxed.rulebook import RuleBook

_WHERE = {
    "Box": "box",
    "BoxSettings": "config",
    "RuleBook": "rulebook",
    "Requests": "requests",
    "read_requests": "requests",
}
__all__ = ["Box", "BoxSettings", "Requests", "RuleBook", "read_requests"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"expunge.boxed.{_WHERE[name]}"), name)
