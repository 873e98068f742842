"""TRL's half of the comparison; runs in TRL's own environment and imports nothing of this project.

`python trl_side.py SETTINGS.json` prints one JSON line: the first step's loss and log-probabilities, seconds of each step, peak memory.
"""

import json
import resource
import sys
import time

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

settings = json.load(open(sys.argv[1]))  # noqa: SIM115, PTH123
torch.set_num_threads(settings["threads"])
torch.manual_seed(0)


class Watch(TrainerCallback):
    """Times each optimizer step and keeps what the trainer logs of it."""

    def __init__(self):
        self.seconds, self.logs = [], []

    def on_step_begin(self, *args, **kwargs):
        self.started = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(time.perf_counter() - self.started)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(logs)


common = {
    "output_dir": settings["scratch"],
    "per_device_train_batch_size": settings["batch_size"],
    "max_steps": settings["steps"],
    "learning_rate": settings["lr"],
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": not torch.cuda.is_available(),
    "bf16": settings["precision"] == "bf16",
    "gradient_checkpointing": False,  # TRL's default recomputes activations, which would only slow it down here
    "max_length": settings["max_length"],
    "disable_tqdm": True,
    "seed": 0,
}
model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32, trust_remote_code=False, use_safetensors=True)
tokenizer = AutoTokenizer.from_pretrained(settings["model"], trust_remote_code=False)
adapters = LoraConfig(
    r=settings["rank"],
    lora_alpha=settings["alpha"],
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    task_type="CAUSAL_LM",
)
rows = Dataset.from_list(settings["rows"])
watch = Watch()
if settings["kind"] == "dpo":
    config = DPOConfig(beta=settings["beta"], **common)
    trainer = DPOTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=adapters, callbacks=[watch])
else:
    config = SFTConfig(completion_only_loss=True, **common)
    trainer = SFTTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=adapters, callbacks=[watch])
trainer.train()
first = watch.logs[0]
result = {
    "loss": float(first["loss"]),
    "logprobs_chosen": first.get("logps/chosen"),
    "logprobs_rejected": first.get("logps/rejected"),
    "seconds": watch.seconds,
    "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
}
print("RESULT " + json.dumps(result))
