"""Build the film: build/video/candor.mp4 with captions, chapters and a transcript beside it.

    python -m video.build [--notebooks build/video/notebooks] [--out build/video]

The lessons are executed first, at twice the usual resolution, where the folder lacks one of them or holds one that is older than
the lesson. Everything that is said or shown comes from `storyboard.md` and from that run; the same run and the same voice give
the same film.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from video import check, slides, speech, story

ROOT = Path(__file__).resolve().parents[1]
FPS = 15
PAUSE = {"sentence": 0.35, "shot": 0.75, "scene": 1.2, "begin": 1.0, "end": 1.6}  # seconds of silence
BEFORE, TURN = 0.45, 0.6  # a new picture comes so long before its first word, and takes so long to come
LOUDNESS, PEAK = -16.0, -2.0  # LUFS and dBTP: what is asked of loudnorm; AAC may overshoot a little
DPI = "220"  # of the figures: an enlarged part stays sharp
PACKAGES = {"ffmpeg": "ffmpeg", "festival": "festival festvox-us-slt-hts"}  # programs, and Debian's packages of them
VOICES = Path("/usr/share/festival/voices")


@dataclass(frozen=True)
class Line:
    """A spoken sentence: seconds at which it begins and ends, and the scene and shot it belongs to."""

    start: float
    end: float
    text: str
    scene: int
    shot: int


def missing() -> str:
    """What the machine lacks to build the film, as a sentence, or an empty text."""
    lacking = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if shutil.which("festival") and not list(VOICES.glob(f"*/{speech.VOICE}")):
        lacking.append("festvox-us-slt-hts")
    return f"The film needs Debian's packages: apt-get install {' '.join(lacking)}" if lacking else ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="video.build", description="Build the film of the course.")
    parser.add_argument("--notebooks", type=Path, help="executed lessons (default: OUT/notebooks, executed where absent or old)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "video", help="folder of the film (default: build/video)")
    arguments = parser.parse_args(argv)
    if lacking := missing():
        print(lacking, file=sys.stderr)
        return 1
    try:
        film(arguments.out, arguments.notebooks)
    except (ValueError, RuntimeError) as error:
        print(f"video.build: {error}", file=sys.stderr)
        return 1
    return check.main(["--out", str(arguments.out)])


def film(out: Path, notebooks: Path | None = None, board: Path = story.BOARD) -> None:
    """Build everything into `out`."""
    scenes = story.read(board.read_text(encoding="utf-8"))
    paths = executed(sorted({shot.lesson for scene in scenes for shot in scene.shots}), out, notebooks)
    runs = {number: story.lesson(path) for number, path in paths.items()}
    values = story.values(scenes, runs)
    words = [[story.sentences(story.fill(shot.words, values)) for shot in scene.shots] for scene in scenes]
    sounds = speech.say([text for shots in words for shot in shots for text in shot], out / "speech")
    lines, length = timeline(words, [len(sound) / speech.RATE for sound in sounds])
    seen = pictures(scenes, values, runs, lines, length)
    write_texts(out, scenes, values, lines, length)
    write_json(out / "lessons.json", {number: str(path) for number, path in paths.items()})
    write_json(out / "numbers.json", values)
    write_json(out / "shots.json", [shown(start, slide) for start, slide in seen])
    speech.save(track(lines, sounds, length), out / "speech.wav")
    encode(out, lines, seen, length)


def executed(numbers: list[str], out: Path, notebooks: Path | None) -> dict[str, Path]:
    """The executed lessons by number: those of the folder named, else of `out`, executed where absent or out of date."""
    if notebooks:
        found = {number: sorted(notebooks.glob(f"{number}_*.ipynb")) for number in numbers}
        if absent := [number for number in numbers if not found[number]]:
            raise ValueError(f"--notebooks {notebooks}: no executed lesson {', '.join(absent)}")
        return {number: paths[0].resolve() for number, paths in found.items()}
    lessons = {number: next((ROOT / "notebooks").glob(f"{number}_*.ipynb")) for number in numbers}
    done = {number: (out / "notebooks" / path.name).resolve() for number, path in lessons.items()}
    if wanted := [number for number in numbers if not newer(done[number], lessons[number])]:
        only = [argument for number in wanted for argument in ("--only", number)]
        command = [sys.executable, str(ROOT / "notebooks" / "run.py"), "--no-report", "--out", str(out), *only]
        if subprocess.run(command, env={**os.environ, "CANDOR_DPI": os.environ.get("CANDOR_DPI", DPI)}).returncode:
            raise RuntimeError(f"the course did not run; see {out / 'notebooks'}")
    return done


def newer(made: Path, source: Path) -> bool:
    """Whether `made` is there and not older than its source."""
    return made.exists() and made.stat().st_mtime >= source.stat().st_mtime


def timeline(words: list[list[list[str]]], lengths: list[float]) -> tuple[list[Line], float]:
    """When each sentence is spoken, and the length of the film, in seconds.

    `words[scene][shot]` are sentences, `lengths` the seconds they take, in the same order. Times are whole milliseconds.
    """
    lines, now, length = [], PAUSE["begin"], iter(lengths)
    for s, shots in enumerate(words):
        for k, texts in enumerate(shots):
            for text in texts:
                if lines:
                    last = lines[-1]
                    kind = "scene" if last.scene != s else "shot" if last.shot != k else "sentence"
                    now = last.end + PAUSE[kind]
                lines.append(Line(round(now, 3), round(now + next(length), 3), text, s, k))
    return lines, round(lines[-1].end + PAUSE["end"], 3)


def track(lines: list[Line], sounds: list[np.ndarray], length: float) -> np.ndarray:
    """All sentences at their times, float32 at `speech.RATE`."""
    sound = np.zeros(round(length * speech.RATE), np.float32)
    for line, each in zip(lines, sounds, strict=True):
        start = round(line.start * speech.RATE)
        sound[start : start + len(each)] = each
    return sound


def begins(lines: list[Line]) -> dict[tuple[int, int], float]:
    """When the picture of each shot comes: a little before its first word, the first at once."""
    found: dict[tuple[int, int], float] = {}
    for line in lines:
        found.setdefault((line.scene, line.shot), line.start - BEFORE if found else 0.0)
    return found


def pictures(scenes, values, runs, lines, length) -> list[tuple[float, slides.Slide]]:
    """(second, slide) of each shot, in order; a line that does not fit is an error."""
    starts = begins(lines)
    marks = tuple(starts[s, 0] / length for s in range(len(scenes)))
    seen = []
    for (s, k), start in starts.items():
        shot = scenes[s].shots[k]
        png = story.figure(runs[shot.lesson], shot.figure) if shot.figure else b""
        mark = f"lesson {int(shot.lesson)}"
        slide = slides.Slide(scenes[s].title, mark, story.fill(shot.card, values), png, shot.part, marks)
        slides.check(slide)
        seen.append((start, slide))
    return seen


def frames(seen: list[tuple[float, slides.Slide]], length: float):
    """Each frame of the film as uint8 (720, 1280, 3): still pictures, between which the view moves or fades."""
    marks = seen[0][1].marks
    for i, (start, slide) in enumerate(seen):
        end = seen[i + 1][0] if i + 1 < len(seen) else length
        last = seen[i - 1][1] if i else None
        still = slides.picture(slide)
        for n in range(round(start * FPS), round(end * FPS)):
            turned = (n / FPS - start) / TURN if last else 1.0
            image = still if turned >= 1 else between(last, slide, max(turned, 0.0))
            yield slides.with_progress(image, n / FPS / length, marks)


def between(last: slides.Slide, slide: slides.Slide, share: float):
    """A picture on the way from one slide to the next: the same figure moves, another one fades in."""
    share = share * share * (3 - 2 * share)
    if slide.figure and (last.figure, last.title, bool(last.card)) == (slide.figure, slide.title, bool(slide.card)):
        return slides.picture(slide, tuple((1 - share) * a + share * b for a, b in zip(last.part, slide.part, strict=True)))
    return Image.blend(slides.picture(last), slides.picture(slide), share)


# ------------------------------------------------------------------------------------------------------------- texts


def clock(seconds: float) -> str:
    """Seconds as WebVTT writes them, 00:01:02.345."""
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def wrapped(text: str, width: int = 44) -> str:
    """A caption in lines of about equal length."""
    count = -(-len(text) // width)
    lines = [""]
    for word in text.split():
        if len(lines) < count and len(lines[-1]) + len(word) / 2 > len(text) / count:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def webvtt(lines: list[Line]) -> str:
    return "WEBVTT\n\n" + "\n".join(f"{clock(each.start)} --> {clock(each.end)}\n{wrapped(each.text)}\n" for each in lines)


def chapters(scenes: list[story.Scene], starts: list[float], length: float) -> str:
    """Chapters as ffmpeg's metadata, without gaps."""
    text = ";FFMETADATA1\ntitle=Candor in five minutes\n"
    for scene, (start, end) in zip(scenes, pairwise([*starts, length]), strict=True):
        title = re.sub(r"([=;#\\])", r"\\\1", scene.title)
        text += f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={round(start * 1000)}\nEND={round(end * 1000)}\ntitle={title}\n"
    return text


def transcript(scenes: list[story.Scene], values: dict[str, str], starts: list[float]) -> str:
    """The words as Markdown, for whoever reads rather than listens."""
    parts = ["# Candor in five minutes: transcript\n"]
    for scene, start in zip(scenes, starts, strict=True):
        parts.append(f"## {int(start) // 60}:{int(start) % 60:02} {scene.title}\n")
        parts += [f"{story.fill(shot.words, values)}\n" for shot in scene.shots]
    return "\n".join(parts)


def write_texts(out: Path, scenes, values, lines, length) -> None:
    first = begins(lines)
    starts = [first[s, 0] for s in range(len(scenes))]
    texts = {
        "candor.vtt": webvtt(lines),
        "chapters.txt": chapters(scenes, starts, length),
        "transcript.md": transcript(scenes, values, starts),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def shown(start: float, slide: slides.Slide) -> dict:
    """What `check` wants to know of a shot: when, what, and how large letters of a figure's usual size are."""
    key = hashlib.sha256(slide.figure).hexdigest()[:12] if slide.figure else ""
    letters = slides.letters(slide) if slide.figure else slides.LINE
    return {"start": start, "title": slide.title, "figure": key, "letters": round(letters, 1)}


# ------------------------------------------------------------------------------------------------------------ ffmpeg


def loudness_filter(path: Path) -> str:
    """loudnorm's second pass: what the first has measured of the file, so that one gain serves the whole film."""
    asked = f"loudnorm=I={LOUDNESS}:TP={PEAK}:LRA=7"
    # speech has short peaks: without a limiter the film would be either too quiet or clipped
    before = f"acompressor=threshold=-20dB:ratio=3:attack=5:release=80,{asked}"
    told = subprocess.run(
        ["ffmpeg", "-hide_banner", "-nostdin", "-i", str(path), "-af", f"{before}:print_format=json", "-f", "null", "-"],
        capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    found = json.loads(told[told.rindex("{") : told.rindex("}") + 1])
    names = {"measured_I": "input_i", "measured_TP": "input_tp", "measured_LRA": "input_lra", "measured_thresh": "input_thresh"}
    measured = "".join(f":{name}={found[key]}" for name, key in names.items())
    return f"{before}{measured}:offset={found['target_offset']}:linear=true"


def encode(out: Path, lines, seen, length: float) -> None:
    """Pictures, sound, captions and chapters into one file; written beside it first, so that a kill leaves no half film."""
    part = out / ".candor.part.mp4"
    command = [
        "ffmpeg", "-hide_banner", "-loglevel", "error", "-y",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{slides.WIDTH}x{slides.HEIGHT}", "-r", str(FPS), "-i", "-",
        "-i", str(out / "speech.wav"), "-i", str(out / "candor.vtt"), "-i", str(out / "chapters.txt"),
        "-map", "0:v", "-map", "1:a", "-map", "2:s", "-map_metadata", "3", "-map_chapters", "3",
        "-af", f"{loudness_filter(out / 'speech.wav')},aresample=48000", "-c:a", "aac", "-b:a", "96k", "-ac", "1",
        "-c:v", "libx264", "-preset", "medium", "-tune", "stillimage", "-crf", "22", "-pix_fmt", "yuv420p", "-g", str(FPS * 10),
        "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-vf", "scale=out_color_matrix=bt709",
        "-c:s", "mov_text", "-disposition:s:0", "default", "-metadata:s:s:0", "language=eng", "-metadata:s:a:0", "language=eng",
        "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-movflags", "+faststart", str(part),
    ]  # fmt: skip
    running = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        for frame in frames(seen, length):
            running.stdin.write(frame.tobytes())
        running.stdin.close()
        if running.wait():
            raise RuntimeError("ffmpeg did not write the film; its message is above")
        os.replace(part, out / "candor.mp4")
    except BrokenPipeError:
        raise RuntimeError("ffmpeg ended early; its message is above") from None
    finally:
        running.kill()
        running.wait()
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
