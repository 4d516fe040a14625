"""The film's timeline, texts and pictures, its measurements on planted faults, and a short film from end to end."""

import base64
import io
import json
import os
import shutil
import subprocess
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from helpers.plots import style
from helpers.plots.show import png
from video import build, check, slides, speech, story

WORDS = [[["One.", "Two."], ["Three."]], [["Four."]]]
LENGTHS = [1.0, 0.5, 2.0, 1.25]


# --------------------------------------------------------------------------------------------------------- timeline


def test_sentences_follow_one_another_with_the_pauses_of_their_places():
    lines, length = build.timeline(WORDS, LENGTHS)
    assert [line.end - line.start for line in lines] == pytest.approx(LENGTHS, abs=1e-3)
    gaps = [b.start - a.end for a, b in pairwise(lines)]
    assert gaps == pytest.approx([build.PAUSE["sentence"], build.PAUSE["shot"], build.PAUSE["scene"]], abs=1e-3)
    assert lines[0].start == build.PAUSE["begin"] and length == pytest.approx(lines[-1].end + build.PAUSE["end"])
    assert [(line.scene, line.shot) for line in lines] == [(0, 0), (0, 0), (0, 1), (1, 0)]
    assert (lines, length) == build.timeline(WORDS, LENGTHS)


def test_the_longest_pause_is_shorter_than_the_silence_that_is_accepted():
    assert max(build.PAUSE["begin"], build.PAUSE["scene"], build.PAUSE["end"]) < 2


def test_the_track_holds_each_sentence_at_its_time_and_silence_elsewhere():
    lines, length = build.timeline(WORDS, LENGTHS)
    sounds = [np.full(round(seconds * speech.RATE), level) for seconds, level in zip(LENGTHS, (0.1, 0.2, 0.3, 0.4), strict=True)]
    track = build.track(lines, sounds, length)
    assert len(track) == round(length * speech.RATE)
    for line, level in zip(lines, (0.1, 0.2, 0.3, 0.4), strict=True):
        assert track[round((line.start + line.end) / 2 * speech.RATE)] == pytest.approx(level)
    assert (track == 0).sum() == len(track) - sum(map(len, sounds))


def test_pictures_come_before_their_words_and_the_first_at_once():
    lines, _ = build.timeline(WORDS, LENGTHS)
    starts = build.begins(lines)
    assert starts[0, 0] == 0
    assert starts[0, 1] == pytest.approx(lines[2].start - build.BEFORE) and starts[0, 1] > lines[1].end
    assert list(starts.values()) == sorted(starts.values())


def test_a_lesson_is_executed_where_it_is_absent_or_out_of_date(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    ran = []

    def run(command, **_):
        ran.append([command[k + 1] for k, word in enumerate(command) if word == "--only"])
        for number in ran[-1]:
            (tmp_path / "out" / "notebooks" / f"{number}_x.ipynb").write_text("{}")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(build.subprocess, "run", run)
    (tmp_path / "out" / "notebooks").mkdir(parents=True)
    for number in ("03", "04"):
        (tmp_path / "notebooks" / f"{number}_x.ipynb").write_text("{}")
        os.utime(tmp_path / "notebooks" / f"{number}_x.ipynb", (1000, 1000))
    found = build.executed(["03", "04"], tmp_path / "out", None)
    assert found == {number: (tmp_path / "out" / "notebooks" / f"{number}_x.ipynb").resolve() for number in ("03", "04")}
    build.executed(["03", "04"], tmp_path / "out", None)
    os.utime(found["04"], (999, 999))
    build.executed(["03", "04"], tmp_path / "out", None)
    assert ran == [["03", "04"], ["04"]]


# ------------------------------------------------------------------------------------------------------------- texts


def test_captions_are_read_back_as_they_were_written():
    lines, _ = build.timeline(WORDS, LENGTHS)
    found = check.read_captions(build.webvtt(lines))
    assert [(start, end) for start, end, _ in found] == [(line.start, line.end) for line in lines]
    assert [text for *_, text in found] == ["One.", "Two.", "Three.", "Four."]
    assert build.clock(3723.0456) == "01:02:03.046"
    with pytest.raises(ValueError, match="no WebVTT"):
        check.read_captions("1\n00:00:00,000 --> 00:00:01,000\nx\n")


@pytest.mark.parametrize("count", [3, 44, 45, 80, 110, 132])
def test_captions_are_broken_between_words_into_short_lines(count):
    text = ("glasses and smiles are notes " * 10)[:count].strip()
    lines = build.wrapped(text).splitlines()
    assert " ".join(lines) == text
    assert len(lines) <= 3 and max(map(len, lines)) <= 50


def test_chapters_cover_the_film_without_gaps_and_escape_what_ffmpeg_reads():
    scenes = story.read("## A; b = c\n\n- lesson: 03\n- figure: none\n\n> x.\n\n## Two\n\n- lesson: 03\n- figure: none\n\n> y.\n")
    text = build.chapters(scenes, [0.0, 2.5], 9.0)
    assert "title=A\\; b \\= c" in text
    assert [line for line in text.splitlines() if line[:3] in ("STA", "END")] == ["START=0", "END=2500", "START=2500", "END=9000"]
    transcript = build.transcript(scenes, {}, [0.0, 62.5])
    assert "## 0:00 A; b = c\n\nx.\n" in transcript and "## 1:02 Two\n\ny.\n" in transcript


def test_what_is_spoken_is_what_is_written_but_for_signs():
    assert speech.spoken("It is 12% of 4,096, not −1.") == "It is 12 percent of 4096, not -1."
    assert speech.spoken("FINETUNE is no FINETUNED.") == "fine tune is no FINETUNED."


def test_silence_around_a_sentence_is_cut_and_silence_alone_refused():
    tone = 0.3 * np.sin(np.arange(speech.RATE) / 9)
    padded = np.concatenate([np.zeros(speech.RATE), tone, np.zeros(7777)])
    assert abs(len(speech.trimmed(padded)) - len(tone)) <= 2 * speech.FRAME
    with pytest.raises(ValueError, match="silent"):
        speech.trimmed(np.zeros(speech.RATE))


# ----------------------------------------------------------------------------------------------------------- pictures


def figure(width=1600, height=800, dpi=220):
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), "#ff0000")
    image.paste("#0000ff", (width // 2, 0, width, height))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", dpi=(dpi, dpi))
    return buffer.getvalue()


def slide(**changed):
    whole = {"title": "A title", "mark": "lesson 3", "card": "", "figure": figure(), "part": (0, 0, 1, 1), "marks": (0.0, 0.5)}
    return slides.Slide(**(whole | changed))


def test_a_slide_shows_the_figure_or_the_part_of_it_asked_for():
    whole = np.asarray(slides.picture(slide()))
    assert whole.shape == (720, 1280, 3)
    red, blue = ((whole == colour).all(2).sum() for colour in ((255, 0, 0), (0, 0, 255)))
    assert red > 100_000 and abs(red / blue - 1) < 0.02
    left = np.asarray(slides.picture(slide(part=(0, 0, 0.5, 0.5))))
    assert (left == (255, 0, 0)).all(2).sum() > 1.9 * red and not (left == (0, 0, 255)).all(2).any()
    inside = (whole[:, :, 0] != whole[:, :, 1]) & (whole[:, :, 1] == 0)
    rows = np.flatnonzero(inside.any(1))
    assert rows.min() >= slides.TOP and rows.max() < slides.FLOOR, "captions have their place below"


def test_a_part_has_larger_letters_and_a_larger_resolution_has_not():
    assert slides.letters(slide(part=(0, 0, 0.5, 0.5))) == pytest.approx(2 * slides.letters(slide()), rel=0.01)
    assert slides.letters(slide(figure=figure(3200, 1600, 440))) == pytest.approx(slides.letters(slide()), rel=0.01)


def test_the_course_draws_at_the_resolution_that_the_film_asks_for(monkeypatch):
    for wanted, dpi in ((None, 110), (build.DPI, 220)):
        monkeypatch.delenv("CANDOR_DPI", raising=False)
        if wanted:
            monkeypatch.setenv("CANDOR_DPI", wanted)
        with plt.rc_context():
            style.use()
            shown = png(plt.figure(figsize=(2, 1)))
        assert Image.open(io.BytesIO(shown)).info["dpi"][0] == pytest.approx(dpi, abs=0.1)


def test_a_line_that_does_not_fit_is_refused():
    slides.check(slide())
    for long in (slide(title="A title " * 12), slide(card="a card " * 20), slide(figure=b"", card="a | " + "b" * 90)):
        with pytest.raises(ValueError, match="pixels wide"):
            slides.check(long)


def test_a_change_of_part_moves_and_a_change_of_figure_fades():
    left, right = slide(part=(0, 0, 0.5, 1)), slide(part=(0.5, 0, 1, 1))
    middle = np.asarray(build.between(left, right, 0.5))
    assert (middle == (255, 0, 0)).all(2).any() and (middle == (0, 0, 255)).all(2).any(), "half way both halves are in view"
    other = slide(title="Another", part=(0.5, 0, 1, 1))
    assert (np.asarray(build.between(left, other, 0.5))[360, 640] == (127, 0, 127)).all()


def test_frames_fill_the_film_and_the_line_at_the_foot_grows():
    seen = [(0.0, slide()), (1.0, slide(part=(0, 0, 0.5, 1)))]
    frames = list(build.frames(seen, 2.0))
    assert len(frames) == 2 * build.FPS
    grown = [int((frame[-1, :, 0] < 100).sum()) for frame in frames]
    assert grown == sorted(grown) and grown[0] == 0 and grown[-1] > 0.9 * slides.WIDTH
    assert not np.array_equal(frames[0][:700], frames[-1][:700])


# --------------------------------------------------------------------------------------------- measuring planted faults


def heard(*spans, seconds=10):
    loud = np.zeros(round(seconds / check.STEP), bool)
    for start, end in spans:
        loud[round(start / check.STEP) : round(end / check.STEP)] = True
    return loud


def test_captions_out_of_step_are_noticed():
    loud = heard((1, 2), (2.1, 3), (4, 6))  # the first sentence pauses for breath
    good = [(1.0, 3.0, "a"), (4.0, 6.0, "b")]
    assert check.against_speech(good, loud) == pytest.approx((0, 0, 0), abs=1e-6)
    early, late, outside = check.against_speech([(1.0, 3.0, "a"), (4.5, 6.0, "b")], loud)
    assert (early, late, outside) == pytest.approx((0.5, 0, 0.5), abs=1e-6)
    early, late, outside = check.against_speech([(0.7, 3.4, "a"), (4.0, 5.0, "b")], loud)
    assert (early, late, outside) == pytest.approx((0.3, 1.0, 1.0), abs=1e-6)
    assert check.against_speech([*good, (7.0, 8.0, "nothing")], loud)[0] == np.inf


def test_the_longest_silence_is_found_at_the_ends_too():
    assert check.longest_silence(heard((1, 2), (4.5, 9))) == pytest.approx(2.5)
    assert check.longest_silence(heard((3, 9.5))) == pytest.approx(3)
    assert check.longest_silence(heard((0, 6))) == pytest.approx(4)
    assert check.longest_silence(heard((0, 10))) == 0


def test_a_number_from_elsewhere_is_noticed():
    scenes = story.read("## A\n\n- lesson: 03\n- figure: none\n\n> x.\n\n## B\n\n- lesson: 04\n- figure: none\n\n> y.\n")
    said = {"03": "gap 0.34 of 1,024", "04": "gap 0.5"}
    assert check.strangers("# t\n## 0:00 A\n0.34, and 1,024.\n## 1:10 B\n0.5!", scenes, said) == []
    assert check.strangers("# t\n## 0:00 A\n0.5 and 34\n## 1:10 B\n0.5", scenes, said) == ["0.5", "34"]


def test_a_machine_without_the_programs_is_told_what_to_install(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert build.main([]) == 1
    assert "apt-get install ffmpeg festival festvox-us-slt-hts" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------- from end to end


BOARD = """## One

- lesson: 03
- numbers: `gap {gap} (`
- figure: `show(a)`
- card: the gap is {gap}

> The gap is {gap}, which is more than chance.

- part: 0 0 50 100

> Look at the left half.

## Two

- lesson: 03
- figure: none
- card: the end

> That is all.
"""


def needs_programs():
    lacking = build.missing() or (shutil.which("ffprobe") is None and "ffprobe is missing")
    return pytest.mark.skipif(bool(lacking), reason=str(lacking))


@needs_programs()
def test_a_short_film_from_end_to_end(tmp_path):
    picture = base64.b64encode(figure()).decode()
    html = f'<img src="data:image/png;base64,{picture}" alt="gap 0.34 (0.28 to 0.38)" style="">'
    output = {"output_type": "display_data", "data": {"text/html": html, "text/plain": ""}, "metadata": {}}
    notebook = {"cells": [{"cell_type": "code", "source": "show(a)", "outputs": [output]}]}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "03_x.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (tmp_path / "board.md").write_text(BOARD, encoding="utf-8")
    build.film(tmp_path / "film", tmp_path / "run", tmp_path / "board.md")
    found = {each.what: each for each in check.findings(tmp_path / "film", tmp_path / "board.md")}
    assert not found.pop("length").ok, "a film of ten seconds is not one of five minutes"
    assert not [each for each in found.values() if not each.ok]
    assert "The gap is 0.34, which is more than chance." in (tmp_path / "film" / "transcript.md").read_text(encoding="utf-8")
    texts = [(tmp_path / "film" / name).read_bytes() for name in ("candor.vtt", "chapters.txt", "transcript.md", "speech.wav")]
    with pytest.raises(ValueError, match="no executed lesson 03"):
        build.film(tmp_path / "other", tmp_path, tmp_path / "board.md")
    spoken = ["The gap is 0.34, which is more than chance.", "Look at the left half.", "That is all."]
    sounds = speech.say(spoken, tmp_path / "again")
    lines, length = build.timeline([[["a"], ["b"]], [["c"]]], [len(sound) / speech.RATE for sound in sounds])
    speech.save(build.track(lines, sounds, length), tmp_path / "again.wav")
    assert (tmp_path / "again.wav").read_bytes() == texts[-1], "the same words give the same sound"


@needs_programs()
def test_the_finished_film_is_as_it_should_be():
    out = build.ROOT / "build" / "video"
    if not (out / "candor.mp4").exists():
        pytest.skip("build/video/candor.mp4 is not built; make video builds it")
    assert not [each for each in check.findings(out) if not each.ok]
