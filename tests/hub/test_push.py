"""What goes to the Hub and what never does, and what a failed push leaves and says: the real client, over HTTP."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from hub_server import environment, hub, reached
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, TrainingArguments
from transformers.utils import hub as client

from hf_distill.hub.push import PushError
from hf_distill.reports.page import PAGE, PUBLIC

# The client of huggingface_hub 2.4 uploads files in a way that its own HTTP library is giving up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

ALWAYS = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
ALSO = {"training_args.bin", ".gitattributes"}
RESUMES = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "distillation.safetensors"}
SECRET = "hf_local"
TEXT = {"input_ids": [[2, 7, 9, 3]], "attention_mask": [[1, 1, 1, 1]]}


@pytest.fixture
def server(monkeypatch, tmp_path):
    with hub() as one, reached(one, monkeypatch, tmp_path / "_cache"):
        yield one


def run(folder, student=None, **changes):
    """A trainer that pushes a student with projections to ``me/student``, with a token of its own."""
    settings = {"push_to_hub": True, "hub_model_id": "me/student", "hub_token": SECRET, "max_steps": 2}
    return tiny.trainer(
        folder, student, teacher_model=tiny.teacher(), objective={"forward_kl": 1.0, "hidden_mse": 0.5},
        args={**settings, **changes},
    )  # fmt: skip


def published(one, folder):
    """Train, and leave beside the student what a recipe leaves: a report, pictures, other models, answers."""
    one.train()
    one.report = {
        "pictures": {"report.png": "a picture", "more.png": "another"},
        "table": "| a |",
        "rows": {"test": 8},
    }
    one.report |= {"dataset": "rows", "summary": "gain", "machine": "a machine", "datasets": ["me/rows"]}
    one.report["models"] = [{"name": "distilled", "accuracy": 0.75, "macro_f1": 0.5}]
    others = ("_alone/model.safetensors", "_teacher-1/model.safetensors")
    for name in ("report.png", "more.png", "report.json", PAGE, *others):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"content")
    one.push_to_hub()


def top(files):
    return {name for name in files if "/" not in name}


STRATEGIES = {"end": set(), "every_save": set(), "checkpoint": {"last-checkpoint"}}
STRATEGIES["all_checkpoints"] = {"checkpoint-1", "checkpoint-2"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_student_its_report_and_nothing_else_goes_up(server, tmp_path, strategy, caplog, capfd):
    folder = tmp_path / "run"
    saving = {"save_strategy": "steps", "save_steps": 1, "hub_always_push": True, "hub_private_repo": True}
    one = run(folder, hub_strategy=strategy, **saving)
    published(one, folder)
    files = server.repositories["me/student"]
    assert top(files) >= ALWAYS | {"report.png", "more.png", "report.json"}
    assert top(files) - ALWAYS <= ALSO | {"report.png", "more.png", "report.json"}
    assert {name.partition("/")[0] for name in files if "/" in name} == STRATEGIES[strategy] | {".eval_results"}
    assert b"value: 0.75" in files[".eval_results/hf_distill.yaml"]
    for checkpoint in STRATEGIES[strategy]:  # a checkpoint is there to go on from, here or elsewhere
        assert RESUMES <= {name.partition("/")[2] for name in files if name.startswith(f"{checkpoint}/")}
    assert server.private["me/student"]
    assert b"![another](more.png)" in files["README.md"]
    on_disk = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    said = [*capfd.readouterr(), caplog.text]
    assert not [content for content in (*files.values(), *on_disk) if SECRET.encode() in content]
    assert not [text for text in said if SECRET in text]
    assert str(tmp_path).encode() not in b"".join(files[n] for n in files if n.endswith((".json", ".md", ".png")))


@pytest.mark.parametrize("name", [PAGE, PUBLIC])
def test_a_page_that_shows_test_rows_goes_up_only_where_that_was_asked_for(server, tmp_path, name):
    one = run(tmp_path / "run", save_strategy="steps", save_steps=1, hub_strategy="every_save", hub_always_push=True)
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / name).write_text("rows of a person", encoding="utf-8")
    one.train()
    one.push_to_hub()
    files = server.repositories["me/student"]
    assert (name in files) == (name == PUBLIC)
    assert any(b"rows of a person" in content for content in files.values()) == (name == PUBLIC)


def sentence(error, folder):
    """The error's one sentence, and the command that it names."""
    text = str(error.value)
    assert "\n" not in text
    assert f"all of it is in {folder}" in text
    return text, shlex.split(re.search("`(hf upload .*?)`", text)[1])


def test_a_server_that_goes_down_half_way_leaves_all_and_the_named_command_pushes_it(server, tmp_path):
    one = run(tmp_path / "run", hub_revision="trained")
    server.writes = (
        8  # all files are up, their commit is not: a file is tried again for half a minute, a commit is not
    )
    with pytest.raises(PushError, match="the student was not pushed") as caught:
        published(one, tmp_path / "run")
    assert server.large
    assert server.repositories == {"me/student": {}, "me/student@trained": {}}
    assert ModelCard.load(tmp_path / "run" / "README.md").data.model_name == "student"
    _, command = sentence(caught, tmp_path / "run")
    server.writes = None
    tried = subprocess.run(
        [str(Path(sys.executable).with_name("hf")), *command[1:]], env={**os.environ, **environment(server, tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tried.returncode == 0, tried.stderr[-2000:]
    files = server.repositories["me/student@trained"]
    assert top(files) | {".eval_results/hf_distill.yaml"} == set(files)
    assert set(files) >= ALWAYS | {"report.png"}
    for name in ("model.safetensors", "report.json", "README.md"):
        assert files[name] == (tmp_path / "run" / name).read_bytes()
    assert server.repositories["me/student"] == {}


def test_a_refusal_before_the_training_is_one_sentence(server, tmp_path, monkeypatch):
    with pytest.raises(PushError, match=r"pushed to other/student.*403: You don't have the rights") as caught:
        run(tmp_path / "run", hub_model_id="other/student")
    with reached(server, monkeypatch, tmp_path / "_cache", "hf_wrong"):
        with pytest.raises(PushError, match=r"401: Invalid username or password\): log in with a token") as other:
            run(tmp_path / "run", hub_token="hf_wrong")
    assert not [text for text in map(str, (caught.value, other.value)) if "\n" in text or "hf_wrong" in text]


def test_a_refusal_after_the_training_keeps_the_report_and_push_to_hub_tries_again(server, tmp_path):
    server.repositories["other/student"] = {"README.md": b"somebody else's"}
    one = run(tmp_path / "run", hub_model_id="other/student")
    with pytest.raises(PushError) as caught:
        published(one, tmp_path / "run")
    assert "the Hub answered 403: Forbidden" in sentence(caught, tmp_path / "run")[0]
    assert {path.name for path in (tmp_path / "run").iterdir()} >= ALWAYS | {"report.json", "report.png"}
    one.hub_model_id = "me/student"
    server.repositories["me/student"] = {}
    one.push_to_hub()
    assert set(server.repositories["me/student"]) >= ALWAYS | {"report.png"}
    assert server.repositories["other/student"] == {"README.md": b"somebody else's"}


def test_a_student_that_nobody_had_saved_yet_is_on_the_disk_when_the_hub_refuses(server, tmp_path):
    one = run(tmp_path / "run", push_to_hub=False, hub_model_id="other/student")
    with pytest.raises(PushError, match=r"was not pushed .*403") as caught:
        one.push_to_hub(license="mit")
    assert "`hf upload other/student" in sentence(caught, tmp_path / "run")[0]
    assert {path.name for path in (tmp_path / "run").iterdir()} >= ALWAYS
    assert ModelCard.load(tmp_path / "run" / "README.md").data.license == "mit"


def test_whatever_the_client_raises_while_it_uploads_is_the_same_sentence(server, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("Data processing error:\n a word of the uploader's own")

    one = run(tmp_path / "run")
    monkeypatch.setattr(type(client.hf_api()), "upload_folder", broken)
    with pytest.raises(PushError, match="Data processing error: a word of") as caught:
        one.push_to_hub()
    sentence(caught, tmp_path / "run")
    monkeypatch.setattr(one, "create_model_card", broken)
    with pytest.raises(RuntimeError, match="Data processing"):  # no push was tried, so none has failed
        one.push_to_hub()


def warned(caplog):
    """What was said of pushes in the background; a job is done a moment before it says so."""
    for _ in range(100):
        if said := [
            r.getMessage() for r in caplog.records if (r.name, r.levelname) == ("hf_distill.hub.push", "WARNING")
        ]:
            break
        time.sleep(0.05)
    return said


def test_a_push_on_the_way_that_fails_says_so_and_the_run_goes_on(server, tmp_path, caplog):
    one = run(tmp_path / "run", hub_strategy="every_save", save_strategy="steps", save_steps=2)
    server.writes = 4
    one.train()
    assert one.state.global_step == 2
    (told,) = warned(caplog)
    assert told.startswith("A push on the way failed (")
    assert "`hf upload me/student" in told


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_a_checkpoint_that_did_not_get_there_is_pushed_by_the_command_that_is_named(
    server, tmp_path, caplog, monkeypatch, strategy
):
    upload = client.hf_api().upload_folder

    def half(self, **asked):
        return upload(**{**asked, "folder_path": tmp_path / "gone"} if asked.get("path_in_repo") else asked)

    one = run(tmp_path / "run", hub_strategy=strategy, save_strategy="steps", save_steps=2, hub_revision="trained")
    with monkeypatch.context() as here:
        here.setattr(type(client.hf_api()), "upload_folder", half)
        one.train()
    files = server.repositories["me/student@trained"]
    assert top(files) == set(files)
    (text,) = warned(caplog)
    assert f"the checkpoint is in {tmp_path / 'run' / 'checkpoint-2'}, push it with `hf upload" in text
    _, *words = shlex.split(re.search("`(hf upload .*?)`", text)[1])
    tried = subprocess.run(
        [str(Path(sys.executable).with_name("hf")), *words], env={**os.environ, **environment(server, tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tried.returncode == 0, tried.stderr[-2000:]
    into = "last-checkpoint" if strategy == "checkpoint" else "checkpoint-2"
    assert RESUMES <= {name.partition("/")[2] for name in files if name.startswith(f"{into}/")}
    assert "made room for later ones" in one._checkpoint_again(tmp_path / "run" / "checkpoint-1")


def test_what_nobody_else_could_load_or_is_a_data_set_is_not_pushed(server, tmp_path):
    with pytest.raises(ValueError, match=r"lies in output_dir=.*name a folder beside it, or .*_answers"):
        run(tmp_path / "run", teacher_cache=str(tmp_path / "run" / "answers"))
    run(tmp_path / "run", teacher_cache=str(tmp_path / "run" / "_answers"))
    adapter = get_peft_model(tiny.bert(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear"))
    one = tiny.trainer(tmp_path / "lora", adapter, teacher_model=tiny.teacher(), args={"hub_model_id": "me/lora"})
    with pytest.raises(ValueError, match="its base is made here, which nobody else has: push the base"):
        one.push_to_hub()
    assert (tmp_path / "lora" / "adapter_model.safetensors").exists()
    assert "me/lora" not in server.repositories


LOAD = """
import io, json, re, sys
from contextlib import redirect_stdout
from huggingface_hub import hf_hub_download
from transformers import AutoModelForSequenceClassification
text, found = json.loads(sys.argv[1]), {}
import torch
batch = {name: torch.tensor(value) for name, value in text.items()}
for name in sys.argv[2:]:
    card = open(hf_hub_download(name, "README.md"), encoding="utf-8").read()
    for code in re.findall(r"```python\\n(.*?)```", card, re.DOTALL):  # the card's own words load it
        space = {}
        with redirect_stdout(io.StringIO()):
            exec(code, space)
    found[name] = space["model"].eval()(**batch).logits.tolist()
    assert space["tokenizer"].tokenize("w1") == ["w1"]
model = AutoModelForSequenceClassification.from_pretrained("me/student", revision="early").eval()
found["early"] = model(**batch).logits.tolist()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_student_adapter_and_branch_load_from_an_empty_cache_in_another_process(server, tmp_path):
    text = {name: torch.tensor(value) for name, value in TEXT.items()}
    wanted = {}

    def pushed(one, name, **more):
        one.push_to_hub(**more)
        ModelCard.load(tmp_path / name / "README.md").validate()
        with torch.no_grad():
            return one.model.eval()(**text).logits.tolist()

    one = run(tmp_path / "student", hub_model_id="me/student", max_steps=1)
    wanted["early"] = pushed(one, "student", revision="early")
    one.train()
    wanted["me/student"] = pushed(one, "student")
    base = AutoModelForSequenceClassification.from_pretrained("me/student")
    adapter = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear"))
    one = run(tmp_path / "lora", adapter, hub_model_id="me/lora")
    one.train()
    wanted["me/lora"] = pushed(one, "lora")
    files = server.repositories["me/lora"]
    assert set(files) >= {"adapter_config.json", "adapter_model.safetensors", "README.md", "tokenizer.json"}
    assert not {"model.safetensors", "config.json", "distillation.safetensors"} & set(files)
    data = ModelCard.load(tmp_path / "lora" / "README.md").data
    assert (data.base_model, data.base_model_relation, data.library_name) == ("me/student", "adapter", "peft")
    assert [tag for tag in data.tags if tag.startswith("base_model")] == ["base_model:adapter:me/student"]

    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(TEXT), "me/student", "me/lora"],
        env={**os.environ, **environment(server, tmp_path / "empty")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    found = json.loads(loaded.stdout.splitlines()[-1])
    assert found == wanted
    assert found["early"] != found["me/student"]


def test_a_run_goes_on_elsewhere_from_the_checkpoint_that_was_pushed(server, tmp_path):
    whole = run(tmp_path / "whole", push_to_hub=False, max_steps=4)
    whole.train()
    run(
        tmp_path / "first", hub_strategy="checkpoint", save_strategy="steps", save_steps=2, max_steps=2,
    ).train()  # fmt: skip
    for name, content in server.repositories["me/student"].items():
        if name.startswith("last-checkpoint/"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
    rest = run(tmp_path / "rest", push_to_hub=False, max_steps=4)
    rest.train(resume_from_checkpoint=str(tmp_path / "last-checkpoint"))
    assert tiny.losses(rest)[-2:] == tiny.losses(whole)[-2:]


def test_plain_training_arguments_save_no_token_either(tmp_path):
    plain = tiny.arguments(tmp_path, TrainingArguments, hub_token=SECRET)
    one = tiny.trainer(tmp_path, plain_args=plain, teacher_model=tiny.teacher())
    one.save_model()
    assert SECRET.encode() not in (tmp_path / "training_args.bin").read_bytes()
    assert torch.load(tmp_path / "training_args.bin", weights_only=False).hub_token is None
    assert one.args.hub_token == SECRET  # it still opens the door
