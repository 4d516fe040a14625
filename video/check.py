"""Measure the finished film: picture, sound, captions, chapters and numbers, each against what is accepted.

    python -m video.check [--out build/video]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from video import speech, story

ROOT = Path(__file__).resolve().parents[1]
RATE, FRAME = 16_000, 160  # the sound is looked at in steps of 10 ms
STEP = FRAME / RATE
IN_STEP = 0.15  # seconds that a caption may begin or end away from its speech


@dataclass(frozen=True)
class Finding:
    """One measured property: its value as text, what is accepted, and whether it is."""

    what: str
    value: str
    accepted: str
    ok: bool


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="video.check", description="Measure the finished film.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "video", help="folder of the film")
    found = findings(parser.parse_args(argv).out)
    for each in found:
        print(f"{'ok  ' if each.ok else 'FAIL'}  {each.what:34} {each.value:>22}   ({each.accepted})")
    return int(not all(each.ok for each in found))


def findings(out: Path, board: Path = story.BOARD) -> list[Finding]:
    """Everything that is measured of `out`/candor.mp4 and the texts beside it."""
    path = out / "candor.mp4"
    about = probe(path)
    captions = read_captions((out / "candor.vtt").read_text(encoding="utf-8"))
    return [
        *picture(about, json.loads((out / "shots.json").read_text(encoding="utf-8"))),
        *sound(path, captions),
        *texts(about, captions, (out / "transcript.md").read_text(encoding="utf-8")),
        numbers(out, story.read(board.read_text(encoding="utf-8"))),
    ]


def probe(path: Path) -> dict:
    command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-show_chapters", "-of", "json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def picture(about: dict, shots: list[dict]) -> list[Finding]:
    seconds, size = float(about["format"]["duration"]), int(about["format"]["size"])
    video = next(stream for stream in about["streams"] if stream["codec_type"] == "video")
    largest: dict[str, float] = {}  # each figure is to be read in at least one of its shots
    for shot in shots:
        largest[shot["figure"]] = max(shot["letters"], largest.get(shot["figure"], 0))
    letters = min(largest.values())
    shape = f"{video['width']}×{video['height']} {video['codec_name']} {video['pix_fmt']}"
    return [
        Finding("length", f"{seconds / 60:.2f} min", "4 to 6", 240 <= seconds <= 360),
        Finding("picture", shape, "1280×720 h264 yuv420p", shape == "1280×720 h264 yuv420p"),
        Finding("11-point letters of figures", f"{letters:.0f} pixels", "at least 20", letters >= 20),
        Finding("size", f"{size / 1e6:.1f} MB", "at most 15", size <= 15e6),
    ]


def sound(path: Path, captions: list[tuple[float, float, str]]) -> list[Finding]:
    integrated, peak = ebur128(path)
    loud = speech.loudness(samples(path), FRAME) > speech.QUIET
    early, late, outside = against_speech(captions, loud)
    quiet = longest_silence(loud)
    clipped = int((np.abs(samples(path)) >= 0.999).sum())
    return [
        Finding("loudness", f"{integrated:.1f} LUFS", "-17 to -15", -17 <= integrated <= -15),
        Finding("true peak", f"{peak:.1f} dBTP", "below -1", peak < -1),
        Finding("samples at full scale", str(clipped), "0", clipped == 0),
        Finding("longest silence", f"{quiet:.2f} s", "at most 2", quiet <= 2),
        Finding("captions begin off speech by", f"{early:.2f} s", f"at most {IN_STEP}", early <= IN_STEP),
        Finding("captions end off speech by", f"{late:.2f} s", f"at most {IN_STEP}", late <= IN_STEP),
        Finding("speech without caption", f"{outside:.2f} s", "at most 0.2", outside <= 0.2),
    ]


def texts(about: dict, captions: list[tuple[float, float, str]], transcript: str) -> list[Finding]:
    chapters = [(float(each["start_time"]), float(each["end_time"]), each["tags"]["title"]) for each in about["chapters"]]
    scenes = re.findall(r"^## \d+:\d\d (.*)$", transcript, flags=re.M)
    ordered = all(a[1] <= b[0] + 1e-3 for a, b in pairwise(chapters)) and all(start < end for start, end, _ in chapters)
    captioned = " ".join(text for *_, text in captions).split()
    words = re.sub(r"^#.*$", "", transcript, flags=re.M).split()
    in_order = all(a[0] < a[1] <= b[0] for a, b in pairwise(captions))
    track = [stream["codec_name"] for stream in about["streams"] if stream["codec_type"] == "subtitle"]
    width = max(len(line) for *_, text in captions for line in text.splitlines())
    rows = max(len(text.splitlines()) for *_, text in captions)
    speed = max(len(text) / (end - start) for start, end, text in captions)
    return [
        Finding("chapters", str(len(chapters)), "those of the transcript", [each[2] for each in chapters] == scenes),
        Finding("chapters follow one another", str(ordered), "True", ordered),
        Finding("captions in the file", ", ".join(track), "mov_text", track == ["mov_text"]),
        Finding("captions follow one another", str(in_order), "True", in_order),
        Finding("captions are the transcript", str(captioned == words), "True", captioned == words),
        Finding("widest caption line", f"{width} letters", "at most 50", width <= 50),
        Finding("lines of a caption", str(rows), "at most 3", rows <= 3),
        Finding("fastest caption", f"{speed:.0f} letters a second", "at most 25", speed <= 25),
    ]


def numbers(out: Path, scenes: list[story.Scene]) -> Finding:
    """Whether every number that is spoken stands in the outputs of a lesson that its scene shows."""
    paths = json.loads((out / "lessons.json").read_text(encoding="utf-8"))
    said = {number: story.lesson(Path(path)).said for number, path in paths.items()}
    unknown = strangers((out / "transcript.md").read_text(encoding="utf-8"), scenes, said)
    return Finding("numbers not in the run", ", ".join(unknown) or "none", "none", not unknown)


# ---------------------------------------------------------------------------------------------------------- measuring


def ebur128(path: Path) -> tuple[float, float]:
    """Integrated loudness in LUFS and true peak in dBTP (EBU R 128)."""
    command = ["ffmpeg", "-hide_banner", "-nostdin", "-nostats", "-i", str(path), "-map", "0:a"]
    command += ["-af", "ebur128=peak=true:framelog=verbose", "-f", "null", "-"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    summary = told[told.rindex("Summary:") :]
    return float(re.search(r"I:\s+(-?[\d.]+) LUFS", summary)[1]), float(re.search(r"Peak:\s+(-?[\d.]+) dBFS", summary)[1])


def samples(path: Path) -> np.ndarray:
    """The sound as float32 (samples,) at `RATE`."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(path), "-map", "0:a"]
    command += ["-f", "f32le", "-ac", "1", "-ar", str(RATE), "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<f4")


def longest_silence(loud: np.ndarray) -> float:
    """Seconds of the longest stretch of frames that are not loud; `loud` is bool (frames,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], loud, [True]]).astype(int)))
    return float(STEP * (edges[1::2] - edges[::2]).max(initial=0))


def against_speech(captions: list[tuple[float, float, str]], loud: np.ndarray) -> tuple[float, float, float]:
    """How far captions are from the speech that is heard, in seconds.

    Returns
    -------
    (largest distance of a caption's beginning from the first loud frame between the captions around it, the same of its end and
    the last, seconds of loud frames outside all captions); infinity for a caption without speech.
    """
    edges = [0.0, *((a[1] + b[0]) / 2 for a, b in pairwise(captions)), len(loud) * STEP]
    begins, ends = [], []
    covered = np.zeros_like(loud)
    for (start, end, _), (low, high) in zip(captions, pairwise(edges), strict=True):
        first, last = round(low / STEP), round(high / STEP)
        heard = np.flatnonzero(loud[first:last])
        begins.append(abs((first + heard[0]) * STEP - start) if len(heard) else np.inf)
        ends.append(abs((first + heard[-1] + 1) * STEP - end) if len(heard) else np.inf)
        covered[int(start / STEP) : int(np.ceil(end / STEP))] = True
    return float(max(begins)), float(max(ends)), float(STEP * (loud & ~covered).sum())


def read_captions(text: str) -> list[tuple[float, float, str]]:
    """(start, end, text) of each caption of a WebVTT file, seconds."""

    def seconds(clock: str) -> float:
        hours, minutes, rest = clock.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(rest)

    if not text.startswith("WEBVTT\n\n"):
        raise ValueError("captions: no WebVTT")
    found = []
    for block in text.strip().split("\n\n")[1:]:
        times, _, words = block.partition("\n")
        start, end = times.split(" --> ")
        found.append((seconds(start), seconds(end), words))
    return found


def strangers(transcript: str, scenes: list[story.Scene], said: dict[str, str]) -> list[str]:
    """Numbers of the transcript that no lesson of their scene holds; `said` are the lessons' outputs by lesson."""
    known = {number: set(re.findall(story.NUMBER, text)) for number, text in said.items()}
    chapters = re.split(r"^## .*$", transcript, flags=re.M)[1:]
    return [
        number
        for scene, chapter in zip(scenes, chapters, strict=True)
        for number in re.findall(story.NUMBER, chapter)
        if not any(number in known[shot.lesson] for shot in scene.shots)
    ]


if __name__ == "__main__":
    sys.exit(main())
