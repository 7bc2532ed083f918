import logging

import pytest
import tiny
import torch

from hf_distill.cache import checkpoint
from hf_distill.cache.arrow import columns_of
from hf_distill.cache.block import Block
from hf_distill.cache.memory import Memory

KNOWN = {"teacher": "my/teacher", "weights": "a1", "precision": "float32"}


def memory(folder=None, **known):
    made = Memory(folder, 1e6)
    made.meet({**KNOWN, **known}, positions=False)
    return made


def filled(n=4):
    made = memory()
    made.serve(frozenset({"heads"}))
    made.learn((True, False), ["input_ids"])
    made.answers.shapes = {"heads/logits": [False, 3]}
    for number in range(n):
        made.add([bytes([number]) * 16], Block.of({"heads/logits": torch.full((1, 3), float(number))}, set()))
    return made


def rows(made):
    return {key[0]: block.row("heads/logits", i).tolist() for keys, block in made.table for i, key in enumerate(keys)}


def test_what_was_kept_is_recalled_once(tmp_path):
    checkpoint.keep(filled(), tmp_path, 0)
    again = memory()
    for _ in range(2):
        checkpoint.recall(again, tmp_path)
    assert rows(again) == rows(filled())
    assert len(list(again.table)) == 1
    assert tuple(again.padding) == (True, False)
    assert again.probed
    assert again.kept == {"heads"}


def test_each_rank_writes_what_it_alone_knows(tmp_path):
    first, second = filled(4), filled(6)
    second.unshared = list(second.table)[4:]
    checkpoint.keep(first, tmp_path, 0)
    checkpoint.keep(second, tmp_path, 1)
    again = memory()
    checkpoint.recall(again, tmp_path)
    assert rows(again) == rows(filled(6))


@pytest.mark.parametrize("known", [{"weights": "b2"}, {"precision": "bfloat16"}])
def test_another_teachers_answers_are_left_alone(tmp_path, known):
    checkpoint.keep(filled(), tmp_path, 0)
    again = memory(**known)
    checkpoint.recall(again, tmp_path)
    assert len(again) == 0


def test_two_teachers_of_a_run_do_not_mix(tmp_path):
    checkpoint.keep(filled(2), tmp_path, 0, "-0")
    checkpoint.keep(filled(3), tmp_path, 0, "-1")
    again = memory()
    checkpoint.recall(again, tmp_path, "-1")
    assert len(again) == 3
    nobody = memory()
    checkpoint.recall(nobody, tmp_path)
    assert len(nobody) == 0


def test_a_broken_file_is_named_and_too_large_a_memory_is_not_written(tmp_path, caplog, monkeypatch):
    checkpoint.keep(filled(), tmp_path, 0)
    path = tmp_path / "teacher_answers_00000.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    again = memory()
    with caplog.at_level(logging.WARNING):
        checkpoint.recall(again, tmp_path)
    assert "teacher_answers_00000.parquet could not be read" in caplog.text
    assert len(again) == 0
    path.unlink()
    monkeypatch.setattr(checkpoint, "LIMIT", 10)
    with caplog.at_level(logging.WARNING):
        checkpoint.keep(filled(), tmp_path, 0)
    assert "are not written into the checkpoint: name a teacher_cache folder" in caplog.text
    assert not path.exists()


def test_a_memory_with_a_folder_writes_there_alone(tmp_path):
    made = memory(tmp_path / "answers")
    made.serve(frozenset({"heads"}))
    made.learn((True, False), ["input_ids"])
    block = Block.of({"heads/logits": torch.ones(1, 3)}, set())
    made.answers.shapes = {"heads/logits": [False, 3]}
    made.add([b"k" * 16], block)
    checkpoint.keep(made, tmp_path, 0)
    assert made.store.header["columns"] == columns_of(block)
    assert [path.name for path in tmp_path.glob("*.parquet")] == []
    assert len(memory(tmp_path / "answers")) == 1


def test_a_read_only_folder_is_read_and_the_rest_is_kept_in_memory(tmp_path, caplog, monkeypatch):
    made = memory(tmp_path / "answers")
    made.serve(frozenset({"heads"}))
    made.learn((True, False), ["input_ids"])
    made.answers.shapes = {"heads/logits": [False, 3]}
    made.add([b"k" * 16], Block.of({"heads/logits": torch.ones(1, 3)}, set()))
    made.flush()
    again = memory(tmp_path / "answers")

    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(again.store, "write", refused)
    with caplog.at_level(logging.WARNING):
        for key in (b"l", b"m"):
            again.add([key * 16], Block.of({"heads/logits": torch.ones(1, 3)}, set()))
            again.flush()
    assert caplog.text.count("could not be written to") == 1
    assert "nothing is lost" in caplog.text
    assert len(again) == 3


def test_a_run_goes_on_where_its_folder_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        run = tiny.trainer(
            tmp_path, teacher_model=tiny.teacher(), args={"teacher_cache": str(tmp_path / "file" / "x")}
        )
        run.train()
    assert caplog.text.count("could not be written to") == 1
    assert tiny.losses(run, "teacher_cache_hits") == [0.0, 1.0, 1.0]
