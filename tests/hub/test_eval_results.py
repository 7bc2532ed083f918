"""What leaderboards read: one figure of one data set of the Hub, in the form that the Hub's client reads back."""

import math

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from hf_distill.hub.eval_results import FILE, write_eval_results

METRICS = {"f1": "entity_f1", "accuracy": "accuracy"}
REPORT = {
    "models": [{"name": "teacher", "entity_f1": 0.9}, {"name": "distilled", "entity_f1": 0.812345, "accuracy": 0.9}],
    "datasets": ["me/entities"],
    "split": "validation",
    "dataset_revision": "5503434ddd753f426f4b38109466949a1217c2bb",
}


def test_the_hubs_client_reads_it_back(tmp_path):
    path = write_eval_results(tmp_path, REPORT, METRICS)
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert path == tmp_path / ".eval_results" / "hf_distill.yaml"
    assert (entry.dataset_id, entry.task_id, entry.value) == ("me/entities", "default", 0.8123)
    assert entry.dataset_revision == REPORT["dataset_revision"]
    assert entry.notes == "entity f1 on the validation split"


def test_the_task_may_have_a_name_of_its_own(tmp_path):
    path = write_eval_results(tmp_path, {**REPORT, "eval_task_id": "ner"}, METRICS)
    assert yaml.safe_load(path.read_text(encoding="utf-8"))[0]["dataset"]["task_id"] == "ner"


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets": []},
        {"datasets": ["me/a", "me/b"]},
        {"models": [{"name": "teacher", "entity_f1": 0.9}]},
        {"models": [{"name": "distilled", "entity_f1": math.nan}]},
    ],
)
def test_where_there_is_nothing_to_say_an_older_file_does_not_stay(tmp_path, changes):
    write_eval_results(tmp_path, REPORT, METRICS)
    assert write_eval_results(tmp_path, {**REPORT, **changes}, METRICS) is None
    assert not (tmp_path / FILE).exists()
