"""What measures the answers of an endpoint: an attribute model's checkpoint, rules, or both, each attribute by one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from workbench.algorithms import reward_model
from workbench.data.chat import Chat
from workbench.data.rows import Malformed, Message, Rated, Role
from workbench.engine import checkpoint, hf, parallel
from workbench.engine.step import Policy
from workbench.processes.attribute_models import measured
from workbench.rundir.store import RunDir
from workbench.settings import Model, stored
from workbench.settings.modules import outputs_of
from workbench.steering import rules

BY_RULE = "rule"


class AttributeModel:
    """A checkpoint of `algorithm=reward_model` that predicts ratings; every rank of the gang makes the same calls. `longest` is of prompt and answer in tokens.

    Raises:
        ValueError: the checkpoint is of another algorithm or objective, or its weights do not fit.
    """

    def __init__(self, folder: Path, base: Model):
        of = stored.experiment(RunDir(folder.parents[1]))
        cfg = of.algorithm
        if not isinstance(cfg, reward_model.Config) or cfg.objective == "ranking":
            raise ValueError(
                f"job.measure={folder} is of algorithm={cfg.name}: attributes are measured by one of reward_model, with objective regression or ordinal"
            )
        self.id, self._cfg = f"{folder.parents[1].name}:{folder.name}", cfg
        model = of.model.model_copy(
            update={"tensor_parallel": base.tensor_parallel, "pipeline_parallel": 1, "context_parallel": 1, "expert_parallel": 1}
        )
        alone = {"virtual_pipeline": 1, "sequence_parallel": False, "distributed_optimizer": False, "recompute": "none"}
        directory = parallel.from_first(hf.local_directory(model.source, model.revision) if parallel.rank() == 0 else Path())
        self._policy = Policy(model.model_copy(update=alone), cfg, directory, 1, outputs_of(cfg))
        checkpoint.load_weights(self._policy, folder.parent, int(folder.name))
        self._chat = Chat.of(hf.tokenizer(directory), of.data)
        self.attributes, self._longest = cfg.attributes, of.data.max_length

    def measure(self, messages: Sequence[Mapping[str, str]], response: str) -> dict[str, float]:
        """The expected rating of each attribute. Raises ValueError for what its template does not take, and for more tokens than it was trained on."""
        turns = tuple(Message(cast(Role, each["role"]), each["content"]) for each in messages)
        try:
            row = self._chat.one(Rated(turns, response, {}))
        except Malformed as error:
            raise ValueError(f"{self.id} cannot read it: {' but found '.join(map(str, error.args))}") from None
        if (length := len(row.prefix) + len(row.branches[0])) > self._longest:
            raise ValueError(f"{self.id} reads {self._longest} tokens (data.max_length of its run); prompt and answer have {length}")
        (given,) = self._policy.outputs([row])
        return dict(measured(given.of("scores_SK")[0], self._cfg).expected)


class Measures:
    """The rules of an endpoint and its attribute model. Raises ValueError where both rate one attribute."""

    def __init__(self, names: Sequence[str], model: AttributeModel | None):
        self.rules, self.model = rules.find_all(names), model
        if both := sorted(set(self.rules) & set(model.attributes if model else ())):
            raise ValueError(f"job.measure and job.rules both measure {both[0]}: leave the rule out, or name another model")

    def __bool__(self) -> bool:
        return bool(self.rules) or self.model is not None

    def by_rule(self, messages: Sequence[Mapping[str, str]], response: str) -> dict[str, float]:
        """Of attributes that have a rating. Raises ValueError as `rules.rate` does."""
        rated = {name: rules.rate(name, rule, messages, response) for name, rule in self.rules.items()}
        return {name: value for name, value in rated.items() if value is not None}
