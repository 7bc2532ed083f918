"""What a report says of the run that made it: enough to find its rows again, and nothing that opens a door."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from hf_distill.experiments import Recipe
from hf_distill.experiments.record import record, recorded
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.hub.secret import Secret


@dataclass
class Arguments:
    recipe: str | None = None
    train_file: str | None = None
    max_length: int = 128
    columns: list[str] = field(default_factory=list)
    served: dict | str | None = None


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    output_dir: str = "outputs/mine"


class Nothing:
    def run(self, started):
        return {}


def test_what_was_asked_for_is_recorded_and_nothing_else(tmp_path):
    recipe = Recipe(Arguments, TrainingArguments, lambda *given: Nothing())
    flags = ["--train_file", "rows.jsonl", "--seed", "7", "--alpha", "0.5", "--hub_token", "hf_abc"]
    flags += ["--output_dir", str(tmp_path / "run"), "--recipe", "mine", "--use_cpu", "1", "--bf16", "0"]
    made = recipe.prepare(flags).made_by
    assert made["name"] == "mine"
    asked = {"train_file": "rows.jsonl", "seed": 7, "alpha": 0.5}
    assert asked.items() <= made["arguments"].items()
    assert made["arguments"].keys() <= asked.keys() | {"bf16", "use_cpu"}  # defaults are the machine's
    assert "hf_abc" not in json.dumps(made)


def test_no_token_no_password_and_no_home_is_written():
    home = str(Path.home() / "rows.jsonl")
    served = {
        "url": "https://me:secret@host/v1",
        "api_key": "abc",
        "headers": {"Authorization": "abc"},
        "new_tokens": 8,
    }
    asked = Arguments(train_file=home, columns=[Secret("hf_abc")], served=served)
    written = record("mine", asked, Arguments())["arguments"]
    assert written["train_file"] == "~/rows.jsonl"
    assert written["served"] == {"url": "https://host/v1", "headers": {}, "new_tokens": 8}
    assert written["columns"] == [None]
    assert recorded({"recipe": {"name": "mine", "arguments": written}})[1]["train_file"] == home


def test_a_report_without_a_record_is_told_apart():
    assert recorded({"recipe": "mine"}) is None
    assert recorded({"recipe": {"arguments": {}}}) is None
    assert recorded({"recipe": {"name": "mine"}}) == ("mine", {})
