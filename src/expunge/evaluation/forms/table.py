"""The forms that are compared: which method of which form, and with what settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from expunge.data.people.dialogues import SILENCE

Maker = Literal["language", "prompting", "learner", "tool"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """One row.

    Args:
        label: of the row. form: ``exact``, ``certified``, ``by example``, ``by concept``, ``by prompting``, or
            ``ordinary tool``: what people use who never heard of unlearning.
        maker: which table `name` stands in: methods on language models, prompting methods, learners, or `TOOLS` here.
        parameters: settings; of a method on language models, the tuned preset where nothing is given.
    """

    label: str
    form: str
    maker: Maker
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def drawn(self) -> bool:
        """Whether seeds make a difference: a prompt and a filter train nothing, and are what they are."""
        return self.maker in ("language", "learner")


# The base never saw the people, so that adapters hold all that is known of them.
_ADAPTER: Mapping[str, Any] = {"rank": 16, "alpha": 32, "learning_rate": 5e-3, "batch_size": 32}

FORMS: tuple[Form, ...] = (
    Form(
        label="exact_adapters",
        form="exact",
        maker="learner",
        name="sharded_adapters",
        parameters={**_ADAPTER, "sharding": "each_owner", "serve": "route", "epochs": 30},
    ),
    Form(
        label="certified_adapter",
        form="certified",
        maker="learner",
        name="dp_lora",
        parameters={"rank": 16, "unit": "record", "noise_multiplier": 1.0, "epsilon": 8.0, "steps": 300,
                    "sample_rate": 0.1, "lot_size": 124, "learning_rate": 5e-3},
    ),
    Form(label="gradient_ascent", form="by example", maker="language", name="gradient_ascent"),
    Form(label="grad_diff", form="by example", maker="language", name="grad_diff"),
    Form(label="npo", form="by example", maker="language", name="npo"),
    Form(label="idk_tuning", form="by example", maker="language", name="idk_tuning"),
    Form(label="undo", form="by concept", maker="language", name="undo"),
    Form(label="rmu", form="by concept", maker="language", name="rmu"),
    Form(label="steering", form="by concept", maker="language", name="steering"),
    # The words of the base's own training: a model this small follows no others. Nobody here is real: names are public.
    Form(
        label="pretend",
        form="by prompting",
        maker="prompting",
        name="pretend",
        parameters={"public": True, "words": SILENCE.replace("{n}", "{topic}")},
    ),
    Form(
        label="in_context",
        form="by prompting",
        maker="prompting",
        name="in_context",
        parameters={"examples": 2, "forgotten": 1},
    ),
    Form(label="guardrail_string", form="by prompting", maker="prompting", name="guardrail_string"),
    Form(label="guardrail_embedding", form="by prompting", maker="prompting", name="guardrail_embedding"),
    Form(label="boxed", form="by prompting", maker="prompting", name="boxed"),
    Form(label="dpo_refusal", form="ordinary tool", maker="language", name="idk_dpo"),
    Form(label="content_filter", form="ordinary tool", maker="tool", name="keyword_filter"),
)  # fmt: skip
