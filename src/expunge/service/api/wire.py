"""What every shape has in common: no unknown fields, and ids of one form."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict

NO_PERSON = "No personal data."
EXTERNAL_ID = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,119}$"
TARGET_ID = r"^[a-z0-9][a-z0-9._-]{0,79}$"


def own_id(prefix: str) -> str:
    return rf"^{prefix}_[a-z2-7]{{26}}$"


RequestId = Annotated[str, Path(pattern=own_id("req"), examples=["req_ow7vkw3tqgbhd6pylfeo5x4mzi"])]
WebhookId = Annotated[str, Path(pattern=own_id("wh"), examples=["wh_ow7vkw3tqgbhd6pylfeo5x4mzi"])]
KeyId = Annotated[str, Path(pattern=own_id("key"), examples=["key_ow7vkw3tqgbhd6pylfeo5x4mzi"])]
TargetId = Annotated[str, Path(pattern=TARGET_ID, examples=["spam-sisa"])]


class Wire(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")
