"""A language model that only reads: its weights, and no gradients, optimizer state or reference. Adapters on the same base share its weights."""

from __future__ import annotations

from pathlib import Path

from workbench.engine import checkpoint, device, hf, lora, parallel
from workbench.engine.loading import load_weights
from workbench.engine.model import PackedGPT, build, named_parameters
from workbench.engine.snapshot import Snapshot
from workbench.settings import Model
from workbench.settings.outputs import Outputs


class Reader:
    """The model of a Hugging Face directory, with a checkpoint's weights where one is named: of adapters, on the base's.

    `base` is another with the same directory and precision whose frozen weights this one has too, in place of a copy: not for a model all of whose weights
    were trained.

    Raises:
        ValueError: the engine does not have the architecture, the directory's weights are others than the checkpoint's adapters were trained on, or the
            model scores answers.
    """

    def __init__(self, model: Model, directory: Path, weights: Path | None = None, base: Reader | None = None):
        alone = {"distributed_optimizer": False, "sequence_parallel": False, "recompute": "none", "transformer_engine": False, "fp8": False}
        precision = device.native_precision() if model.precision == "auto" else model.precision
        self.settings = model.model_copy(update={**alone, "precision": precision})
        self.directory, self.hf_config, self.wanted = directory, hf.config(directory), Outputs(logprobs=True)
        self.snapshot: Snapshot | None = None
        self.chunks: list[PackedGPT] = build(self.hf_config, self.settings)
        (self.model,) = self.chunks
        if base is None:
            load_weights(named_parameters(self.chunks), directory, False, parallel.tensor_rank(), parallel.tensor_size())
        else:
            frozen = {name: parameter for name, parameter in named_parameters(base.chunks) if "lora_" not in name}
            for name, parameter in named_parameters(self.chunks):
                parameter.data = frozen[name].data
        if model.lora.rank and weights is not None:
            lora.attach(self.model, model.lora, model.init_seed)
        self.model.to(device.current())
        if weights is not None:
            checkpoint.load_weights(self, weights.parent, int(weights.name))
        self.model.requires_grad_(False)

    @property
    def own_bytes(self) -> int:
        """Of this rank's weights, those of adapters alone."""
        return sum(parameter.nbytes for name, parameter in self.model.named_parameters() if "lora_" in name)

    @property
    def all_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.model.parameters())
