"""Tables that stay tables, whatever names are in their cells."""

import re

from hf_distill.reports import class_changes, class_table, markdown_table


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_bar_or_a_newline_in_a_name_ends_neither_its_cell_nor_its_line():
    lines = markdown_table(
        ["a|b", "n"], [["体育|新闻", "1"], ["财经\n股票", "2"], [r"is \| already", "3"]]
    ).splitlines()
    assert [cells(line) for line in (lines[0], *lines[2:])] == [
        [r"a\|b", "n"], [r"体育\|新闻", "1"], ["财经 股票", "2"], [r"is \| already", "3"],
    ]  # fmt: skip
    said = {"student alone": [0, 1], "distilled": [0, 1]}
    table = class_table(class_changes(said, [0, 1], ["x|y", "x\r\ny"]))
    assert [len(cells(line)) for line in table.splitlines()] == [7, 7, 7, 7]
