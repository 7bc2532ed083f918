import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hf_distill.cache.arrow import columns_of
from hf_distill.cache.block import Block
from hf_distill.cache.store import DATA, FORMAT, MAPPED, Store, difference


def rows(start, n=4, width=3):
    """Keys and rows whose values are their numbers."""
    values = torch.arange(start, start + n).float().unsqueeze(1).expand(n, width).contiguous()
    return [number.to_bytes(16, "little") for number in range(start, start + n)], Block.of(
        {"heads/logits": values}, set()
    )


def header(**more):
    return {
        "format": FORMAT, "teacher": "my/teacher", "weights": "a1", "columns": columns_of(rows(0)[1]),
        "shapes": {"heads/logits": [False, 3]}, "padding": [True, True], "needs": ["heads"], "takes": ["input_ids"],
        "encoding": {"values": None, "top": 0, "tail": 0, "temperature": None}, **more,
    }  # fmt: skip


def filled(folder, files=3):
    store = Store(folder)
    store.header = header()
    for number in range(files):
        store.write(*rows(4 * number))
    return store


def read(folder, **how):
    store, found = Store(folder), {}
    for keys, block in store.news(**how):
        for number, key in enumerate(keys):
            found.setdefault(int.from_bytes(key, "little"), block.row("heads/logits", number).tolist())
    return store, found


def whole(n):
    return {number: [float(number)] * 3 for number in range(n)}


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_was_written_is_read(tmp_path, in_memory):
    filled(tmp_path)
    store, found = read(tmp_path, in_memory=in_memory)
    assert found == whole(12)
    assert store.header == header()
    assert list(store.news()) == []  # nothing is read twice
    other = Store(tmp_path)
    other.write(*rows(12))
    assert [keys for keys, _ in store.news()] == [rows(12)[0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.uint8])
def test_values_come_back_bit_for_bit_whatever_they_are(tmp_path, dtype):
    fixed = (torch.randn(3, 2, 5) * 40).abs().to(dtype)
    tokens = (torch.randn(6, 4) * 40).abs().to(dtype)
    block = Block.of({"fixed": fixed, "tokens": tokens}, {"tokens"}, np.array([0, 1, 1, 6]))
    store = Store(tmp_path)
    store.header = header(columns=columns_of(block))
    store.write([b"a", b"b", b"c"], block)
    ((keys, again),) = Store(tmp_path).news()
    assert keys == [b"a", b"b", b"c"]
    for name in ("fixed", "tokens"):
        assert again.columns[name].dtype == dtype
        assert all(np.array_equal(again.row(name, i), block.row(name, i), equal_nan=False) for i in range(3))


def test_load_dataset_opens_it(tmp_path):
    filled(tmp_path)
    (tmp_path / DATA / ".other-1-half.parquet").write_bytes(b"half")
    found = datasets.load_dataset(str(tmp_path), cache_dir=str(tmp_path / ".cache"))["train"]
    assert sorted(row[0] for row in found["heads/logits"]) == [float(i) for i in range(12)]


def test_another_header_is_told_in_words():
    assert difference(header(), header()) == ""
    assert difference(header(), header(versions={"torch": "9"}, teacher="moved/elsewhere")) == ""
    assert difference(header(), header(precision="bfloat16")) == ""  # one of them does not know
    assert difference(header(weights="b2"), header()) == "its weights are 'b2', this run has 'a1'"
    unhashed = {name: value for name, value in header().items() if name != "weights"}
    assert (
        difference(unhashed, {**unhashed, "teacher": "other"}) == "its teacher is 'my/teacher', this run has 'other'"
    )


def test_a_foreign_file_or_folder_is_refused(tmp_path):
    datasets.Dataset.from_dict({"x": [1]}).to_parquet(tmp_path / "own" / DATA / "mine.parquet")
    with pytest.raises(ValueError, match=r"mine.parquet is no file of a teacher cache: move it away"):
        Store(tmp_path / "own")
    filled(tmp_path / "ours")
    shutil.copy(tmp_path / "own" / DATA / "mine.parquet", tmp_path / "ours" / DATA)
    with pytest.raises(ValueError, match=r"mine.parquet is no file of a teacher cache"):
        read(tmp_path / "ours")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes.txt and no teacher.json: give an empty folder"):
        Store(tmp_path / "texts")
    other = Store(tmp_path / "theirs")
    other.header = header(weights="b2")
    other.write(*rows(50))
    shutil.copy(next((tmp_path / "theirs" / DATA).iterdir()), tmp_path / "ours" / DATA / "aaa.parquet")
    (tmp_path / "ours" / DATA / "mine.parquet").unlink()
    with pytest.raises(ValueError, match=r"aaa.parquet is not of this teacher cache: its weights are 'b2'"):
        read(tmp_path / "ours")


def test_a_broken_header_is_named_and_a_lost_one_found_in_the_files(tmp_path):
    filled(tmp_path)
    (tmp_path / "teacher.json").unlink()
    assert Store(tmp_path).header == header()
    (tmp_path / "teacher.json").write_text("{")
    with pytest.raises(ValueError, match=r"could not be read .*: restore it, or fill an empty folder"):
        Store(tmp_path)
    (tmp_path / "teacher.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="no teacher cache of format 1"):
        Store(tmp_path)
    for columns in ({}, {"columns": {"heads/logits": ["complex64", False, 3]}}, {"columns": []}):
        (tmp_path / "teacher.json").write_text(json.dumps({"format": FORMAT, **columns}))
        with pytest.raises(ValueError, match=r"'columns'.*: delete teacher.json, of which each file has a copy, or"):
            Store(tmp_path)


@pytest.mark.parametrize("held", [b"{", b"[]", b'{"format": 1}', b'{"columns": {"heads/logits": ["float99", false]}}'])
def test_a_file_with_a_broken_header_of_its_own_is_left_out_and_named(tmp_path, held):
    filled(tmp_path)
    path = sorted((tmp_path / DATA).iterdir())[0]
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"hf_distill": held}), path)
    store, found = read(tmp_path)
    assert sorted(found) == list(range(4, 12))
    assert path.name in store.bad[0]
    (tmp_path / "teacher.json").unlink()
    assert Store(tmp_path).header == header()  # that of the next file


@pytest.mark.parametrize("harm", ["truncated", "empty", "a flipped bit"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_broken_file_is_left_out_and_named(tmp_path, harm, in_memory):
    store = Store(tmp_path)
    store.header = header(columns={"heads/logits": ["float32", False, 64]})
    for start in range(0, 600, 200):
        store.write(*rows(start, 200, 64))
    path = sorted((tmp_path / DATA).iterdir())[1]
    content = bytearray(path.read_bytes())
    if harm == "a flipped bit":
        content[len(content) // 3] ^= 16
    path.write_bytes(content[: {"truncated": len(content) // 2, "empty": 0}.get(harm)])
    store, found = read(tmp_path, in_memory=in_memory)
    assert sorted(found) == [*range(200), *range(400, 600)]
    assert len(store.bad) == 1
    assert path.name in store.bad[0]


def rewritten(folder, change):
    """Change the table of the second of three files, as no bit that flips could: Parquet itself finds nothing."""
    filled(folder)
    path = sorted((folder / DATA).iterdir())[1]
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)
    return path


def replaced(values, kind=None):
    def change(table):
        kind_ = kind or pa.large_list(pa.float32())
        return table.set_column(1, "heads/logits", pa.array(values, kind_))

    return change


RAGGED = [[4.0] * 3, [5.0] * 4, [6.0] * 2, [7.0] * 3]
DAMAGES = {
    "rows of other lengths, as many numbers": (
        replaced(RAGGED),
        "row 1 of its column 'heads/logits' has 4 numbers where 3 must be",
    ),
    "another width": (replaced([[1.0] * 2] * 4), "row 0 of its column 'heads/logits' has 2 numbers where 3 must be"),
    "no values": (lambda table: table.select(["key"]), "it has no column 'heads/logits', or several"),
    "the values twice": (
        lambda table: table.append_column("heads/logits", table["heads/logits"]),
        "it has no column 'heads/logits', or several",
    ),
    "no keys": (lambda table: table.select(["heads/logits"]), "it has no column 'key', or several"),
    "numbers as keys": (
        lambda table: table.set_column(0, "key", pa.array([1, 2, 3, 4])),
        "its column 'key' holds no keys",
    ),
    "a key that is null": (
        lambda table: table.set_column(0, "key", pa.array([b"a", None, b"c", b"d"])),
        "its column 'key' holds no keys",
    ),
    "another type": (
        replaced([[1.0] * 3] * 4, pa.large_list(pa.float64())),
        "holds large_list<element: double> where lists of float32 must be",
    ),
    "numbers where lists must be": (replaced([1.0] * 4, pa.float32()), "holds float where lists of float32 must be"),
    "a row that is null": (
        replaced([[1.0] * 3, None, [1.0] * 3, [1.0] * 3]),
        "its column 'heads/logits' has rows without numbers",
    ),
    "a number that is null": (
        replaced([[1.0] * 3, [1.0, None, 1.0], [1.0] * 3, [1.0] * 3]),
        "its column 'heads/logits' has rows without numbers",
    ),
}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_whose_rows_are_not_as_they_must_be_is_left_out_and_named(tmp_path, damage, in_memory):
    change, told = DAMAGES[damage]
    path = rewritten(tmp_path, change)
    store, found = read(tmp_path, in_memory=in_memory)
    assert found == {n: row for n, row in whole(12).items() if n not in (4, 5, 6, 7)}
    assert len(store.bad) == 1
    assert path.name in store.bad[0]
    assert told in store.bad[0].replace("<item:", "<element:")
    store.compact()
    assert path.exists()  # it is not thrown away with the small ones, and not joined to them
    assert read(tmp_path)[1] == found


def test_a_file_without_rows_or_with_a_part_of_a_longer_one_is_read(tmp_path):
    path = rewritten(tmp_path, lambda table: table.slice(0, 0))
    store, found = read(tmp_path)
    assert sorted(found) == [*range(4), *range(8, 12)]
    assert store.bad == []
    path.unlink()
    filled(tmp_path / "other")
    pq.write_table(pq.read_table(sorted((tmp_path / "other" / DATA).iterdir())[1]).slice(2, 2), path)
    assert read(tmp_path)[1][6] == [6.0] * 3
    assert 5 not in read(tmp_path)[1]


def test_positions_that_differ_between_columns_are_no_rows(tmp_path):
    store, ends = Store(tmp_path), np.array([0, 2, 5])
    block = Block.of({"a": torch.arange(10.0).view(5, 2), "b": torch.arange(5.0)}, {"a", "b"}, ends)
    store.header = header(columns=columns_of(block))
    store.write([b"a", b"b"], block)
    path = next((tmp_path / DATA).iterdir())
    table = pq.read_table(path)
    for values, told in (
        ([[0.0] * 3, [1.0] * 2], "row 0 of its column 'b' has other positions than in the columns before"),
        ([[0.0] * 2, [1.0] * 3], ""),
    ):
        other = table.set_column(2, "b", pa.array(values, pa.large_list(pa.float32())))
        pq.write_table(other.replace_schema_metadata(table.schema.metadata), path)
        again = Store(tmp_path)
        assert len(list(again.news())) == (not told)
        assert len(again.bad) == bool(told)
        assert told in "".join(again.bad)
    odd = table.set_column(1, "a", pa.array([[0.0] * 3, [1.0] * 7], pa.large_list(pa.float32())))
    pq.write_table(odd.replace_schema_metadata(table.schema.metadata), path)
    again = Store(tmp_path)
    assert list(again.news()) == []
    assert "row 0 of its column 'a' has 3 numbers where a multiple of 2 must be" in again.bad[0]


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_column_without_numbers_is_read_as_one(tmp_path, in_memory):
    """No ids are drawn of the tail: there are as many rows of none."""
    values = {"ids": torch.ones(5, 3, dtype=torch.int32), "none": torch.ones(5, 0), "tail": torch.arange(5.0)}
    block = Block.of({**values, "fixed": torch.ones(2, 0)}, set(values), np.array([0, 2, 5]))
    store = Store(tmp_path)
    store.header = header(columns=columns_of(block))
    store.write([b"a", b"b"], block)
    ((_, again),) = Store(tmp_path).news(in_memory)
    assert [again.row(name, 1).shape for name in ("ids", "none", "tail", "fixed")] == [(3, 3), (3, 0), (3,), (0,)]


@pytest.mark.parametrize("harm", ["truncated", "empty", "text", "of another file", "of an older file"])
def test_an_unpacked_copy_that_is_broken_or_stale_is_made_again(tmp_path, harm):
    filled(tmp_path)
    read(tmp_path, in_memory=False)
    path = sorted((tmp_path / DATA).iterdir())[1]
    copy = tmp_path / MAPPED / f"{path.stem}.arrow"
    content = copy.read_bytes()
    if harm == "of another file":
        copy.write_bytes(next(one for one in (tmp_path / MAPPED).iterdir() if one != copy).read_bytes())
    elif harm == "of an older file":
        table = replaced([[float(n)] * 3 for n in (40, 50, 60, 70)])(pq.read_table(path))
        pq.write_table(table, path)
        os.utime(path, ns=(1, 1))
    else:
        copy.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"mine"}[harm])
    store, found = read(tmp_path, in_memory=False)
    assert store.bad == []
    news = {n: [10.0 * n] * 3 for n in (4, 5, 6, 7)} if harm == "of an older file" else {}
    assert found == {**whole(12), **news}
    assert not list((tmp_path / MAPPED).glob(".*"))
    if harm != "of an older file":
        assert copy.read_bytes() == content
    before = copy.stat().st_mtime_ns
    assert read(tmp_path, in_memory=False)[1] == found
    assert copy.stat().st_mtime_ns == before  # and then it is good


def test_a_copy_that_cannot_be_made_is_not_taken_for_a_broken_file(tmp_path):
    filled(tmp_path)
    (tmp_path / MAPPED).write_text("a file where the folder must be")
    with pytest.raises(OSError, match=r"\.mapped cannot be written"):
        read(tmp_path, in_memory=False)
    assert len(read(tmp_path)[1]) == 12


def test_the_first_copy_of_a_row_counts_and_compacting_keeps_it(tmp_path):
    store = filled(tmp_path, files=5)
    again = Store(tmp_path)
    keys, _ = rows(0)
    again.run = "zz"
    again.write(keys, Block.of({"heads/logits": torch.zeros(4, 3)}, set()))
    files = len(list((tmp_path / DATA).iterdir()))
    assert files == 6
    assert read(tmp_path)[1] == whole(20)
    store.compact()
    assert len(list((tmp_path / DATA).iterdir())) == 1
    assert read(tmp_path)[1] == whole(20)
    store.compact()
    assert read(tmp_path)[1] == whole(20)


def test_compacting_by_size_and_positions(tmp_path):
    store = Store(tmp_path)
    lengths = [np.array([0, 2, 5]), np.array([0, 0, 1])]
    blocks = [Block.of({"tokens": torch.arange(end[-1] * 2).view(-1, 2)}, {"tokens"}, end) for end in lengths]
    store.header = header(columns=columns_of(blocks[0]))
    store.write([b"a", b"b"], blocks[0])
    store.write([b"c", b"d"], blocks[1])
    store.compact()
    ((keys, block),) = Store(tmp_path).news()
    assert keys == [b"a", b"b", b"c", b"d"]
    assert [block.row("tokens", i).tolist() for i in range(4)] == [
        [[0, 1], [2, 3]], [[4, 5], [6, 7], [8, 9]], [], [[0, 1]],
    ]  # fmt: skip


def test_half_files_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path):
    store, host = filled(tmp_path), os.uname().nodename
    dead, living = (tmp_path / DATA / f".{host}-{pid}-00000-abc-000000.parquet" for pid in (2**22 + 5, os.getpid()))
    far = tmp_path / DATA / ".elsewhere-1-00000-abc-000000.parquet"
    old = tmp_path / DATA / ".elsewhere-2-00000-abc-000000.parquet"
    for path in (dead, living, far, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.sweep()
    assert [path.exists() for path in (dead, living, far, old)] == [False, True, True, False]
    assert read(tmp_path)[1] == whole(12)


def test_a_full_disk_leaves_no_half_file(tmp_path):
    """A file that may not grow fails as a full disk does, in the middle of the writing."""
    import resource

    store = filled(tmp_path)
    before, limits = sorted(os.listdir(tmp_path / DATA)), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.write(*rows(100, 400))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(tmp_path / DATA)) == before
    store.write(*rows(12))
    assert read(tmp_path)[1] == whole(16)


FILLER = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from test_store import Store, header, rows
    store = Store(sys.argv[1])
    store.header = header()
    for number in range(100000):
        store.write(*rows(4 * number))
        print(number, flush=True)
"""


@pytest.mark.slow
def test_killed_in_the_middle_nothing_that_was_announced_is_lost(tmp_path):
    script = tmp_path / "fill.py"
    script.write_text(textwrap.dedent(FILLER))
    command = [sys.executable, str(script), str(tmp_path / "store"), str(Path(__file__).parent)]
    for round_ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            announced = [int(process.stdout.readline()) for _ in range(20 + 7 * round_)]
            process.kill()
            announced = announced[-1] + len(process.stdout.read().split())
        _, found = read(tmp_path / "store")
        assert {n: found[n] for n in range(4 * announced + 4)} == whole(4 * announced + 4)
        assert all(value == [float(n)] * 3 for n, value in found.items())
    filled(tmp_path / "store")
    assert not list((tmp_path / "store" / DATA).glob(".*"))  # the next writer swept
