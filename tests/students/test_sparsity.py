"""Students whose smallest weights stay zero while they learn, and whose files say so."""

import copy
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from torch.nn.utils import prune
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config

from hf_distill.students import lineage, prune_2_4, prune_magnitude
from hf_distill.students.importance import LINEAR


def linear(model):
    return {path: module for path, module in model.named_modules() if type(module) in LINEAR}


def train(folder, student, **args):
    args = {"max_steps": 6, "weight_decay": 0.3, "gradient_accumulation_steps": 2, "max_grad_norm": 1.0, **args}
    args["per_device_train_batch_size"], kind = 2, args.pop("kind", None)
    made = {"optimizers": (kind(student.parameters(), lr=0.01), None)} if kind else {}
    run = tiny.trainer(folder, student, tiny.rows(16), teacher_model=tiny.teacher(), args=args, **made)
    run.train()
    return run


KINDS = {
    "adamw": {"optim": "adamw_torch"},
    "adafactor": {"optim": "adafactor"},
    "momentum": {"kind": partial(torch.optim.SGD, momentum=0.9, weight_decay=0.3, nesterov=True)},
}


@pytest.mark.parametrize("optimizer", KINDS)
def test_two_of_four_stay_zero_through_training_and_in_the_file(tmp_path, optimizer):
    run = train(tmp_path, prune_2_4(tiny.bert(), skip=["classifier"]), **KINDS[optimizer])
    assert max(tiny.losses(run, "teacher_cache_hits")) == 1  # a kept teacher, too
    run.save_model(str(tmp_path / "final"))
    loaded, told = AutoModelForSequenceClassification.from_pretrained(tmp_path / "final", output_loading_info=True)
    assert not any(told.values())
    batch = run.data_collator(tiny.rows(4))
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, run.model.eval()(**batch).logits)
    for path, module in linear(loaded).items():
        fours = module.weight.unflatten(-1, (-1, 4)).count_nonzero(dim=-1)
        assert torch.all(fours == 2) or path == "classifier", path
        if path != "classifier":
            ours = run.model.get_submodule(path)
            assert torch.equal(ours.weight, module.weight)
            assert torch.equal(ours.weight, ours.weight_orig)  # what is masked does not grow behind the mask
            assert not torch.equal(ours.weight, prune_2_4(tiny.bert()).get_submodule(path).weight)  # and it learned
    assert loaded.classifier.weight.count_nonzero() == loaded.classifier.weight.numel()


def test_the_larger_two_are_kept_and_the_model_is_left_as_it_is():
    model = tiny.bert()
    before = copy.deepcopy(model.state_dict())
    sparse = prune_2_4(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    weight, ours = model.classifier.weight, sparse.classifier.weight
    for row, kept in zip(weight.view(-1, 4).tolist(), ours.view(-1, 4).tolist(), strict=True):
        best = sorted(row, key=abs)[2:]
        assert kept == [one if one in best else 0 for one in row]
    assert lineage(sparse) == [
        "In 8 linear layers of `BertForSequenceClassification` two of each four weights are zero."
    ]


def test_a_share_of_each_layer_stays_zero(tmp_path):
    sparse = prune_magnitude(tiny.bert(), 0.75)
    run = train(tmp_path, sparse)
    run.save_model()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    for module in linear(loaded).values():
        assert module.weight.count_nonzero() == module.weight.numel() // 4
    assert "the smallest 75% of the weights are zero." in lineage(loaded)[0]


def test_layers_that_keep_their_weight_the_other_way_round_and_a_head_of_words():
    config = GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=12, bos_token_id=1, eos_token_id=2)
    model = AutoModelForCausalLM.from_config(config)
    sparse = prune_2_4(model)
    assert sparse.lm_head.weight is sparse.transformer.wte.weight
    assert not prune.is_pruned(sparse.lm_head)
    weight = sparse.transformer.h[0].mlp.c_fc.weight  # [inputs, outputs]
    assert torch.all(weight.T.unflatten(-1, (-1, 4)).count_nonzero(dim=-1) == 2)


def test_what_cannot_be_masked_is_refused():
    model = tiny.bert()
    with pytest.raises(ValueError, match="no linear layer of BertForSequenceClassification has 'head' in its name"):
        prune_2_4(model, skip="head")
    with pytest.raises(ValueError, match="no linear layer is left"):
        prune_2_4(model, skip=["bert", "classifier"])
    with pytest.raises(ValueError, match="is computed from others already: give the model as it was before"):
        prune_magnitude(prune_2_4(model))
    with pytest.raises(ValueError, match=r"adds up 18: leave it whole with skip=\['bert"):
        prune_2_4(tiny.bert(width=18))
    with pytest.raises(ValueError, match="amount=1 was given: give the share"):
        prune_magnitude(model, 1)


RANK = """
import sys
sys.path.insert(0, sys.argv[1])
import tiny
from hf_distill.students import prune_2_4
args = {"max_steps": 4, "weight_decay": 0.3, "per_device_train_batch_size": int(sys.argv[3])}
run = tiny.trainer(sys.argv[2], prune_2_4(tiny.bert()), tiny.rows(16), teacher_model=tiny.teacher(), args=args)
assert run.args.world_size * int(sys.argv[3]) == 4
run.train()
run.save_model()
"""


@pytest.mark.slow
def test_two_ranks_are_one_batch(tmp_path):
    found, rank = [], tmp_path / "rank.py"
    rank.write_text(RANK)
    for ranks, batch in ((1, "4"), (2, "2")):
        launch = f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node {ranks}".split()
        words = [*launch, str(rank), str(Path(__file__).parents[1]), str(tmp_path / str(ranks)), batch]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        told = subprocess.run(words, env=env, capture_output=True, text=True, timeout=180, check=False)
        assert told.returncode == 0, told.stderr[-4000:]
        found.append(AutoModelForSequenceClassification.from_pretrained(tmp_path / str(ranks)))
    for path, module in linear(found[1]).items():
        assert torch.all(module.weight.unflatten(-1, (-1, 4)).count_nonzero(dim=-1) == 2)
        assert torch.allclose(module.weight, found[0].get_submodule(path).weight, atol=1e-5)
