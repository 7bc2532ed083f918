"""What each augmentation does to token ids, and what it leaves alone."""

from random import Random

import pytest
import tiny
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_distill.augmentation import Crop, Marks, Mask, Mix, Substitute, Tokens, augmentations_of

PAD, UNK, CLS, SEP, MASK = range(5)
MARKS = Marks.of(tiny.tokenizer())
ROW = Tokens([CLS, *range(5, 15), SEP], [0] * 6 + [1] * 6)
ONLY_SPECIAL = [Tokens([CLS, SEP]), Tokens([CLS, SEP, PAD, PAD]), Tokens([CLS]), Tokens([])]


def language_model(seed=5):
    torch.manual_seed(seed)
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    return BertForMaskedLM(BertConfig(vocab_size=32, max_position_embeddings=32, initializer_range=0.5, **sizes))


def loaded(share=0.5):
    made = Substitute(language_model(), share=share)
    made.load(tiny.tokenizer())
    return made


ALL = [Mask(0.5), Crop(0.3), Mix(), loaded()]


def test_the_special_tokens_of_a_tokenizer():
    assert MARKS == Marks(frozenset({PAD, CLS, SEP}), MASK)


def test_unknown_words_stand_in_where_there_is_no_mask_and_decoders_that_have_one_token_for_all_have_neither():
    class Named:
        def __init__(self, **ids):
            names = ("bos", "eos", "pad", "cls", "sep", "unk", "mask")
            self.__dict__ = {f"{name}_token_id": ids.get(name) for name in names}
            self.all_special_ids = list(ids.values())

    assert Marks.of(Named(pad=0, eos=1, unk=2)) == Marks(frozenset({0, 1}), 2)  # as T5
    assert Marks.of(Named(bos=9, eos=9, unk=9)) == Marks(frozenset({9}), None)  # as GPT-2


@pytest.mark.parametrize("augmentation", ALL, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("row", ONLY_SPECIAL, ids=lambda row: str(row.ids))
def test_a_row_of_only_special_tokens_stays_as_it_is(augmentation, row):
    assert augmentation.one(row, Random(0), MARKS, row) == row


@pytest.mark.parametrize("augmentation", ALL, ids=lambda one: type(one).__name__)
def test_special_tokens_stay_in_place_and_nothing_given_is_changed(augmentation):
    given = Tokens(list(ROW.ids), list(ROW.types))
    partner = Tokens([CLS, *range(15, 20), SEP], [0] * 7)
    for seed in range(50):
        made = augmentation.one(given, Random(seed), MARKS, partner)
        assert (made.ids[0], made.ids[-1]) == (CLS, SEP)
        assert not MARKS.special & set(made.ids[1:-1])
        assert len(made.types) == len(made.ids) <= 12
    assert given == ROW


@pytest.mark.parametrize("augmentation", ALL, ids=lambda one: type(one).__name__)
def test_the_same_generator_makes_the_same_row_and_others_make_others(augmentation):
    partner = Tokens([CLS, *range(15, 25), SEP], [0] * 12)
    found = [tuple(augmentation.one(ROW, Random(seed), MARKS, partner).ids) for seed in [*range(20), *range(20)]]
    assert found[:20] == found[20:]
    assert len(set(found)) > 5


def test_masking_hides_each_token_with_the_probability_and_keeps_the_others():
    row, hidden = Tokens([CLS, *range(5, 25), SEP]), 0
    for seed in range(500):
        made = Mask(0.3).one(row, Random(seed), MARKS).ids
        assert all(one in (MASK, old) for one, old in zip(made, row.ids, strict=True))
        hidden += made.count(MASK)
    assert abs(hidden / 10_000 - 0.3) < 4 * (0.3 * 0.7 / 10_000) ** 0.5
    assert Mask(1.0).one(row, Random(0), MARKS).ids == [CLS, *[MASK] * 20, SEP]


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_a_crop_is_a_contiguous_span_of_every_length_from_the_least(length):
    text, sizes = list(range(5, 5 + length)), set()
    for seed in range(300):
        made = Crop(0.4).one(Tokens([CLS, *text, SEP]), Random(seed), MARKS).ids[1:-1]
        start = text.index(made[0])
        assert made == text[start : start + len(made)]
        sizes.add((len(made), start))
    least = {1: 1, 2: 1, 3: 2, 10: 4}[length]
    assert sizes == {(n, at) for n in range(least, length + 1) for at in range(length - n + 1)}


def test_a_mix_is_the_beginning_of_one_and_the_end_of_the_other():
    ours, theirs = list(range(5, 9)), list(range(15, 22))
    cuts = set()
    for seed in range(200):
        made = Mix().one(Tokens([CLS, *ours, SEP]), Random(seed), MARKS, Tokens([CLS, *theirs, SEP])).ids[1:-1]
        cut = sum(one in ours for one in made)
        assert made == ours[:cut] + theirs[7 - (len(made) - cut) :]
        assert 4 <= len(made) <= 7
        cuts.add(cut)
    assert cuts == {0, 1, 2, 3}
    assert Mix().one(ROW, Random(0), MARKS, None) == ROW


def test_segments_follow_their_tokens():
    made = Crop(0.3).one(ROW, Random(3), MARKS)
    assert made.types == [dict(zip(ROW.ids, ROW.types, strict=True))[one] for one in made.ids]
    mixed = Mix().one(ROW, Random(0), MARKS, Tokens([CLS, 20, 21, 22, SEP], [1] * 5))
    assert mixed.types == [dict(zip(ROW.ids, ROW.types, strict=True)).get(one, 1) for one in mixed.ids]


def test_substitutes_are_drawn_from_what_the_model_says_of_the_masked_row():
    model, row = language_model(), Tokens([CLS, 7, 8, 9, SEP])
    asked = Substitute(model, share=1.0)
    asked.load(tiny.tokenizer())
    masked = torch.tensor([[CLS, MASK, MASK, MASK, SEP]])
    with torch.no_grad():
        logits = model(input_ids=masked).logits[0, 2].double()
    logits[[PAD, CLS, SEP, MASK, 29, 30, 31]] = -torch.inf  # the last three are no tokens
    expected, n = logits.softmax(-1), 4000
    draws = [Random(seed) for seed in range(n)]
    made = asked([row] * n, draws, MARKS, [None] * n)
    found = torch.tensor([one.ids[2] for one in made]).bincount(minlength=32) / n
    assert (found - expected).abs().max() < 4 * (0.25 / n) ** 0.5
    assert not found[expected == 0].any()


def test_substitution_asks_once_for_all_rows_and_a_row_does_not_hang_on_its_company():
    asked = loaded()
    calls = []
    asked.model.register_forward_hook(lambda module, args, output: calls.append(len(output.logits)))
    rows = [Tokens([CLS, *range(5, 5 + n), SEP]) for n in (3, 9, 1)]
    together = asked(rows, [Random(seed) for seed in range(3)], MARKS, [None] * 3)
    assert calls == [3]
    alone = [asked.one(row, Random(seed), MARKS) for seed, row in enumerate(rows)]
    assert together == alone
    assert together != rows
    assert not asked.model.training


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("blur", "augmentation 'blur' is not known: use mask, crop, mix, substitute"),
        ({"mask": 0.1, "blur": 1}, "'blur' is not known"),
        ({"mask": 1.5}, "mask was given p=1.5: give a share of the tokens, over 0 and at most 1"),
        ({"mask": 0}, "mask was given p=0"),
        ({"mask": False}, "mask was given p=False"),
        ({"mask": "much"}, "mask was given p='much'"),
        ({"crop": 1.0}, "crop was given keep=1.0: give a share of the tokens, over 0 and under 1"),
        ({"crop": {"least": 0.5}}, "crop has no option 'least': it has keep"),
        ({"mix": 0.5}, "mix has no option 'options': it has none"),
        ({"copies": 2}, "names none: use mask, crop, mix, substitute"),
        ({"mask": 0.1, "copies": 0}, "copies=0: give a whole number from 1"),
        ({"mask": 0.1, "copies": 1.5}, "copies=1.5"),
        (["mask"], r"augmentation=\['mask'\] was given: give a name, or a mapping"),
        ("substitute", "substitute was given model=None: name a masked language model"),
        ({"substitute": {"model": "a/model", "share": 2}}, "substitute was given share=2"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        augmentations_of(given)
    assert "\n" not in str(caught.value)


def test_names_numbers_and_options():
    assert augmentations_of(None) == ([], 0)
    assert augmentations_of("mix") == ([Mix()], 1)
    assert augmentations_of({"mask": True, "mix": {}, "crop": None}) == ([Mask(), Mix(), Crop()], 1)
    assert augmentations_of({"crop": {"keep": 0.7}, "mask": 0.2, "copies": 3}) == ([Crop(0.7), Mask(0.2)], 3)
    (made,), _ = augmentations_of({"substitute": "a/model"})
    assert (made.model, made.share) == ("a/model", 0.15)


def test_a_masked_language_model_by_its_path(tmp_path):
    language_model().save_pretrained(tmp_path / "model")
    before = torch.get_rng_state()
    asked = Substitute(str(tmp_path / "model"), share=0.5)
    with pytest.raises(ValueError, match="has not loaded"):
        asked.one(ROW, Random(0), MARKS)
    asked.load(tiny.tokenizer())
    assert asked.one(ROW, Random(1), MARKS) == loaded().one(ROW, Random(1), MARKS)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match="could not be loaded") as caught:
        Substitute(str(tmp_path / "nowhere")).load(tiny.tokenizer())
    assert "\n" not in str(caught.value)
    larger = tiny.tokenizer()
    larger.add_tokens(["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="a model of 32 tokens, the tokenizer has 33"):
        Substitute(str(tmp_path / "model")).load(larger)
    larger.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="whose tokenizer gives other ids to tokens than the student's"):
        Substitute(str(tmp_path / "model")).load(tiny.tokenizer())
