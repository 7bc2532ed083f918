"""Students with a part of the vocabulary: the same tokens and the same logits on the text that it covers."""

import copy
import json
import random

import pytest
import tiny
import torch
from default_run import slow_but
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
    default_data_collator,
)

from hf_distill.students import lineage, trim_vocabulary
from hf_distill.students.pieces import with_parts

TEXTS = [
    "the quick brown fox jumps over the lazy dog", "a lazy dog sleeps under the brown tree",
    "quickly the foxes jumped over sleeping dogs", "trees and dogs and foxes are sleeping", "她在树下看见一只狐狸",
    "狐狸跳过了懒狗", "the unhappiness of lower foxes", "newer and lowest and widest dogs",
]  # fmt: skip
FEW = ["the lazy dog sleeps", "狐狸跳过了懒狗", "newer foxes"]
OTHER = ["zebra quartz 龍 ü", "unhappiness"]


def wordpiece():
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer()
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    vocab = trained.get_vocab()
    return BertTokenizer(vocab=dict(sorted(vocab.items(), key=lambda item: item[1])))


def bytes_bpe():
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=340, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    )
    vocab = trained.get_vocab()
    merges = [tuple(merge) for merge in _model(trained)["merges"]]
    return GPT2Tokenizer(vocab=vocab, merges=merges, pad_token="<|endoftext|>")


def fallback_bpe():
    """Characters first and bytes for the others, as Llama has it, with a template that writes <s>."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    start = Tokenizer(models.BPE(unk_token="<unk>"))
    start.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    start.train_from_iterator(TEXTS[:6], trainers.BpeTrainer(vocab_size=360, special_tokens=special))
    model = _model(start)
    merges = [tuple(merge) for merge in model["merges"]]
    made = Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = start.normalizer
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def unigram():
    start = Tokenizer(models.Unigram())
    start.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    start.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    return T5Tokenizer(vocab=[tuple(piece) for piece in _model(start)["vocab"]], extra_ids=3)


def _model(tokenizer):
    return json.loads(tokenizer.to_str())["model"]


def language_model(tokenizer):
    torch.manual_seed(0)
    size, pad = len(tokenizer) + 5, tokenizer.pad_token_id  # a few rows that no token has, as many models have
    if isinstance(tokenizer, BertTokenizer):
        sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
        return BertForMaskedLM(BertConfig(vocab_size=size, initializer_range=0.5, pad_token_id=pad, **sizes))
    if isinstance(tokenizer, GPT2Tokenizer):
        end = tokenizer.eos_token_id
        sizes = dict(n_embd=16, n_layer=2, n_head=2, initializer_range=0.5)
        return GPT2LMHeadModel(GPT2Config(vocab_size=size, bos_token_id=end, eos_token_id=end, **sizes))
    if isinstance(tokenizer, T5Tokenizer):
        sizes = dict(d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, dropout_rate=0.0)
        named = dict(pad_token_id=pad, eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=pad)
        return T5ForConditionalGeneration(T5Config(vocab_size=size, tie_word_embeddings=False, **named, **sizes))
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    ends = dict(bos_token_id=1, eos_token_id=[2, 1], pad_token_id=2, initializer_range=0.5)
    return LlamaForCausalLM(LlamaConfig(vocab_size=size, tie_word_embeddings=False, **ends, **sizes))


def logits(model, ids):
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=ids, **more).logits


def covered(tokenizer, small):
    """Random texts that the whole tokenizer reads with kept tokens only."""
    drawn, names, letters = random.Random(0), small.get_vocab(), sorted(set("".join(FEW)))
    words = " ".join(FEW).split()
    for _ in range(300):
        text = " ".join(drawn.choices(words, k=2)) + "".join(drawn.choices(letters, k=drawn.randint(0, 2)))
        if all(token in names for token in tokenizer.tokenize(text)):
            yield text


KINDS = [wordpiece, bytes_bpe, fallback_bpe, unigram]


@pytest.mark.parametrize("make", slow_but(KINDS[:2], KINDS))
def test_covered_text_is_read_and_answered_as_before(make, tmp_path):
    tokenizer = make()
    teacher = language_model(tokenizer)
    was = copy.deepcopy(teacher.state_dict()), dict(tokenizer.get_vocab())
    student, small = trim_vocabulary(teacher, tokenizer, FEW)
    assert len(small) < len(tokenizer)
    assert student.config.vocab_size == student.get_input_embeddings().num_embeddings < teacher.config.vocab_size
    names = sorted(small.get_vocab(), key=small.get_vocab().get)
    rows = torch.tensor([tokenizer.get_vocab()[name] for name in names])
    texts = [*FEW, *covered(tokenizer, small)]
    assert len(texts) > 20
    for text in texts:
        theirs, ours = (t(text, return_tensors="pt").input_ids for t in (tokenizer, small))
        assert small.convert_ids_to_tokens(ours[0]) == tokenizer.convert_ids_to_tokens(theirs[0])
        assert small.decode(ours[0]) == tokenizer.decode(theirs[0])
        expected = logits(teacher, theirs)[..., rows]
        assert torch.allclose(logits(student, ours)[..., : len(rows)], expected, rtol=1e-5, atol=1e-5)
    for text in OTHER:
        ids = small(text).input_ids
        assert max(ids) < len(small)
    student.save_pretrained(tmp_path)
    small.save_pretrained(tmp_path)
    loaded, info = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*FEW, *OTHER]:
        assert again(text).input_ids == small(text).input_ids
    ids = small(FEW, return_tensors="pt", padding=True).input_ids
    assert torch.equal(logits(loaded, ids), logits(student, ids))
    assert all(torch.equal(was[0][name], value) for name, value in teacher.state_dict().items())
    assert tokenizer.get_vocab() == was[1]


@pytest.mark.parametrize("make", [bytes_bpe, fallback_bpe])
def test_what_is_not_covered_becomes_bytes(make):
    _, small = trim_vocabulary(language_model(make()), make(), FEW)
    text = "龍 ü zebra"
    assert small.decode(small(text).input_ids, skip_special_tokens=True).strip() == text


def test_special_ids_follow_in_both_configurations():
    tokenizer = fallback_bpe()
    teacher = language_model(tokenizer)
    teacher.generation_config.suppress_tokens = [tokenizer.get_vocab()["▁"], 2]
    student, small = trim_vocabulary(teacher, tokenizer, FEW)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        old, new = getattr(teacher.config, name), getattr(student.config, name)
        pairs = zip(old, new, strict=True) if isinstance(old, list) else [(old, new)]
        for theirs, ours in pairs:
            assert tokenizer.convert_ids_to_tokens(theirs) == small.convert_ids_to_tokens(ours)
    assert student.generation_config.suppress_tokens == [small.get_vocab()["▁"], 2]
    assert student.get_input_embeddings().padding_idx == student.config.pad_token_id


def test_a_tied_head_stays_tied_and_its_bias_is_cut():
    tokenizer = wordpiece()
    student, _ = trim_vocabulary(language_model(tokenizer), tokenizer, FEW)
    head = student.get_output_embeddings()
    assert head.weight is student.get_input_embeddings().weight
    assert head.bias.shape == (student.config.vocab_size,)
    assert head.bias is student.cls.predictions.bias
    assert all(p.requires_grad for p in student.parameters())


def test_an_encoder_decoder_with_a_bias_that_is_no_parameter():
    tokenizer = wordpiece()
    sizes = dict(d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    inner = dict(encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0, bos_token_id=2, eos_token_id=3, init_std=0.5)
    config = BartConfig(vocab_size=len(tokenizer), decoder_start_token_id=3, forced_eos_token_id=3, **sizes, **inner)
    teacher = BartForConditionalGeneration(config)
    teacher.final_logits_bias.copy_(torch.randn(1, len(tokenizer)))
    student, small = trim_vocabulary(teacher, tokenizer, FEW)
    rows = torch.tensor([tokenizer.get_vocab()[n] for n in sorted(small.get_vocab(), key=small.get_vocab().get)])
    theirs, ours = (t("the lazy dog", return_tensors="pt").input_ids for t in (tokenizer, small))
    assert torch.allclose(logits(student, ours), logits(teacher, theirs)[..., rows], atol=1e-5)


def test_rare_tokens_are_dropped_and_class_logits_stay():
    tokenizer = tiny.tokenizer()
    teacher = tiny.bert(layers=2)
    texts = ["w1 w2 w1", "w2 w3"]
    student, small = trim_vocabulary(teacher, tokenizer, texts, min_count=2)
    assert sorted(name for name in small.get_vocab() if name.startswith("w")) == ["w1", "w2"]
    assert small("w1 w3").input_ids == [2, 5, 1, 3]  # [UNK]
    theirs, ours = (t("w2 w1", return_tensors="pt").input_ids for t in (tokenizer, small))
    assert torch.equal(logits(student, ours), logits(teacher, theirs))
    assert lineage(student) == [
        "Of the 32 tokens of `BertForSequenceClassification` the 7 that a corpus needs were kept."
    ]


def test_added_tokens_are_kept():
    tokenizer = wordpiece()
    tokenizer.add_tokens(["<person>"])
    teacher = language_model(tokenizer)
    _, small = trim_vocabulary(teacher, tokenizer, FEW)
    assert small.tokenize("the <person>") == ["the", "<person>"]
    assert small.convert_tokens_to_ids("<person>") == len(small) - 1


def test_the_merges_of_a_token_are_its_own():
    merges = [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c")]
    vocab = {piece: number for number, piece in enumerate(["a", "b", "c", "bc", "ab", "abc"])}
    assert with_parts(Tokenizer(models.BPE(vocab, merges)), [5]) == [0, 1, 2, 3, 5]  # by bc, which comes first


def test_what_cannot_be_trimmed_is_refused():
    tokenizer = wordpiece()
    small = tiny.bert()
    with pytest.raises(ValueError, match="min_count=0 was asked for"):
        trim_vocabulary(small, tokenizer, FEW, min_count=0)
    with pytest.raises(ValueError, match=r"the tokenizer has the id \d+, BertForSequenceClassification has 32 tokens"):
        trim_vocabulary(small, tokenizer, TEXTS)
    with pytest.raises(ValueError, match="which is not of the tokenizers library"):
        trim_vocabulary(small, object(), FEW)
    odd = tiny.bert()
    odd.bert.embeddings.word_embeddings = torch.nn.Embedding(40, 16)
    with pytest.raises(ValueError, match=r"do not follow the 32 tokens of its configuration \(bert.embeddings.word"):
        trim_vocabulary(odd, tiny.tokenizer(), ["w1"])


def test_it_learns_from_the_whole_teacher_by_columns_of_its_own(tmp_path):
    tokenizer, teacher = tiny.tokenizer(), tiny.bert(layers=2, seed=7)
    texts = [f"w{9 + i % 5} w{12 + (3 * i) % 7} w{2 * i}" for i in range(8)]
    student, small = trim_vocabulary(teacher, tokenizer, texts)
    rows = []
    for text in texts:
        whole = {f"teacher_{name}": value for name, value in tokenizer(text).items() if name != "token_type_ids"}
        ours = {name: value for name, value in small(text).items() if name != "token_type_ids"}
        rows.append({**ours, **whole, "labels": 0})
    assert rows[0]["input_ids"] != rows[0]["teacher_input_ids"]
    run = tiny.trainer(
        tmp_path, student, rows, teacher_model=teacher, data_collator=default_data_collator, processing_class=small,
        args={"alpha": 1.0, "learning_rate": 0.0, "max_steps": 1},
    )  # fmt: skip
    run.train()
    assert abs(tiny.losses(run)[0]) < 1e-6  # the same model in other ids: nothing to learn yet
