"""A folder of answers goes up and comes back through the real client of the Hub, over HTTP."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tiny
from hub_server import TOKEN, environment, hub

from hf_distill.cache.hub import pulled

PUSH = """
    import sys
    from hf_distill import cli
    sys.exit(cli.main(sys.argv[1:]))
"""
LEARN = """
    import json, sys
    sys.path.insert(0, sys.argv[1])
    import tiny
    from datasets import Dataset
    from transformers import DataCollatorWithPadding
    found = {}
    for name in sys.argv[3:]:
        collator = DataCollatorWithPadding(tiny.tokenizer())
        run = tiny.trainer(sys.argv[2], data=tiny.rows(24), teacher_model=name, data_collator=collator)
        run.train()
        found[name] = tiny.losses(run)
    print(json.dumps(found))
"""


def start(program, *words, env):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, words)], env={**os.environ, **env},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_pushed_by_the_command_and_loaded_by_name(tmp_path):
    tiny.teacher().save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"input_ids": r["input_ids"]}) for r in tiny.rows(24)))
    words = [
        "cache", "--teacher_model_name_or_path", tmp_path / "teacher", "--dataset_name", tmp_path / "rows.jsonl",
        "--output_dir", tmp_path / "answers",
    ]  # fmt: skip
    with hub() as server:
        pushing = ["--push_to_hub", "true", "--hub_dataset_id", "me/answers", "--hub_private_repo", "true"]
        (tmp_path / "answers" / "data").mkdir(parents=True)
        (tmp_path / "answers" / "data" / ".elsewhere-1-00000-abc-000000.parquet").write_bytes(b"half")
        wrong = start(PUSH, *words, *pushing, env={**environment(server, tmp_path / "home"), "HF_TOKEN": "hf_wrong"})
        assert wrong.returncode == 1
        assert "the answers were not pushed to me/answers (the Hub answered 401: Invalid" in wrong.stderr
        assert "`hf upload me/answers" in wrong.stderr
        assert "hf_wrong" not in wrong.stderr + wrong.stdout
        found = start(PUSH, *words, *pushing, env=environment(server, tmp_path / "home"))
        assert found.returncode == 0, found.stderr[-3000:]
        assert "0 rows asked" in found.stdout  # nothing of the first try was lost
        files = server.repositories["datasets/me/answers"]
        data = [name for name in files if name.startswith("data/")]
        assert sorted(set(files) - set(data) - {".gitattributes"}) == ["README.md", "teacher.json"]
        assert len(data) == 1
        assert not any(TOKEN.encode() in content for content in files.values())
        assert server.private["datasets/me/answers"]
        names = ["hf://datasets/me/answers", tmp_path / "answers"]
        tests = Path(__file__).parents[1]
        learned = start(LEARN, tests, tmp_path / "out", *names, env=environment(server, tmp_path / "empty"))
        assert learned.returncode == 0, learned.stderr[-3000:]
        one, two = json.loads(learned.stdout.splitlines()[-1]).values()
        assert one == two
        server.repositories["datasets/me/other"] = {"README.md": b"nothing"}
        other = start(
            LEARN, tests, tmp_path / "out", "hf://datasets/me/other", env=environment(server, tmp_path / "e2")
        )
        assert "the data set me/other has no teacher.json, it holds no teacher's answers" in other.stderr


def test_a_folder_is_itself(tmp_path):
    assert pulled(str(tmp_path)) == tmp_path
