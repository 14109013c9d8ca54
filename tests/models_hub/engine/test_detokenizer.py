from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_hub.engine.chat import ChatTokenizer
from models_hub.engine.detokenizer import REPLACEMENT, IncrementalDetokenizer
from tests.models_hub.engine.builders import VOCABULARY, byte_tokenizer, token_of

TOKENIZER = ChatTokenizer(byte_tokenizer())


def in_pieces(ids: list[int], sizes: list[int]) -> list[str]:
    detokenizer, pieces, start = IncrementalDetokenizer(TOKENIZER.decode), [], 0
    for size in [*sizes, len(ids)]:
        pieces.append(detokenizer.feed(ids[start : start + size]))
        start += size
    return pieces


SIZES = st.lists(st.integers(1, 5), max_size=40)


@given(st.text(max_size=40).filter(lambda text: REPLACEMENT not in text), SIZES)
def test_text_comes_back_whole_and_never_as_half_a_character(text, sizes):
    ids = [token_of(byte) for byte in text.encode()]
    pieces = in_pieces(ids, sizes or [1] * len(ids))
    assert "".join(pieces) == text
    assert not any(REPLACEMENT in piece for piece in pieces)


@given(st.lists(st.integers(0, VOCABULARY - 1), max_size=60), SIZES)
def test_any_ids_join_to_their_decoding_less_what_was_cut_off(ids, sizes):
    assert "".join(in_pieces(ids, sizes)) == TOKENIZER.decode(ids).rstrip(REPLACEMENT)


@pytest.mark.parametrize("text", ["👩‍👩‍👧", "🇩🇪", "e\u0301", "漢字かな", " a  b\n\n"])
def test_every_character_is_shown_as_soon_as_it_is_whole(text):
    shown = ""
    detokenizer = IncrementalDetokenizer(TOKENIZER.decode)
    for character in text:
        shown += detokenizer.feed([token_of(byte) for byte in character.encode()])
        assert text.startswith(shown) and shown.endswith(character)


def test_words_keep_their_spaces_where_the_decoder_strips_the_first():
    """As Llama 2's: a decoder that takes a space off the beginning of every text."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE

    words = ["▁Hello", "▁big", "▁world", "!"]
    backend = Tokenizer(BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    backend.decoder = decoders.Metaspace()
    detokenizer = IncrementalDetokenizer(backend.decode)
    assert [detokenizer.feed([index]) for index in range(4)] == ["Hello", " big", " world", "!"]


def test_bytes_of_one_character_in_several_tokens_with_byte_fallback():
    """A fallback decoder shows a broken run of bytes all as replacements, the good ones too."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE

    data = "é😀x".encode()
    vocabulary = {f"<0x{byte:02X}>": index for index, byte in enumerate(data)}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    detokenizer = IncrementalDetokenizer(backend.decode)
    assert [detokenizer.feed([index]) for index in range(len(data))] == ["", "é", "", "", "", "😀", "x"]
