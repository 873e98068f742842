"""Files as they come: arrays, columns that cannot be decoded, names that say something else, and what a check and a run say of them."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.data.rows import write
from tests.data.sums import ANSWER, CHAT, GOOD, USER
from workbench.data.check import check, render
from workbench.data.dataset import load
from workbench.data.readers import Changes, DataError, read
from workbench.settings import Data


def test_arrays(tmp_path: Path) -> None:
    """On one line and pretty-printed; an item that cannot be read spoils no other, and the place is its number."""
    rows = [{**GOOD, "prompt": f'{{[{i}, "é\\'} for i in range(5)]
    for name, text in {
        "a.json": json.dumps(rows),
        "b.json": json.dumps(rows, indent=2),
        "c.jsonl": f"\ufeff {json.dumps(rows, ensure_ascii=False)}\n",
    }.items():
        path = tmp_path / name
        path.write_text(text)
        found = read(str(path), "preference")
        assert [(row.prompt[0].content, row.where) for row in found.rows] == [(row["prompt"], f"{path}:{i}") for i, row in enumerate(rows, 1)]
    items = [json.dumps(row).encode() for row in rows]
    broken = {
        b"7": "a JSON object",
        b'{"prompt": "a", "chosen"': "JSON",
        b'{"prompt": "a': "JSON",
        b'{"prompt": "\xff", "chosen": "a", "rejected": "b"}': "UTF-8 text",
        b"[" * 100_000: "a JSON object",
        b"1" * 5_000: "JSON",
        b'{"prompt": "' + b"x" * (9 << 20) + b'"}': "a row of at most 8 MiB (data.max_row_mb)",
        b"]": "nothing after the array's end",
    }
    for item, expected in broken.items():
        path.write_bytes(b"[" + b", ".join([*items[:2], item, *items[2:]]) + b"]")
        found = read(str(path), "preference", on_bad_row="skip")
        assert [row.prompt[0].content for row in found.rows] == [row["prompt"] for row in rows]
        assert (found.bad[0].where, found.bad[0].expected) == (f"{path}:3", expected)
    path.write_text("[]")
    with pytest.raises(DataError, match="there are no rows in it"):
        read(str(path), "preference")
    path.write_bytes(gzip.compress(b"[" + b",".join(items)))
    path = path.rename(tmp_path / "torn.json.gz")
    found = read(str(path), "preference", on_bad_row="skip")
    assert (len(found.rows), str(found.bad[0])) == (5, f"{path}:6: expected a whole JSON array; found one without its closing bracket")


def test_columns_of_a_parquet_file_that_cannot_be_decoded(tmp_path: Path) -> None:
    """A far date and an unknown time zone: a note where they are not read, a bad column by name where they are, and they can be left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    far = {"day": pa.array([2**30, 1], pa.int32()).cast(pa.date32()), "zone": pa.array([1, 2], pa.timestamp("us", "Nowhere/Else"))}
    pq.write_table(pa.table({"prompt": ["a", "b"], "chosen": ["c", "d"], "rejected": ["e", "f"], **far}), path)
    found = read(str(path), "preference")
    assert len(found.rows) == 2
    assert any(note.startswith(f"{path}: the column day is not read, and could not be: date32[day] that cannot be decoded (") for note in found.notes)
    assert any(f"{path}: the column zone is not read" in note for note in found.notes)
    pq.write_table(pa.table({"prompt": ["a", "b"], **far}), path)
    with pytest.raises(DataError, match=r"rows\.parquet:1: expected (day|zone): a value that can be decoded \(data\.columns=\{(day|zone): null\}"):
        read(str(path), "prompt")
    assert len(read(str(path), "prompt", changes=Changes({"day": None, "zone": None})).rows) == 2
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"]), path)
    with pytest.raises(DataError, match="two columns are named 'prompt'"):
        read(str(path), "prompt")


def test_a_column_that_is_null_everywhere_is_not_there(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pairs = {"chosen": [[USER, ANSWER]] * 2, "rejected": [[USER, {"role": "assistant", "content": "5"}]] * 2}
    pq.write_table(pa.table({"prompt": pa.array([None, None], pa.string()), **pairs}), path)
    assert [row.answers for row in read(str(path), "preference").rows] == [("4", "5")] * 2


CONTENTS: dict[str, tuple[str, bytes, str]] = {
    "Git LFS": ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer.*`git lfs pull`"),
    "gzip inside": ("a.jsonl", gzip.compress(b"{}"), r"is compressed with gzip, which its name does not say; rename it to a\.jsonl\.gz|a\.jsonl\.gz"),
    "no gzip": ("a.jsonl.gz", b"{}", r"is not compressed with gzip, as its name says; rename it to .*a\.jsonl"),
    "Parquet inside": ("a.json", b"PAR1xxxx", r"is a Parquet file, which its name does not say; rename it to a\.parquet"),
    "no Parquet": ("a.parquet", b"{}", "is not a Parquet file, as its name says"),
    "zip": ("a.jsonl", b"PK\x03\x04", "is a zip archive; unpack it first"),
    "zstd": ("a.jsonl", b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it first"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str) -> None:
    file, content, message = CONTENTS[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read(str(tmp_path / file), "preference")
    assert "\n" not in str(error.value)


def test_links_and_patterns(tmp_path: Path) -> None:
    (tmp_path / "gone.jsonl").symlink_to("nowhere.jsonl")
    with pytest.raises(DataError, match=r"gone\.jsonl is a link to nowhere\.jsonl, which is not there"):
        read(str(tmp_path / "gone.jsonl"), "preference")
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path, GOOD, name=name)
    with pytest.raises(DataError, match=r"\*\.jsonl is a pattern, and a source is one file: it matches a\.jsonl, b\.jsonl, gone\.jsonl"):
        read(f"{tmp_path}/*.jsonl", "preference")
    write(tmp_path, GOOD, name="[x].jsonl")
    assert len(read(f"{tmp_path}/[x].jsonl", "preference").rows) == 1


def test_bad_rows_say_how_many_good_ones_remain(tmp_path: Path) -> None:
    source = write(tmp_path, GOOD, {**GOOD, "chosen": ""}, GOOD, {**GOOD, "chosen": ""})
    with pytest.raises(DataError) as error:
        read(source, "preference")
    head, listed, more = str(error.value).split("\n")
    assert head == f"{source}: 2 of 4 rows are malformed (mend them, or set data.on_bad_row=skip to train on the 2 good rows):"
    assert (listed, more) == (f"  {source}:2: expected chosen: text; found an empty string", "  … and 1 more")


def test_a_check_says_what_a_run_would_do(tmp_path: Path) -> None:
    """With the run's own words; and it names what is not read."""
    source = write(tmp_path, {**GOOD, "source": "web"}, {**GOOD, "chosen": ""})
    with pytest.raises(DataError) as error:
        load(Data(train=source), "preference", CHAT)
    report = check(source, "preference", CHAT)
    assert report.refused == str(error.value)
    assert report.notes[0] == f"{source}: columns that format preference does not read: source"
    written = io.StringIO()
    render(report, Console(file=written, width=400))
    assert f"note: {report.notes[0]}" in written.getvalue()
    assert f"a run refuses this: {report.refused}" in written.getvalue()
    skipped = check(source, "preference", CHAT, on_bad_row="skip")
    assert (skipped.refused, skipped.rows, skipped.bad) == ("", 1, 1)
    assert load(Data(train=source, on_bad_row="skip"), "preference", CHAT).report.notes[0] == report.notes[0]


def test_settings_name_columns_and_a_function(tmp_path: Path) -> None:
    (tmp_path / "maps.py").write_text("def halved(row):\n    return {'q': row['q'][: len(row['q']) // 2], 'good': 'a', 'bad': 'b'}\n")
    source = write(tmp_path, *({"q": f"{i}{i}"} for i in range(4)))
    data = Data(
        train=source, map=f"{tmp_path / 'maps.py'}:halved", columns={"prompt": "q", "chosen": "good", "rejected": "bad"}, validation_fraction=0
    )
    assert [text.prompt[0].content for text in load(data, "preference", CHAT).texts] == ["0", "1", "2", "3"]
