"""The command that scores a run by public benchmarks: what it writes, and what it refuses."""

import importlib.util
import json

import pytest
import tiny_images
import tiny_language
import tiny_tasks

from hf_distill import cli
from hf_distill.cli.arguments import BenchmarkArguments
from hf_distill.experiments.benchmark import FILE
from hf_distill.experiments.suites import SUITES, Figure, LmEval

WORDS = ["--suite", "lm-eval", "--tasks", "mine"]


@pytest.fixture
def run(tmp_path):
    """A finished run, whose models were never trained."""
    folder = tmp_path / "run"
    for name, place in enumerate((folder, folder / "_alone", folder / "_teacher-a")):
        tiny_language.llama(seed=name).save_pretrained(place)
        tiny_language.tokenizer().save_pretrained(place)
    (folder / "_teacher-a" / "trained_with.json").write_text("{}", encoding="utf-8")
    (folder / "report.json").write_text(json.dumps({"teacher_folder": "_teacher-a"}), encoding="utf-8")
    (folder / "README.md").write_text("# S\n\n## Intended use and limits\n\nSo.\n", encoding="utf-8")
    return folder


@pytest.fixture
def scored(monkeypatch):
    """In the place of lm-eval: what was asked, and which models were scored."""
    seen = []

    def made(self, asked):
        self.asked = asked
        seen.append(asked)

    def score(self, model):
        seen.append(model)
        return [Figure("mine", "acc", len(seen) / 10, 0.01, 50)]

    monkeypatch.setattr(LmEval, "__init__", made)
    monkeypatch.setattr(LmEval, "score", score)
    monkeypatch.setattr(LmEval, "check", classmethod(lambda cls: None))
    monkeypatch.setattr(LmEval, "version", classmethod(lambda cls: "lm_eval 1"))
    return seen


def test_a_run_s_models_stand_beside_each_other_in_file_and_card(run, scored, capsys):
    assert cli.main(["benchmark", str(run), *WORDS, "--use_cpu", "--per_device_eval_batch_size", "3"]) == 0
    asked, *models = scored
    assert (asked.tasks, asked.batch_size, asked.device, asked.limit) == (["mine"], 3, "cpu", None)
    assert models == [str(run / "_alone"), str(run), str(run / "_teacher-a")]
    (row,) = json.loads((run / FILE).read_text(encoding="utf-8"))["figures"]
    assert [one["value"] for one in row["models"].values()] == [0.2, 0.3, 0.4]
    table = "| mine |    acc |   50 | 0.2000 ± 0.0100 | 0.3000 ± 0.0100 | 0.4000 ± 0.0100 |            - |"
    said, card = capsys.readouterr().out, (run / "README.md").read_text(encoding="utf-8")
    assert table in said
    assert "is not in the run's folder" not in said
    assert table in card
    assert card.index("## Benchmarks") < card.index("## Intended use")


def test_a_file_of_settings_and_a_student_of_which_nobody_knows_more(run, scored, tmp_path, capsys):
    settings = tmp_path / "mine.yaml"
    settings.write_text("suite: lm-eval\ntasks: [mine, other]\nlimit: 5\n", encoding="utf-8")
    assert cli.main(["benchmark", str(run / "_alone"), str(settings), "--limit", "7", "--use_cpu"]) == 0
    assert (scored[0].tasks, scored[0].limit) == (["mine", "other"], 7)
    said = capsys.readouterr().out
    assert "--teacher names one" in said
    assert "--alone names one" in said
    assert "the table in" not in said  # there is no card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no folder was named: begin with that of a finished student"),
        (["{run}", "--suite", "helm", "--tasks", "a"], "the suite 'helm' was asked for, there are lm-eval and mteb"),
        (["{run}", "--suite", "mteb"], "the following arguments are required: --tasks"),
        (["{run}", *WORDS, "--limit", "0"], "limit=0 was given: give 1 or more"),
        (["{run}", *WORDS, "--pool", "first"], "pool was given, which is for mteb and not for lm-eval"),
        (
            ["{run}", "--suite", "mteb", "--tasks", "a", "--num_fewshot", "2"],
            "num_fewshot was given, which is for lm-e",
        ),
        (["{run}", "--suite", "mteb", "--tasks", "a", "--pool", "last"], "pool=last was given: use mean or first"),
        (["nowhere", *WORDS], "lm-eval was to score nowhere, which holds no model (config.json)"),
        (
            ["{run}", *WORDS, "--teacher", "nowhere"],
            "the teacher was to be nowhere, and no model can be loaded from it",
        ),
    ],
)
def test_errors_are_one_sentence(run, monkeypatch, capsys, words, message):
    for suite in SUITES:
        monkeypatch.setattr(suite, "check", lambda: None)
    assert cli.main(["benchmark", *(one.format(run=run) for one in words)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("hf-distill benchmark: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_student_of_another_kind_is_refused_and_what_each_suite_scores_is_said(tmp_path, capsys):
    tiny_images.vit().save_pretrained(tmp_path / "images")
    tiny_tasks.CASES["embedding"].model().save_pretrained(tmp_path / "encoder")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    each = "lm-eval scores causal language models, mteb scores encoders of sentences: name a student of that kind."
    for name, suite, message in (
        ("images", "mteb", f"which holds a ViTForImageClassification, and {each}"),
        ("encoder", "lm-eval", f"which holds a BertModel, and {each}"),
        ("adapter", "lm-eval", "which holds an adapter and not its base: train with --merge_lora"),
    ):
        assert cli.main(["benchmark", str(tmp_path / name), "--suite", suite, "--tasks", "a"]) == 1
        assert message in capsys.readouterr().err


def test_a_library_that_is_missing_is_named_with_its_extra(run, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else find(name))
    assert cli.main(["benchmark", str(run), *WORDS]) == 1
    message = "hf-distill benchmark: lm-eval needs lm_eval: pip install 'hf_distill[lm_eval]'.\n"
    assert capsys.readouterr().err.endswith(message)


def test_every_suite_is_named_in_the_help():
    told = BenchmarkArguments.__dataclass_fields__["suite"].metadata["help"]
    assert all(f"{suite.name} ({suite.scores})" in told for suite in SUITES)
