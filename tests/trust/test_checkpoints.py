"""A checkpoint or a model from somebody else runs no code, and reads no file beside its own."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import metadata as index_types

from tests import models
from workbench.algorithms import dpo
from workbench.data.packing import Row
from workbench.engine import checkpoint, hf, state
from workbench.engine.checkpoint import Checkpoints
from workbench.engine.checkpoint_files import Reader
from workbench.engine.step import Policy
from workbench.jobs.checkpoints import with_checkpoint
from workbench.settings import Checkpoint, Lora, Model
from workbench.settings.composing import SpecError
from workbench.settings.spec import compose


class Bomb:
    """Its pickle makes a file when it is read: proof that code ran."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.canary), "w")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory, alone: None) -> Policy:
    folder = tmp_path_factory.mktemp("trust")
    cfg = dpo.Config(global_batch_size=2, micro_batch_tokens=128)
    model = Model(source=str(models.save(folder / "model")), lora=Lora(rank=2))
    found = Policy(model, cfg, folder / "model", 10, dpo.OUTPUTS)
    row = Row([3, 4, 5], ([6, 7], [8, 9]), reference_logprobs_N=np.full(4, -3.0, np.float32))
    found.update([row, row], dpo.loss, 0, 0)
    saved = Checkpoints(found, folder / "checkpoints", Checkpoint())
    saved.save(1)
    saved.finish()
    return found


@pytest.fixture
def given(policy: Policy, tmp_path: Path) -> Path:
    """A checkpoint that was given to us, of step 1, whose files are ours to spoil."""
    source = Path(policy.settings.source).parent
    shutil.copytree(source / "checkpoints", tmp_path / "checkpoints")
    return tmp_path / "checkpoints" / "1"


def load(policy: Policy, given: Path) -> None:
    checkpoint.load(policy, given.parent, 1)


def load_weights(policy: Policy, given: Path) -> None:
    checkpoint.load_weights(policy, given.parent, 1)


ROADS = [load, load_weights]
"""A resumed run and its critic; evaluate, generate, export and whatever else takes weights alone."""


def index_is_a_bomb(given: Path, canary: Path) -> str:
    (given / ".metadata").write_bytes(pickle.dumps(Bomb(canary)))
    return r"\.metadata asks for \w+\.open, which could run code"


def index_has_a_bomb(given: Path, canary: Path) -> str:
    index = pickle.loads((given / ".metadata").read_bytes())
    index.planner_data = Bomb(canary)
    (given / ".metadata").write_bytes(pickle.dumps(index))
    return r"\.metadata asks for \w+\.open, which could run code"


def weight_is_an_object(given: Path, canary: Path) -> str:
    """torch unpickles freely what the index calls an object."""
    index = pickle.loads((given / ".metadata").read_bytes())
    key, where = next((key, where) for key, where in index.storage_data.items() if "lora_A" in key.fqn)
    payload = io.BytesIO()
    torch.save(Bomb(canary), payload)
    with (given / where.relative_path).open("ab") as file:
        where.offset, where.length = file.tell(), len(payload.getvalue())
        file.write(payload.getvalue())
    index.state_dict_metadata[key.fqn] = index_types.BytesStorageMetadata()
    del index.storage_data[key]
    index.storage_data[index_types.MetadataIndex(key.fqn)] = where
    (given / ".metadata").write_bytes(pickle.dumps(index))
    return r"asks for torch\.distributed\.checkpoint\.metadata\.BytesStorageMetadata"


def common_is_a_bomb(given: Path, canary: Path) -> str:
    torch.save({"x": Bomb(canary)}, given / "common.pt")
    return r"common\.pt is refused"


def index_sets_on_classes(given: Path, canary: Path) -> str:
    """A pickle may set attributes of the classes that it names."""
    text = b"ctorch.distributed.checkpoint.metadata\nMetadata\n" + pickle.dumps((None, {"version": "theirs"}))[2:-1] + b"b."
    (given / ".metadata").write_bytes(b"\x80\x04" + text)
    return r"changes Metadata\.version"


def _storage(given: Path, **changes: object) -> None:
    index = pickle.loads((given / ".metadata").read_bytes())
    for where in index.storage_data.values():
        vars(where).update(changes)
    (given / ".metadata").write_bytes(pickle.dumps(index))


def index_leads_elsewhere(given: Path, canary: Path) -> str:
    shutil.move(given / "__0_0.distcp", given.parent / "__0_0.distcp")
    _storage(given, relative_path="../__0_0.distcp")
    return r"names the file '\.\./__0_0\.distcp'; expected a plain name"


def index_leads_to_a_root(given: Path, canary: Path) -> str:
    _storage(given, relative_path=str(given / "__0_0.distcp"))
    return "expected a plain name"


def shard_is_a_link(given: Path, canary: Path) -> str:
    shutil.move(given / "__0_0.distcp", given.parent / "elsewhere")
    (given / "__0_0.distcp").symlink_to(given.parent / "elsewhere")
    return "no such plain file"


def shard_is_transformed(given: Path, canary: Path) -> str:
    _storage(given, transform_descriptors=["stream.zstd"])
    return r"is transformed by \['stream\.zstd'\]"


def index_is_cut(given: Path, canary: Path) -> str:
    (given / ".metadata").write_bytes((given / ".metadata").read_bytes()[:-100])
    return "is not the index of a checkpoint"


def another_kind(given: Path, canary: Path) -> str:
    (given / "metadata.json").write_text(json.dumps({"sharded_backend": "zarr", "sharded_backend_version": 1}))
    return "expected a checkpoint of kind"


SPOILED = [
    index_is_a_bomb,
    index_has_a_bomb,
    weight_is_an_object,
    common_is_a_bomb,
    index_sets_on_classes,
    index_leads_elsewhere,
    index_leads_to_a_root,
    shard_is_a_link,
    shard_is_transformed,
    index_is_cut,
    another_kind,
]


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_spoiled_checkpoint_is_refused(
    policy: Policy, given: Path, tmp_path: Path, spoil: Callable[[Path, Path], str], road: Callable[[Policy, Path], None]
) -> None:
    """In plain words, before anything of it is run."""
    said = spoil(given, tmp_path / "canary")
    with pytest.raises(ValueError, match=said):
        road(policy, given)
    assert not (tmp_path / "canary").exists()
    assert index_types.Metadata.version is None


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
def test_our_own_loads(policy: Policy, given: Path, road: Callable[[Policy, Path], None]) -> None:
    road(policy, given)


def test_a_tensor_is_no_bomb(policy: Policy, given: Path, tmp_path: Path) -> None:
    """A pickle where the index says that a tensor lies: torch's restricted loader refuses it."""
    index = pickle.loads((given / ".metadata").read_bytes())
    where = next(iter(index.storage_data.values()))
    payload = io.BytesIO()
    torch.save(Bomb(tmp_path / "canary"), payload)
    with (given / where.relative_path).open("ab") as file:
        start = file.tell()
        file.write(payload.getvalue())
    _storage(given, offset=start, length=len(payload.getvalue()))
    with pytest.raises(BaseException, match="weights_only"):  # torch's CheckpointException is a BaseException
        load_weights(policy, given)
    assert not (tmp_path / "canary").exists()


def test_no_pickle_of_any_checkpoint_names_more_than_is_allowed(tmp_path: Path) -> None:
    """Those of earlier versions are read as well."""
    old = Path(__file__).parents[1] / "rundir" / "fixtures"
    found = [Reader(path.parent).read_metadata() for path in sorted(old.glob("*/*/checkpoints/*/.metadata"))]
    assert len(found) == 2
    assert all(index.state_dict_metadata for index in found)


@pytest.mark.parametrize("name", ["../1/meta.json", "/etc/passwd", ""])
def test_a_marker_names_files_beside_it(policy: Policy, given: Path, name: str) -> None:
    """A marker that leads elsewhere would let a checkpoint pass that has none of its files."""
    (given / "COMPLETE").write_text(json.dumps({name: {"bytes": 1, "sha256": ""}}))
    warnings: list[str] = []
    assert Checkpoints(policy, given.parent, Checkpoint()).load_newest(warnings.append) == 0
    assert "expected a plain name" in warnings[0]


def test_a_checkpoint_decides_no_setting_but_its_model(given: Path) -> None:
    meta = json.loads((given / "meta.json").read_text())
    meta["model"]["tensor_parallel"] = 64
    (given / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(SpecError, match=r"sets model\.tensor_parallel"):
        with_checkpoint(compose(["job=evaluate", f"job.checkpoint={given}", "data.train=x.jsonl"]))


def test_arrays_beside_a_checkpoint_do_not_expand(tmp_path: Path) -> None:
    """100 MB in 100 kB."""
    state.write(tmp_path, {"x": np.zeros(3)})
    np.savez_compressed(tmp_path / state.ARRAYS, **{"/x": np.zeros(12_500_000)})
    with pytest.raises(ValueError, match="is compressed"):
        state.read(tmp_path)


def names_its_own_code(model: Path) -> str:
    _change(model / "config.json", auto_map={"AutoConfig": "theirs.Config"}, model_type="theirs")
    (model / "theirs.py").write_text("raise SystemExit('their code ran')")
    return r"config\.json asks for Python code .* \(auto_map: .*theirs\.Config.*take a model that it has code for"


def tokenizer_names_its_own_code(model: Path) -> str:
    _change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "theirs.Tokenizer"]}, tokenizer_class="Theirs")
    return r"tokenizer_config\.json asks for Python code"


def names_a_kernel(model: Path) -> str:
    _change(model / "config.json", attn_implementation="theirs/kernel")
    return "asks for compiled code from 'theirs/kernel'"


def weights_are_pickles(model: Path) -> str:
    torch.save({}, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    return r"weights as pickles \(pytorch_model\.bin\)"


def index_leads_out(model: Path) -> str:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../theirs.safetensors"}}))
    return r"names the file '\.\./\.\./theirs\.safetensors'; expected a plain name"


def file_is_a_link_out(model: Path) -> str:
    """An export copies these files: it would publish what the link points at."""
    (model / "notes.json").symlink_to("/etc/passwd")
    return "is a link that leads out of the model's folder, to /etc/passwd"


def adapters_beside(model: Path) -> str:
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "theirs/model"}))
    return "has adapters of peft in it"


MODELS = [
    names_its_own_code,
    tokenizer_names_its_own_code,
    names_a_kernel,
    weights_are_pickles,
    index_leads_out,
    file_is_a_link_out,
    adapters_beside,
]


@pytest.mark.parametrize("spoil", MODELS, ids=lambda spoil: spoil.__name__)
def test_a_spoiled_model_is_refused(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    """On the one road that every source of weights takes, before transformers sees the folder."""
    model = models.save(tmp_path / "model")
    assert hf.local_directory(str(model)) == model
    said = spoil(model)
    with pytest.raises(ValueError, match=said):
        hf.local_directory(str(model))


def test_transformers_is_told_to_run_nothing_and_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a folder to change after it was checked: the loaders refuse code by themselves. Without being told they ask at the terminal."""
    model = models.save(tmp_path / "model")
    _change(model / "config.json", auto_map={"AutoConfig": "theirs.Config"}, model_type="theirs")
    (model / "theirs.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda _: "y")
    with pytest.raises(ValueError, match="trust_remote_code"):
        hf.config(model)
    assert not (tmp_path / "canary").exists()


def test_code_beside_a_model_that_transformers_has_code_for_is_not_looked_at(tmp_path: Path) -> None:
    """Many models of the hub carry both."""
    model = models.save(tmp_path / "model")
    _change(model / "config.json", auto_map={"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"})
    _change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "theirs.Tokenizer"]})
    (model / "theirs.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    directory = hf.local_directory(str(model))
    assert hf.config(directory).model_type == "llama"
    assert hf.tokenizer(directory)("text")["input_ids"]
    assert not (tmp_path / "canary").exists()


def test_the_cache_of_the_hub_has_links(tmp_path: Path) -> None:
    """As `huggingface_hub` lays files out; they are no attack."""
    repository = tmp_path / "models--someone--model"
    model = models.save(repository / "snapshots" / "abc")
    (repository / "blobs").mkdir()
    for path in list(model.iterdir()):
        path.rename(repository / "blobs" / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    assert hf.local_directory(str(model)) == model


def _change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
