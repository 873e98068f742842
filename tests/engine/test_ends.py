"""What ends an answer: of a base model, whose end of sequence is not what its chat template writes, while training and in its export."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tests import models
from workbench.engine import hf


def base_model(folder: Path) -> Path:
    """The tiny model with `<|endoftext|>` as its end of sequence, under a template that ends turns with `<|im_end|>`."""
    models.save(folder)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        path = folder / name
        settings = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**settings, **({"eos_token": "<|endoftext|>"} if name.startswith("tok") else {"eos_token_id": 0})}))
    return folder


def test_a_template_end_stops_sampling_beside_the_end_of_sequence(tmp_path: Path) -> None:
    folder = base_model(tmp_path / "base")
    words = AutoTokenizer.from_pretrained(folder)
    assert hf.end_tokens(folder) == {words.convert_tokens_to_ids("<|endoftext|>"), words.convert_tokens_to_ids("<|im_end|>")}


def test_an_export_stops_there_too(tmp_path: Path) -> None:
    """transformers' own generate ends an answer of the export at the template's end."""
    folder = base_model(tmp_path / "base")
    weights = dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())
    parts = {part.name: part for part in hf.mapping(hf.config(folder))}
    ours = {
        name: part.join([weights[each] for each in part.hf_names]) for name, part in parts.items() if all(each in weights for each in part.hf_names)
    }
    out = hf.save(ours, folder, tmp_path / "out", "")
    assert set(GenerationConfig.from_pretrained(out).eos_token_id) == hf.end_tokens(folder)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    end = AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("<|im_end|>")
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    model.lm_head.bias = torch.nn.Parameter(torch.nn.functional.one_hot(torch.tensor(end), len(model.lm_head.weight)).float())
    prompt = torch.tensor([[5, 6, 7]])
    answer = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert answer[0, 3:].tolist() == [end]
