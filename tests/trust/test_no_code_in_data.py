"""Nothing that the project reads is run: no pickle, no remote code, no evaluated text, anywhere in its sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "workbench/engine/checkpoint_files.py: pickle.Unpickler": "the restricted one itself, for an explicit list of names",
    "workbench/engine/lora.py: PeftModel.from_pretrained": "has no trust_remote_code; its safetensors are asked for first",
    "workbench/settings/plain.py: yaml.load": "of a loader that knows texts, numbers, lists and mappings alone",
}
"""What is left, and why it is no risk. Between the ranks of a gang torch sends pickled objects of its own."""


def findings(path: str, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("pickle.Unpickler", "pickle._Unpickler", "yaml.Loader", "yaml.UnsafeLoader"):
            yield f"{path}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "dill", "cloudpickle", "marshal", "shelve"):
            yield f"{path}: from {node.module} import"
        if isinstance(node, ast.Call) and (name := _refused(node)):
            yield f"{path}: {name}"


def _refused(call: ast.Call) -> str:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    trusts = given.get("trust_remote_code", "False") != "False" or given.get("allow_pickle", "False") != "False"
    bad = {
        "pickle": name in ("eval", "exec", "pickle.load", "pickle.loads", "marshal.loads", "joblib.load", "torch.jit.load", "pandas.read_pickle"),
        "yaml": name in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all"),
        "torch": name in ("torch.load", "torch.hub.load") and given.get("weights_only") != "True",
        "numpy": name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False",
        "transformers": name.endswith(".from_pretrained") and "trust_remote_code" not in given and given.get(None) != "NO_CODE",
    }
    return name if trusts or any(bad.values()) else ""


def test_no_source_runs_what_it_reads() -> None:
    sources = [path for top in ("workbench", "backends", "app") for path in sorted((ROOT / top).rglob("*.py"))]
    found = {finding for path in sources for finding in findings(str(path.relative_to(ROOT)), path.read_text())}
    assert found == set(ALLOWED), f"new: {sorted(found - set(ALLOWED))}; gone: {sorted(set(ALLOWED) - found)}"


@pytest.mark.parametrize(
    "text",
    [
        "pickle.load(f)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "yaml.load(t, Loader=yaml.Loader)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "eval(x)",
        "exec(x)",
        "AutoConfig.from_pretrained(d)",
        "AutoConfig.from_pretrained(d, trust_remote_code=True)",
        "datasets.load_dataset(n, trust_remote_code=True)",
        "from pickle import loads",
        "class A(pickle.Unpickler): ...",
    ],
)
def test_each_is_found(text: str) -> None:
    assert list(findings("x.py", text))


@pytest.mark.parametrize(
    "text", ["model.eval()", "torch.load(p, weights_only=True)", "yaml.safe_load(t)", "AutoConfig.from_pretrained(d, **NO_CODE)"]
)
def test_what_is_harmless_is_not(text: str) -> None:
    assert not list(findings("x.py", text))
