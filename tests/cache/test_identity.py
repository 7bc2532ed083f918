import json

import peft
import tiny
import torch
from torch import nn

from hf_distill import AdapterOffTeacher, Facts, FunctionTeacher, LiveTeacher
from hf_distill.cache.identity import facts_in, header_of, precision_of
from hf_distill.cache.offline_teacher import AbsentTeacher
from hf_distill.models.fingerprint import weights_of
from hf_distill.tasks.alignment.tokenizers import vocabulary_of


def test_weights_are_hashed_as_they_will_be_computed_with():
    model = tiny.teacher()
    whole = weights_of(model)
    assert whole == weights_of(tiny.teacher())
    assert whole != weights_of(tiny.bert(width=24, layers=2, seed=8))
    half = weights_of(model, torch.bfloat16)
    assert half != whole
    assert half == weights_of(model.to(torch.bfloat16)) == weights_of(model, torch.bfloat16)


def test_one_weight_or_one_buffer_makes_another_teacher():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    seen = [weights_of(model)]
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-7
    seen.append(weights_of(model))
    model[1].running_mean += 1
    seen.append(weights_of(model))
    assert len(set(seen)) == 3


def test_weights_that_are_not_here_have_no_hash():
    assert weights_of(nn.Linear(2, 2, device="meta")) is None
    sharded = nn.Linear(2, 2)
    sharded.weight.ds_id = 0
    assert weights_of(sharded) is None
    quantised = nn.Linear(2, 2)
    quantised.quantization_method = "bitsandbytes"
    assert weights_of(quantised) is None
    assert FunctionTeacher(lambda batch: batch).fingerprint() is None


def test_a_students_base_is_known_without_its_adapter(tmp_path):
    def student(**changes):
        torch.manual_seed(0)
        return peft.get_peft_model(tiny.bert(**changes), peft.LoraConfig(task_type="SEQ_CLS", r=2))

    runs = [tiny.trainer(tmp_path, student(**changes), teacher_model=AdapterOffTeacher()) for changes in ({}, {})]
    runs[1].train()  # moves the adapter and the head's copy alone
    other = tiny.trainer(tmp_path, student(seed=5), teacher_model=AdapterOffTeacher())
    one, two, three = (run.teacher.fingerprint(run.model) for run in (*runs, other))
    assert one == two
    assert one != three


def test_an_adapter_off_teacher_is_kept_and_stays_what_it_was(tmp_path):
    def losses(cache):
        torch.manual_seed(0)
        config = peft.LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False)
        run = tiny.trainer(
            tmp_path, peft.get_peft_model(tiny.bert(), config), teacher_model=AdapterOffTeacher(),
            args={"teacher_cache": cache, "max_steps": 4},
        )  # fmt: skip
        run.train()
        return tiny.losses(run), tiny.losses(run, "teacher_cache_hits")

    expected, _ = losses("off")
    found, hits = losses("auto")
    assert found == expected
    assert hits == [0.0, 1.0, 1.0, 1.0]


def test_precisions_and_vocabularies():
    assert precision_of(LiveTeacher(tiny.teacher())) == "float32"
    assert precision_of(LiveTeacher(tiny.teacher()), "bf16") == "bf16 autocast"
    assert precision_of(LiveTeacher(tiny.teacher(), dtype=torch.float16), "bf16") == "float16"
    assert precision_of(FunctionTeacher(lambda batch: batch)) is None
    tokenizer = tiny.tokenizer()
    assert vocabulary_of(tokenizer) == vocabulary_of(tiny.tokenizer())
    tokenizer.add_tokens(["new"])
    assert vocabulary_of(tokenizer) != vocabulary_of(tiny.tokenizer())
    assert vocabulary_of(None) is None


def test_a_header_speaks_for_a_teacher_that_is_not_here():
    facts = Facts("my/teacher", revision="abc", vocab_size=32, labels=("a", "b"))
    header = {**header_of(facts), "needs": ["heads"], "takes": ["input_ids", "attention_mask"]}
    teacher = AbsentTeacher("answers", header)
    assert teacher.facts == facts
    assert teacher.serves == {"heads"}
    batch = {"input_ids": 1, "teacher_input_ids": 2, "labels": 3}
    assert teacher.inputs(batch) == {"input_ids": 2}
    assert teacher.inputs({"input_ids": 1, "token_type_ids": 4}) == {"input_ids": 1}


def test_a_teachers_folder_says_nothing_of_the_machine(tmp_path):
    (tmp_path / "wise").mkdir()
    header = header_of(Facts(str(tmp_path / "wise"), vocab_size=9))
    assert (header["teacher"], facts_in(header).name, facts_in(header).vocab_size) == ("wise", "wise", 9)


def test_facts_are_read_back_as_they_were_written():
    facts = Facts("my/teacher", hidden_size=2, labels=("a", "b"), kept=(0, 3), copies=(1,), copied_from=2)
    assert facts_in(json.loads(json.dumps(header_of(facts)))) == facts
