"""Characters to numbers and back, for any text there is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.tokenizer import CharTokenizer

texts = st.text(st.characters(), max_size=60)  # lone surrogates too


@given(text=texts)
def test_decoding_what_was_encoded_gives_the_text_back(text):
    tokenizer = CharTokenizer.of(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=texts, more=texts)
def test_a_larger_alphabet_gives_the_text_back_as_well(text, more):
    tokenizer = CharTokenizer.of(text + more)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=texts)
def test_a_token_is_the_place_of_its_character_in_the_sorted_alphabet(text):
    tokenizer = CharTokenizer.of(text)
    assert tokenizer.alphabet == "".join(sorted(set(text)))
    assert len(tokenizer) == len(set(text))
    numbers = tokenizer.encode(text)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [tokenizer.alphabet.index(character) for character in text]


@given(text=texts, stranger=st.characters())
def test_a_character_outside_the_alphabet_is_refused_by_name_wherever_it_stands(text, stranger):
    tokenizer = CharTokenizer.of(text.replace(stranger, ""))
    with pytest.raises(ValueError) as refused:
        tokenizer.encode(text + stranger + text)
    assert f"{stranger!r} (U+{ord(stranger):04X})" in str(refused.value)
    assert "leave them out" in str(refused.value)


def test_many_unknown_characters_are_named_up_to_eight():
    with pytest.raises(ValueError) as refused:
        CharTokenizer("z").encode("abcdefghij")
    assert str(refused.value).count("U+") == 8
    assert "…" in str(refused.value)


@given(text=texts)
def test_lists_arrays_and_tensors_decode_alike(text):
    tokenizer = CharTokenizer.of(text)
    numbers = tokenizer.encode(text)
    assert tokenizer.decode(numbers.tolist()) == tokenizer.decode(torch.from_numpy(numbers)) == text
