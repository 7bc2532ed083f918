"""What a header of answers must say, and what a newer version may add to it."""

import copy

import pytest

from hf_distill.cache.header import check_columns, check_header

HEADER = {
    "format": 1, "teacher": "my/teacher", "needs": ["heads", "hidden"], "takes": ["input_ids"],
    "padding": [True, False], "encoding": {"values": None, "top": 0, "tail": 0, "temperature": None},
    "shapes": {"heads/logits": [False, 3], "hidden/0": [True, 8]},
    "columns": {"heads/logits": ["float32", False, 3], "hidden/0": ["bfloat16", True, 8]},
}  # fmt: skip
FEW = {"values": None, "top": 2, "tail": 1, "temperature": 2.0}


def changed(**more):
    return {**copy.deepcopy(HEADER), **more}


def test_a_whole_one_is_returned_as_it_is():
    assert check_header(HEADER, "answers") is HEADER
    assert check_columns(HEADER, "answers") is HEADER


@pytest.mark.parametrize("name", ["teacher", "needs", "takes", "padding", "encoding", "shapes", "columns"])
def test_a_missing_key_is_one_sentence(name):
    header = changed()
    del header[name]
    with pytest.raises(ValueError, match=rf"^answers has no '{name}': delete teacher.json, of which each file has"):
        check_header(header, "answers")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("teacher", 5), ("needs", "heads"), ("needs", [1]), ("takes", None), ("padding", [True]), ("padding", None),
        ("padding", [1, 0]), ("encoding", []), ("shapes", {"heads/logits": 3}), ("shapes", {"heads/logits": [1, 3]}),
        ("columns", {}), ("columns", {"heads/logits": ["float32"]}), ("columns", {"heads/logits": [["a"], False]}),
        ("columns", {"heads/logits": ["float32", False, -3]}),
    ],
)  # fmt: skip
def test_a_key_of_another_kind_is_one_sentence(name, value):
    with pytest.raises(ValueError, match=rf"^answers has .* as '{name}', which cannot be read: delete teacher.json"):
        check_header(changed(**{name: value}), "answers")


def test_what_a_newer_version_only_tells_is_left_alone():
    assert check_header(changed(licence="MIT", measured={"rows": 9}), "answers")


def test_an_encoding_that_is_not_known_is_refused_by_name():
    encoding = {**HEADER["encoding"], "block": 64, "zeros": "kept"}
    with pytest.raises(ValueError, match=r"in an encoding with \['block', 'zeros'\], which this version does not"):
        check_header(changed(encoding=encoding), "answers")
    with pytest.raises(ValueError, match=r"has an 'encoding' that cannot be read \(values='int3' is not known"):
        check_header(changed(encoding={"values": "int3"}), "answers")
    with pytest.raises(ValueError, match=r"has an 'encoding' that cannot be read"):
        check_header(changed(encoding={"top": "many"}), "answers")


def test_columns_that_the_encoding_does_not_make_are_refused():
    told = r"has the columns \['heads/logits'\] where \['heads/logits/entropy', .*\] are held in its encoding"
    with pytest.raises(ValueError, match=told):
        check_header(changed(encoding=FEW), "answers")
    few = {f"heads/logits/{n}": ["float32", False] for n in ("ids", "gap", "tail_ids", "tail", "entropy")}
    assert check_header(changed(encoding=FEW, columns={**few, "hidden/0": ["float32", True, 8]}), "answers")


@pytest.mark.parametrize("column", [["float32", True, 3], ["float32", False, 4]])
def test_columns_of_another_shape_are_refused(column):
    columns = {**HEADER["columns"], "heads/logits": column}
    with pytest.raises(ValueError, match="as the column 'heads/logits', which are not the same"):
        check_header(changed(columns=columns), "answers")


@pytest.mark.parametrize("held", [None, [], "text", 5])
def test_what_is_no_mapping_is_no_header(held):
    for check in (check_columns, check_header):
        with pytest.raises(ValueError, match=r"answers holds a .*, no header of answers"):
            check(held, "answers")
