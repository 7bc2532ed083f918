"""A server that answers as vLLM's does writes for the teacher: over HTTP, token by token what the teacher would."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import runs
import tiny_language
import torch
from transformers import GenerationConfig

from hf_distill.rollouts.served import Served

SEQ = {"seq_kd": 1.0, "max_new_tokens": 6, "num_beams": 1}


class Vllm(ThreadingHTTPServer):
    """The two routes of vLLM that are asked, with a tiny teacher behind them; choices come in any order."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.model, self.asked, self.key, self.tokens = tiny_language.teacher().eval(), [], None, True
        self.models = [{"id": "teacher", "max_model_len": 64}]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def choice(self, index, prompt, body):
        text = self.model.generate(
            torch.tensor([prompt]), max_new_tokens=body["max_tokens"], do_sample=False,
            suppress_tokens=tiny_language.PADDING,
        )  # fmt: skip
        tokens = text[0, len(prompt) :].tolist()
        ended = tokens[-1] in body["stop_token_ids"]
        said = {"index": index, "finish_reason": "stop" if ended else "length"}
        return {**said, "token_ids": tokens} if self.tokens else said


class Answering(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"data": self.server.models})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        choices = [self.server.choice(index, prompt, body) for index, prompt in enumerate(body["prompt"])]
        self.answer({"choices": choices[::-1]})

    def answer(self, found):
        wrong = self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}"
        data = json.dumps({"error": "Unauthorized"} if wrong else found).encode()
        self.send_response(401 if wrong else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words):
        pass


@pytest.fixture
def vllm():
    server = Vllm()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_server_writes_what_the_teacher_would_and_is_asked_once_for_each_prompt(tmp_path, vllm):
    plain = runs.trainer(tmp_path / "plain", rollout=SEQ, args={"max_steps": 1})
    plain.train()
    for name in ("served", "again"):
        served = {**SEQ, "server": vllm.url, "folder": str(tmp_path / "texts")}
        run = runs.trainer(tmp_path / name, rollout=served, args={"max_steps": 1})
        run.train()
        for column in ("input_ids", "labels", "attention_mask"):
            assert torch.equal(run.seen[0][0][column], plain.seen[0][0][column])
    (body,) = vllm.asked
    assert len({tuple(prompt) for prompt in body["prompt"]}) == len(body["prompt"]) > 1
    assert body | {"prompt": []} == {
        "model": "teacher", "prompt": [], "max_tokens": 6, "temperature": 0, "repetition_penalty": 1.0,
        "stop_token_ids": body["stop_token_ids"], "return_token_ids": True,
    }  # fmt: skip
    assert body["stop_token_ids"]


def test_texts_of_a_server_are_not_taken_for_the_teachers_own(tmp_path, vllm):
    folder = {"folder": str(tmp_path / "texts")}
    runs.trainer(tmp_path / "a", rollout={**SEQ, **folder}, args={"max_steps": 1}).train()
    own = _kept(tmp_path / "texts")
    runs.trainer(tmp_path / "b", rollout={**SEQ, **folder, "server": vllm.url}, args={"max_steps": 1}).train()
    assert _kept(tmp_path / "texts") == 2 * own


def _kept(folder):
    return len({json.loads(line)["key"] for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()})


def test_an_end_that_the_server_left_out_is_put_behind_and_nothing_stays_behind_an_end():
    ends = [2, 7]
    for choice, text in (
        ({"token_ids": [5, 6], "finish_reason": "stop", "stop_reason": 7}, [5, 6, 7]),
        ({"token_ids": [5, 6], "finish_reason": "stop", "stop_reason": None}, [5, 6, 2]),
        ({"token_ids": [5, 6], "finish_reason": "length"}, [5, 6]),
        ({"token_ids": [5, 2, 6], "finish_reason": "length"}, [5, 2]),
        ({"token_ids": [], "finish_reason": "stop", "stop_reason": None}, [2]),
    ):
        assert Served._whole(choice, ends).tolist() == text


def test_the_key_is_sent_and_never_shown(tmp_path, vllm, monkeypatch, caplog):
    vllm.key = "secret-of-the-server"
    with pytest.raises(ValueError, match=r"answers 401 .*; its key is read from VLLM_API_KEY: start it with"):
        Served(vllm.url, "teacher")
    monkeypatch.setenv("VLLM_API_KEY", vllm.key)
    with caplog.at_level(logging.DEBUG):
        runs.trainer(tmp_path, rollout={**SEQ, "server": f"{vllm.url}/v1/"}, args={"max_steps": 1}).train()
    assert len(vllm.asked) == 1
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not any(vllm.key.encode() in data for data in (*kept, caplog.text.encode()))


def test_one_of_several_models_is_the_teacher_by_its_name(vllm):
    vllm.models = [{"id": "other"}, {"id": "teacher"}]
    assert Served(vllm.url, "teacher").model == "teacher"
    with pytest.raises(ValueError, match="serves 'other', 'teacher', and the teacher is 'mine': serve it"):
        Served(vllm.url, "mine")
    vllm.models = []
    with pytest.raises(ValueError, match="serves no model, and the teacher is 'mine'"):
        Served(vllm.url, "mine")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_beams": 4}, r"write with num_beams=4, and http.* takes the most likely token at each place: set num"),
        ({"no_repeat_ngram_size": 3}, r"asks for no_repeat_ngram_size=3, which http.* does not do"),
        ({"max_new_tokens": 60}, r"a prompt of 5 tokens and a text of max_new_tokens=60, http.* reads 64 \(max_model"),
    ],
)
def test_what_the_server_cannot_do_is_refused(vllm, options, told):
    config = GenerationConfig(**{"max_new_tokens": 6, **options})
    with pytest.raises(ValueError, match=told):
        Served(vllm.url, "teacher").check(config, 5)


def test_refusals_come_before_the_first_step(tmp_path, vllm):
    with pytest.raises(ValueError, match=r"write with num_beams=2, and http"):
        runs.trainer(tmp_path, rollout={**SEQ, "num_beams": 2, "server": vllm.url})
    with pytest.raises(ValueError, match="vLLM does not write for encoder-decoder models such as T5"):
        runs.trainer(tmp_path, "t5", rollout={**SEQ, "server": vllm.url})
    with pytest.raises(ValueError, match="does not answer"):
        runs.trainer(tmp_path, rollout={**SEQ, "server": "http://127.0.0.1:9"})


def test_a_server_that_does_not_say_its_tokens_is_refused(tmp_path, vllm):
    vllm.tokens = False
    run = runs.trainer(tmp_path, rollout={**SEQ, "server": vllm.url}, args={"max_steps": 1})
    with pytest.raises(ValueError, match=r"did not give them \(`return_token_ids`\): serve the teacher with vLLM 0\."):
        run.train()
