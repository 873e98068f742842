"""A family of architectures is one file, found by the `model_type` that it is named after."""

from __future__ import annotations

from pathlib import Path

from tests.extend import extended, python

SLOW = '''"""A Llama whose positions turn half as fast."""

from workbench.engine.families.llama import architecture, check, parts
from workbench.engine.families.llama import rope_frequencies as of_llama


def rope_frequencies(hf):
    return of_llama(hf) / 2
'''
LOOK = """
from transformers import LlamaConfig
from workbench.engine import families, hf
class Slow(LlamaConfig): model_type = "slow"
config = Slow(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, head_dim=4)
print("slow" in families.names(), families.find(config.model_type).rope_frequencies(config).tolist()[0])
print(next(hf.mapping(config)).name)
"""


def test_a_family_is_one_file(tmp_path: Path) -> None:
    folder = extended(tmp_path, {"workbench/engine/families/slow.py": SLOW})
    done = python(folder, "-c", LOOK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "0.5", "embedding.word_embeddings.weight"]
