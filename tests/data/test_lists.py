"""Lists of signs: the quick way reads what the thorough way reads, or leaves the list to it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.data.lists import _parse_runs, _parse_signs, parse

FILE = Path("list.txt")
names = st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=4), min_size=1, max_size=8)


CHANGES = [b"", b" ", b"\n", b"\t", b"-", b"1", b"0", b"2", b"x", b"\xff", b"\x00", b"  1", b"1\n"]


def written(words, signs, gap=""):
    rows = [f"{word}{gap}" + "".join(f" {sign:2}" for sign in row) for word, row in zip(words, signs, strict=True)]
    return "\n".join(rows).encode()


def kinds(columns):
    return {"path": "str", **{f"a{i}": "int8" for i in range(columns)}}


@given(names, st.integers(1, 4), st.sampled_from(["", " ", "   "]), st.randoms(use_true_random=False))
def test_every_list_of_the_form_is_read_the_quick_way(words, columns, gap, draw):
    signs = [[draw.choice((-1, 0, 1)) for _ in range(columns)] for _ in words]
    text = written(words, signs, gap)
    quick = _parse_signs(text, kinds(columns))
    assert quick.equals(_parse_runs(text, FILE, kinds(columns)))
    assert quick["path"].tolist() == words and quick.iloc[:, 1:].to_numpy().tolist() == signs
    assert quick.dtypes.equals(_parse_runs(text, FILE, kinds(columns)).dtypes)


@given(st.integers(0, 59), st.sampled_from(CHANGES))
def test_a_list_with_any_byte_changed_is_read_or_refused_as_the_thorough_way_does(place, byte):
    text = written(["1.jpg", "2.jpg", "3.jpg", "10.jpg"], [[1, -1, 1]] * 4)
    assert len(text) == 60
    text = (text[:place] + byte + text[place + 1 :]).strip(b"\n ")
    quick = _parse_signs(text, kinds(3))
    if quick is not None:
        assert quick.equals(_parse_runs(text, FILE, kinds(3)))
    try:
        thorough = _parse_runs(text, FILE, kinds(3))
    except ValueError as error:
        assert quick is None
        with pytest.raises(ValueError) as same:
            parse(text, FILE, kinds(3), None)
        assert str(same.value) == str(error)
    else:
        assert parse(text, FILE, kinds(3), None).equals(thorough)


def test_many_lines_of_several_lengths_are_read_in_their_order():
    signs = np.random.default_rng(0).choice([-1, 1], (12_000, 5))
    table = _parse_signs(written([f"{i}.jpg" for i in range(len(signs))], signs.tolist()), kinds(5))
    assert table["path"].tolist() == [f"{i}.jpg" for i in range(len(signs))] and (table.iloc[:, 1:] == signs).all(axis=None)
