"""The rollout files of a run: what is written is read, whole files only, and fast."""

import math
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.rundir.records import record
from workbench.rundir import rollout_files, rollouts, store
from workbench.rundir.rollouts import Query


@pytest.fixture
def run(tmp_path):
    return store.create(tmp_path, "ppo", "name: ppo\n")


def test_what_is_written_is_read(run):
    rollouts.write(run, 3, [record(), record("Five", reward=-1.0, finish_reason="length", **{"reward/exact": 0.0})])
    assert rollouts.steps(run) == [3]
    found = rollouts.one(run, 3, 0)
    assert (found["step"], found["rollout"], found["pieces"], found["tokens"]) == (3, 0, ["It", "is", "four."], [0, 1, 2])
    assert found["logprobs"] == [-0.5, -0.5, -0.5]
    assert found["kl_sum"] == 0.75
    assert found["values"] is None
    assert found["reward/exact"] is None
    assert rollouts.one(run, 3, 1)["reward/exact"] == 0.0
    assert rollouts.one(run, 3, 2) is None
    assert rollouts.one(run, 4, 0) is None
    assert pq.read_schema(rollouts.folder(run) / "3.parquet").equals(rollouts.schema(["reward/exact"]))


def test_who_sampled_a_file(run):
    """Named in the file itself, whose columns and rows stay what they are."""
    rollouts.write(run, 1, [record()], "0123abcd")
    rollouts.write(run, 2, [record()])
    (rollouts.folder(run) / "3.parquet").write_text("no parquet")
    assert [rollouts.sampled_by(run, step) for step in (1, 2, 3, 4)] == ["0123abcd", "", "", ""]
    assert rollouts.steps(run) == [1, 2]
    assert len(rollouts.of_step(run, 1)) == len(rollouts.whole_step(run, 1)) == 1


def test_no_rollouts_yet(run):
    table, total = rollouts.page(run, Query())
    assert (len(table), total, rollouts.steps(run), rollouts.damaged(run)) == (0, 0, [], [])
    assert "response" in table
    assert len(rollouts.summary(run)) == 0
    assert len(rollouts.follow(run, "sum")) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rewards": 1.0}, "no column rewards"),
        ({"finish_reason": None}, "lacks finish_reason"),
        ({"entropy": [0.1]}, "1 entropy for 3 response tokens"),
    ],
)
def test_a_record_that_is_none(run, wrong, message):
    with pytest.raises(ValueError, match=f"rollout 1 of step 2.*{message}"):
        rollouts.write(run, 2, [record(), record(**wrong)])
    assert not rollouts.folder(run).exists()


NASTY = ('it\'s "quoted"', "naïve 日本語 🦉 e\u0301", "'; DROP TABLE rollouts; --", "100 % of_it \\ %", "<script>alert(1)</script>\x00\n\t")


@pytest.mark.parametrize("text", NASTY)
def test_any_text_is_found_as_it_is(run, text):
    rollouts.write(run, 1, [record(text, prompt_id=text), record("nothing")])
    table, total = rollouts.page(run, Query(search=text))
    assert (total, list(table["response"])) == (1, [text])
    assert list(rollouts.follow(run, text)["rollout"]) == [0]
    assert rollouts.page(run, Query(search=text + "x"))[1] == 0
    assert rollouts.page(run, Query(finish_reason=text))[1] == 0


def test_filters_sorts_and_pages(run):
    rewards = [0.5, math.nan, 2.0, -1.0]
    for step in (1, 2, 10):
        rollouts.write(run, step, [record(f"Answer {i}", reward=r, prompt_id=f"p{i}", **{'reward/a "b"': -r}) for i, r in enumerate(rewards)])
    rows = lambda **asked: [(int(s), int(n)) for s, n in rollouts.page(run, Query(**asked))[0][["step", "rollout"]].to_numpy()]  # noqa: E731
    assert rows(limit=5) == [(10, 0), (10, 1), (10, 2), (10, 3), (2, 0)]
    assert rows(limit=5, offset=10) == [(1, 2), (1, 3)]
    assert rollouts.page(run, Query(limit=1))[1] == 12
    assert rows(search="ANSWER 2") == [(10, 2), (2, 2), (1, 2)]
    assert rows(first_step=2, last_step=2, min_reward=0.5) == [(2, 0), (2, 2)]
    assert rows(last_step=1, max_reward=0.5, sort="reward", descending=False) == [(1, 3), (1, 0)]
    assert rows(first_step=10, sort='reward/a "b"', descending=False, max_reward=9) == [(10, 2), (10, 0), (10, 3)]
    assert rows(first_step=1, last_step=1, sort="reward") == [(1, 2), (1, 0), (1, 3), (1, 1)]
    assert not set(rollouts.HEAVY) & set(rollouts.page(run, Query())[0])
    with pytest.raises(ValueError, match="sorted by one of step"):
        rollouts.page(run, Query(sort="step; DROP TABLE x"))


def test_summary_by_hand(run):
    """Rewards 1 and 3: mean 2, deviation 1. 2 and 4 tokens of 0.25 nats: 0.5 and 1 nats, mean 0.75. One of two is cut."""
    rollouts.write(run, 7, [record("a b", reward=1.0), record("a b c d", reward=3.0, finish_reason="length"), record("a b c", reward=math.nan)][:2])
    rollouts.write(run, 8, [record(reward=math.nan, kl=None)])
    table = rollouts.summary(run).set_index("step")
    assert dict(table.loc[7]) == {
        "rollouts": 2, "prompts": 1, "rewarded": 2, "reward_mean": 2, "reward_std": 1, "length_mean": 3, "truncated": 0.5, "kl_mean": 0.75, "weights_version": 3,
    }  # fmt: skip
    assert math.isnan(table.loc[8, "reward_mean"])
    assert math.isnan(table.loc[8, "kl_mean"])


def test_a_resumed_step_takes_the_place_of_the_old_one(run):
    rollouts.write(run, 5, [record("old one"), record("old two")])
    assert rollouts.summary(run)["rollouts"].tolist() == [2]
    assert rollouts.page(run, Query())[1] == 2
    rollouts.write(run, 5, [record("new", reward=9.0)])
    assert rollouts.summary(run)["reward_mean"].tolist() == [9.0]
    assert rollouts.page(run, Query())[0]["response"].tolist() == ["new"]
    assert rollouts.one(run, 5, 1) is None
    assert [path.name for path in rollouts.folder(run).iterdir()] == ["5.parquet"]


def test_steps_that_share_prompts(run):
    for step, prompts in ((1, "ab"), (2, "cd"), (3, "bca"), (4, "bb")):
        rollouts.write(run, step, [record(prompt_id=prompt) for prompt in prompts])
    assert rollouts.shared(run, 3) == {1: 2, 2: 1, 4: 1}
    assert rollouts.shared(run, 9) == {}


def test_the_version_changes_with_the_files(run):
    seen = {rollouts.version(run)}
    for step in (1, 2, 2):
        rollouts.write(run, step, [record()])
        assert rollouts.version(run) == rollouts.version(run)
        seen.add(rollouts.version(run))
    assert len(seen) == 4


def test_damaged_files_are_left_out_and_named(run):
    for step in range(1, 7):
        rollouts.write(run, step, [record(" ".join(str(n * step) for n in range(200)))])
    folder = rollouts.folder(run)
    whole = (folder / "2.parquet").read_bytes()
    (folder / "2.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "3.parquet").write_bytes(b"")
    pages = bytearray((folder / "4.parquet").read_bytes())
    pages[8 : len(pages) // 2] = bytes(len(pages) // 2 - 8)
    (folder / "4.parquet").write_bytes(pages)
    pq.write_table(pa.table({"step": ["text"]}), folder / "5.parquet")
    (folder / ".7.parquet.1.ab").write_bytes(whole)
    (folder / "notes.txt").write_text("mine")
    assert rollouts.page(run, Query())[0]["step"].tolist() == [6, 1]
    assert rollouts.summary(run)["step"].tolist() == [1, 6]
    assert rollouts.steps(run) == [1, 6]
    assert [path.name for path in rollouts.damaged(run)] == ["2.parquet", "3.parquet", "4.parquet", "5.parquet"]
    assert rollouts.one(run, 4, 0) is None
    rollouts.write(run, 4, [record()])
    assert rollouts.steps(run) == [1, 4, 6]


def test_a_file_that_cannot_be_opened_now_is_no_damaged_one(run, monkeypatch):
    """Too many files are open, say: at the next look it is there."""
    rollouts.write(run, 1, [record()])

    def full(path):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(pq, "read_schema", full)
        assert rollouts.steps(run) == []
    assert (rollouts.steps(run), rollouts.damaged(run)) == ([1], [])


def test_a_failed_write_leaves_the_old_file(run, monkeypatch):
    rollouts.write(run, 1, [record("old")])

    def full(table, file, **options):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        rollouts.write(run, 1, [record("new")])
    assert rollouts.one(run, 1, 0)["response"] == "old"
    assert len(list(rollouts.folder(run).iterdir())) == 1


def test_a_reader_beside_a_writer_sees_whole_files(run):
    """One thread writes the same two steps again and again; every look finds each file's 50 rows, all of one writing."""
    rollouts.write(run, 1, [record(sample=0)] * 50)
    stop = threading.Event()

    def rewrite():
        number = 0
        while not stop.is_set():
            number += 1
            rollouts.write(run, 1 + number % 2, [record(sample=number)] * 50)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(40):
            table = rollouts.page(run, Query(limit=1000))[0]
            assert {(len(part), part["sample"].nunique()) for _, part in table.groupby("step")} == {(50, 1)}
            assert set(rollouts.summary(run)["rollouts"]) == {50}
    finally:
        stop.set()
        writer.join()
    assert rollouts.damaged(run) == []


def fill(run, files=200, each=500, tokens=40):
    """Many rollouts fast: arrow arrays in place of records."""
    folder = rollouts.folder(run)
    folder.mkdir()
    lists = lambda values: pa.ListArray.from_arrays(pa.array(np.arange(each + 1, dtype=np.int32) * tokens), values)  # noqa: E731
    floats = lists(pa.array(np.random.default_rng(0).normal(size=each * tokens).astype(np.float32)))
    same = dict.fromkeys(rollout_files.PER_TOKEN, floats)
    same["tokens"] = lists(pa.array(np.arange(each * tokens, dtype=np.int32)))
    same["pieces"] = lists(pa.array([f"w{n % 997} " for n in range(each * tokens)]))
    for step in range(1, files + 1):
        words = [" ".join(f"w{(n * 31 + step * 7 + k * k) % 9973}" for k in range(tokens)) for n in range(each)]
        numbers = pa.array(np.arange(each), pa.int32())
        constant = {name: pa.array(np.full(each, value), pa.int32()) for name, value in (("sample", 0), ("prompt_tokens", 9), ("response_tokens", tokens), ("weights_version", step), ("step", step))}  # fmt: skip
        texts = {"prompt_id": [f"p{n % 50}" for n in range(each)], "prompt": [f"Question {n % 50}?" for n in range(each)], "response": words, "finish_reason": ["stop", "length"] * (each // 2)}  # fmt: skip
        rewards = pa.array(np.sin(np.arange(each) + step))
        columns = {**same, **constant, **texts, "rollout": numbers, "kl_sum": rewards, "reward": rewards, "reward/exact": rewards}
        shape = rollouts.schema(["reward/exact"])
        pq.write_table(pa.table({name: columns[name] for name in shape.names}, schema=shape), folder / f"{step}.parquet", compression="zstd")


def test_a_hundred_thousand_rollouts(run):
    fill(run)
    took = {}

    def timed(name, read):
        began, spent = time.perf_counter(), time.process_time()
        found = read()
        took[name] = min(
            time.perf_counter() - began, time.process_time() - spent
        )  # threads count twice in one, a machine that stood still in the other
        return found

    assert timed("first page", lambda: rollouts.page(run, Query()))[1] == 100_000
    assert timed("page", lambda: rollouts.page(run, Query()))[1] == 100_000
    assert 0 < timed("search", lambda: rollouts.page(run, Query(search="W4711 ")))[1] < 10_000
    assert timed("sorted search", lambda: rollouts.page(run, Query(search="question 7?", sort="reward")))[1] == 2_000
    assert timed("last page", lambda: rollouts.page(run, Query(offset=99_950)))[0]["step"].iloc[-1] == 1
    assert len(timed("follow", lambda: rollouts.follow(run, "p7"))) == 2_000
    assert timed("one", lambda: rollouts.one(run, 117, 250))["weights_version"] == 117
    assert len(timed("first summary", lambda: rollouts.summary(run))) == 200
    assert len(timed("summary", lambda: rollouts.summary(run))) == 200
    print(", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in took.items()))
    assert max(took.values()) < 2
