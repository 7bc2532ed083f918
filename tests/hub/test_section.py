"""A section of a card: where it stands, and what it takes the place of."""

from hf_distill.hub.section import put_section


def test_a_section_is_that_of_the_last_time(tmp_path):
    card = tmp_path / "README.md"
    assert not put_section(card, "## Exports", "| a |", "so")
    card.write_text("# S\n\n## How to use it\n\nSo.\n\n## Intended use and limits\n\nSo.\n", encoding="utf-8")
    for table in ("| first |", "| second |"):
        assert put_section(card, "## Exports", table, "On rows.")
    text = card.read_text(encoding="utf-8")
    assert text == (
        "# S\n\n## How to use it\n\nSo.\n\n## Exports\n\n| second |\n\nOn rows.\n\n## Intended use and limits\n\nSo.\n"
    )
    card.write_text("# S\n", encoding="utf-8")
    put_section(card, "## Exports", "| third |", "On rows.")
    assert card.read_text(encoding="utf-8") == "# S\n\n## Exports\n\n| third |\n\nOn rows.\n"


def test_sections_stand_beside_each_other_and_a_heading_is_no_pattern(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("# S\n\n## Intended use and limits\n\nSo.\n", encoding="utf-8")
    for heading in ("## Exports", "## A+ (b)", "## Exports"):
        put_section(card, heading, "| t |", "So.")
    headings = [line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert headings == ["## A+ (b)", "## Exports", "## Intended use and limits"]
