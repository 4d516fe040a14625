"""The storyboard: read as written, true to the notebooks it shows, and without a number of its own."""

import base64
import io
import json
import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from video import story

ROOT = Path(__file__).resolve().parents[2]
SCENES = story.read((ROOT / "video" / "storyboard.md").read_text(encoding="utf-8"))
SHOTS = [(scene.title, shot) for scene in SCENES for shot in scene.shots]
LARGE = "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy \
eighty ninety hundred thousand million".split()


def code(number):
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("title, shot", [each for each in SHOTS if each[1].figure], ids=lambda each: str(each)[:30])
def test_a_figure_is_shown_by_one_cell_of_its_lesson(title, shot):
    showing = [source for source in code(shot.lesson) if shot.figure in source]
    assert len(showing) == 1 and "show(" in showing[0], (title, shot.figure)


def test_what_is_said_holds_no_number_of_its_own():
    for title, shot in SHOTS:
        for text in (shot.words, shot.card, title):
            bare = re.sub(r"\{\w+\}", "", text)
            assert not re.search(r"\d", bare), (title, text)
            assert not set(re.findall(r"[a-z]+", bare.lower())) & set(LARGE), (title, text)


def test_every_number_named_is_read_and_every_number_read_has_one_name():
    read = [
        name.partition(":")[0]
        for scene in SCENES
        for _, template in scene.numbers
        for name in re.findall(r"\{(\w[^}]*)\}", template)
    ]
    used = {name for _, shot in SHOTS for name in re.findall(r"\{(\w+)\}", shot.words + shot.card)}
    used |= {name for scene in SCENES for _, template in scene.numbers for name in re.findall(r"\{=(\w+)\}", template)}
    assert len(read) == len(set(read))
    assert used <= set(read)
    assert set(read) <= used, f"read and not used: {set(read) - used}"


def test_sentences_fit_a_caption_and_scenes_make_a_film():
    assert 8 <= len(SCENES) <= 14
    assert len({scene.title for scene in SCENES}) == len(SCENES)
    for title, shot in SHOTS:
        for sentence in story.sentences(shot.words):
            assert len(sentence) <= 132, (title, sentence)
    words = sum(len(shot.words.split()) for _, shot in SHOTS)
    assert 500 <= words <= 850


# ------------------------------------------------------------------------------------------------- reading storyboards


BOARD = """# A board

prose that is no scene

## One

- lesson: 03
- numbers: `gap {gap} (`
- figure: `show(a)`
- part: 0 0 50 100
- card: it is {gap}

> Two lines
> of words. And more.

> The same figure, whole.

## Two

- lesson: 04
- figure: none

> No figure.
"""


def test_a_storyboard_is_read_as_written():
    one, two = story.read(BOARD)
    assert (one.title, two.title) == ("One", "Two")
    assert one.numbers == (("03", "gap {gap} ("),)
    first, second = one.shots
    assert first == story.Shot("Two lines of words. And more.", "03", "show(a)", (0, 0, 0.5, 1), "it is {gap}")
    assert second == story.Shot("The same figure, whole.", "03", "show(a)")
    assert two.shots[0].figure == ""


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("- part: 0 0 50 100", "- part: 50 0 50 100", "not left top right bottom"),
        ("- part: 0 0 50 100", "- part: 0 0 50", "not left top right bottom"),
        ("- card:", "- cart:", "unknown key 'cart'"),
        ("- lesson: 03\n", "", "'One': words before 'lesson:'"),
        ("> No figure.\n", "", "'Two': no words"),
        ("## ", "# ", "no heading"),
    ],
)
def test_a_wrong_storyboard_is_refused_by_name(old, new, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        story.read(BOARD.replace(old, new))


def test_sentences_end_at_marks_and_not_inside_numbers():
    assert story.sentences("It is 0.34. Is it? Yes: 1,000.5 of them!") == ["It is 0.34.", "Is it?", "Yes:", "1,000.5 of them!"]


def test_words_are_filled_and_unknown_names_refused():
    assert story.fill("{a}% of {b}.", {"a": "3", "b": "four"}) == "3% of four."
    with pytest.raises(ValueError, match="no number 'c'; there are a, b"):
        story.fill("{c}", {"a": "3", "b": "4"})


# ------------------------------------------------------------------------------------------------ executed notebooks


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, "PNG")
    return buffer.getvalue()


def executed(path, outputs):
    cells = [{"cell_type": "markdown", "source": "gap 9.99 (", "metadata": {}}]
    for source, *found in outputs:
        cells.append({"cell_type": "code", "source": source, "metadata": {}, "outputs": found, "execution_count": 1})
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path


def drawn(colour, alt):
    picture = base64.b64encode(png(colour)).decode()
    data = {"text/html": f'<img src="data:image/png;base64,{picture}" alt="{alt}" style="">', "text/plain": ""}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def printed(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


@pytest.fixture
def run(tmp_path):
    outputs = [
        ("show(a)", drawn("red", "rate &amp; gap of −0.5 at 1,024")),
        ("show(b)", drawn("blue", "b"), printed("gap 0.34 (0.28 to 0.38)\nchosen: LEACE, 12% of 40\ngap\n 0.34 (again)")),
        ("print(1)", printed("one 1, one 2")),
    ]
    return story.lesson(executed(tmp_path / "03_x.ipynb", outputs))


def test_numbers_are_read_where_the_template_says(run):
    assert story.numbers(run, "gap {gap} (") == {"gap": "0.34"}  # twice, and equal
    assert story.numbers(run, "gap {} ({low} to {high})") == {"low": "0.28", "high": "0.38"}
    assert story.numbers(run, "chosen: {name:word}, {share}% of {n}") == {"name": "LEACE", "share": "12", "n": "40"}
    assert story.numbers(run, "rate & gap of {a} at {b}") == {"a": "−0.5", "b": "1,024"}
    assert story.numbers(run, "gap {#} ({#} to {high})") == {"high": "0.38"}
    assert story.numbers(run, "chosen: {=fix}, {share}%", {"fix": "LEACE"}) == {"share": "12"}
    assert story.numbers(run, "gap {#} ({#} to {#})") == {}
    for absent in ("chosen: {=fix}, {share}%", "gap {#} ({#} until {#})"):
        with pytest.raises(ValueError, match="nothing like"):
            story.numbers(run, absent, {"fix": "DFR"})


def test_a_template_that_is_absent_or_has_two_answers_is_refused(run):
    with pytest.raises(ValueError, match="nothing like 'gap of F1 {f}'"):
        story.numbers(run, "gap of F1 {f}")
    with pytest.raises(ValueError, match="2 different matches of 'one {n}'"):
        story.numbers(run, "one {n}")
    with pytest.raises(ValueError, match="nothing like"):
        story.numbers(run, "gap 9.99 ({n}")  # it stands in the prose, which is no run


def test_a_figure_is_found_by_its_code(run):
    assert story.figure(run, "show(a)") == png("red")
    assert story.figure(run, "show(b)") == png("blue")
    for wrong, count in (("show(", 2), ("show(c)", 0), ("print", 0)):
        with pytest.raises(ValueError, match=f"{count} cells with a figure hold the code"):
            story.figure(run, wrong)


def test_a_run_that_failed_is_not_shown(tmp_path):
    failed = {"output_type": "error", "ename": "KeyError", "evalue": "x", "traceback": []}
    with pytest.raises(ValueError, match="the run failed with KeyError: x"):
        story.lesson(executed(tmp_path / "03_x.ipynb", [("show(a)", failed)]))


def test_values_come_from_the_lesson_they_name(run):
    scenes = story.read(BOARD)
    assert story.values(scenes, {"03": run}) == {"gap": "0.34"}
    with pytest.raises(ValueError, match="no executed lesson '03'; there are 04"):
        story.values(scenes, {"04": run})
    twice = story.read(BOARD.replace("- numbers: `gap {gap} (`", "- numbers: `gap {gap} (`\n- numbers: `chosen: {}, {gap}%`"))
    with pytest.raises(ValueError, match="gap is named twice"):
        story.values(twice, {"03": run})
