"""Common names: one meaning wherever they exist, and the documentation says which that is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.data import SOURCES
from helpers.data.sources.orl import annotations
from helpers.data.styles import ATTRIBUTES
from helpers.data.vocabulary import AGE_GROUPS, VOCABULARY, as_markdown, group_ages, with_common_names

OWN = {
    "illustrated": list(ATTRIBUTES),
    "orl": list(annotations().columns),
    "bfw": ["path", "identity", "ethnicity", "gender", "woman", "subgroup"],
}


def test_the_documentation_holds_the_table_as_it_is():
    text = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")
    assert as_markdown() in text


@pytest.mark.parametrize("name", sorted({name for rules in VOCABULARY.values() for name in rules}))
def test_rules_are_for_data_sets_that_exist_and_columns_that_these_have(name):
    assert name in SOURCES
    needed = {column for rules in VOCABULARY.values() if name in rules for column in rules[name].columns}
    assert needed <= set(OWN.get(name, needed))


def test_own_columns_stay_and_names_without_their_columns_are_left_out():
    own = pd.DataFrame({"Male": [True, False], "Smiling": [False, True], "No_Beard": [True, False]}, index=[5, 9])
    table = with_common_names(own, "celeba")
    assert table[own.columns].equals(own) and set(table.columns) - set(own.columns) == {"woman", "smiling"}
    assert table["woman"].tolist() == [False, True] and table["smiling"].tolist() == [False, True]
    assert with_common_names(own, "table") is own


def test_a_missing_label_stays_missing_under_its_common_name():
    columns = ("Male", "No_Beard", "Goatee", "Mustache")
    rows = [
        (None, True, False, False),
        (True, None, False, False),
        (False, None, True, False),  # a goatee, whatever else there is
        (True, True, False, None),
        (True, False, None, None),
    ]
    table = with_common_names(pd.DataFrame(rows, columns=columns, dtype=object), "celeba")
    for common, wanted in {"woman": [None, False, True, False, False], "facial_hair": [False, None, True, None, True]}.items():
        assert [None if pd.isna(label) else bool(label) for label in table[common]] == wanted


def test_facial_hair_is_a_beard_a_goatee_or_a_moustache():
    cases = np.array(np.meshgrid([False, True], [False, True], [False, True])).reshape(3, -1).T
    table = with_common_names(pd.DataFrame(cases, columns=["No Beard", "Goatee", "Mustache"]), "lfw")
    assert table["facial_hair"].tolist() == [not none or chin or lip for none, chin, lip in cases]
    assert table["facial_hair"].dtype == bool


def test_every_age_is_in_the_group_that_names_it():
    groups = group_ages(pd.Series(range(121)))
    for age, group in enumerate(groups):
        low, high = (70, 200) if group == "more than 70" else map(int, group.split("-"))
        assert low <= age <= high
    assert tuple(groups.cat.categories) == AGE_GROUPS and groups.cat.ordered
