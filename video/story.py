"""The storyboard of the film: scenes and shots in Markdown, and numbers that are read from the run that is shown.

In `storyboard.md` every heading of the second level opens a scene (a chapter of the film), a block quote holds words to be
spoken (a shot), and the list items before it say what is seen meanwhile:

    - lesson: 03                       the notebook, from here to the end of the scene
    - figure: `show(result.plot())`    the code cell whose figure is seen: any text that only this cell holds; `none` for none
    - part: 0 0 50 100                 what is seen of it: left, top, right, bottom in per cent; then the whole again
    - numbers: `gap {gap} ({low}`      numbers of that lesson's outputs or alternative texts, as they stand there
    - card: gap {gap}                  a line above the figure of the next shot

`{name}` in a `numbers:` line is a number to read, `{name:word}` a word, `{#}` any number, `{}` anything up to the text that
follows, and `{=name}` what was read before under that name; a template without names only has to be there, so that words which
hang on it are not said of a run where it is not. In words and cards `{name}` is what was read. Nothing here needs a synthesiser,
ffmpeg or PyTorch.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from dataclasses import dataclass
from pathlib import Path

BOARD = Path(__file__).resolve().parent / "storyboard.md"
NUMBER = r"[-+−]?\d[\d,]*(?:\.\d+)?"
IMAGE = re.compile(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)"')
KEYS = ("lesson", "figure", "part", "numbers", "card")


@dataclass(frozen=True)
class Shot:
    """Words, and what is seen while they are spoken. `part` is left, top, right, bottom in shares of the figure."""

    words: str
    lesson: str
    figure: str  # a piece of the cell's code, or "" for a slide of words
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    card: str = ""


@dataclass(frozen=True)
class Scene:
    """One chapter: its title, its shots, and (lesson, template) of the numbers it reads."""

    title: str
    shots: tuple[Shot, ...]
    numbers: tuple[tuple[str, str], ...]


def read(text: str) -> list[Scene]:
    """The scenes of a storyboard.

    Raises
    ------
    ValueError : an unknown key, a scene without words, a lesson or figure not named before the first words of a scene, a
        `part` that is not four percentages; the scene's title is named.
    """
    scenes = []
    for chapter in re.split(r"^## ", text, flags=re.M)[1:]:
        title, _, body = chapter.partition("\n")
        scenes.append(scene(title.strip(), body))
    if not scenes:
        raise ValueError("storyboard: no heading of the form '## title'")
    return scenes


def scene(title: str, body: str) -> Scene:
    shots, numbers, now, quote = [], [], {}, []
    for line in [*body.splitlines(), ""]:
        if line.startswith(">"):
            quote.append(line[1:].strip())
            continue
        if quote:
            if not {"lesson", "figure"} <= now.keys():
                raise ValueError(f"storyboard, {title!r}: words before 'lesson:' and 'figure:'")
            figure = "" if now["figure"] == "none" else now["figure"]
            part, card = now.pop("part", "0 0 100 100"), now.pop("card", "")
            shots.append(Shot(" ".join(quote), now["lesson"], figure, box(part, title), card))
            quote = []
        item = re.match(r"- (\w+): +(.*)", line)
        if not item:
            continue
        key, value = item[1], item[2].strip().strip("`")
        if key not in KEYS:
            raise ValueError(f"storyboard, {title!r}: unknown key {key!r}; there are {', '.join(KEYS)}")
        if key == "numbers":
            numbers.append((now.get("lesson", ""), value))
        else:
            now[key] = value
    if not shots:
        raise ValueError(f"storyboard, {title!r}: no words ('> …')")
    return Scene(title, tuple(shots), tuple(numbers))


def box(text: str, title: str) -> tuple[float, float, float, float]:
    values = [float(value) / 100 for value in re.findall(r"[\d.]+", text)]
    if len(values) != 4 or not (0 <= values[0] < values[2] <= 1 and 0 <= values[1] < values[3] <= 1):
        raise ValueError(f"storyboard, {title!r}: part: {text!r} is not left top right bottom in per cent")
    return tuple(values)


def sentences(words: str) -> list[str]:
    """Words cut after full stops, question marks, exclamation marks and colons, each with its mark."""
    return re.split(r"(?<=[.?!:;]) +", words.strip())


def fill(text: str, values: dict[str, str]) -> str:
    """`text` with each `{name}` replaced by what was read; an unknown name is an error that lists the known ones."""

    def one(match: re.Match) -> str:
        if match[1] not in values:
            raise ValueError(f"storyboard: no number {match[1]!r}; there are {', '.join(sorted(values))}")
        return values[match[1]]

    return re.sub(r"\{(\w+)\}", one, text)


# ---------------------------------------------------------------------------------------------- executed notebooks


@dataclass(frozen=True)
class Lesson:
    """An executed notebook as the film needs it: `figures` by the code of their cell, `said` all its outputs in one line."""

    name: str
    figures: dict[str, bytes]  # PNG
    said: str


def lesson(path: Path) -> Lesson:
    """Read an executed notebook; an error if a cell failed in it."""
    figures, said = {}, []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                raise ValueError(f"{path}: the run failed with {output['ename']}: {output['evalue']}")
            data = output.get("data", {})
            for picture, alt in IMAGE.findall("".join(data.get("text/html", ""))):
                try:
                    figures.setdefault("".join(cell["source"]), base64.b64decode(picture, validate=True))
                except binascii.Error as error:
                    raise ValueError(f"{path}: a figure is no PNG") from error
                said.append(html.unescape(alt))
            said += ["".join(output.get("text", "")), "".join(data.get("text/plain", ""))]
    return Lesson(path.stem, figures, " ".join(" ".join(said).split()))


def figure(run: Lesson, code: str) -> bytes:
    """The figure of the one cell whose code holds `code`."""
    found = [png for source, png in run.figures.items() if code in source]
    if len(found) != 1:
        raise ValueError(f"{run.name}: {len(found)} cells with a figure hold the code {code!r}; name one")
    return found[0]


def numbers(run: Lesson, template: str, known: dict[str, str] | None = None) -> dict[str, str]:
    """What stands at the places of `template` in the outputs of a lesson, as text; `known` are the names that `{=name}` may use.

    Raises
    ------
    ValueError : the outputs do not hold the template, or hold it with different numbers.
    """
    pattern, names = "", []
    for piece in re.split(r"(\{[^}]*\})", " ".join(template.split())):
        if piece == "{}":
            pattern += r".*?"
        elif piece == "{#}":
            pattern += NUMBER
        elif piece.startswith("{="):
            pattern += re.escape(fill("{" + piece[2:], known or {}))
        elif piece.startswith("{"):
            name, _, kind = piece[1:-1].partition(":")
            names.append(name)
            pattern += {"": f"({NUMBER})", "word": r"([A-Za-z][\w]*)"}[kind]
        else:
            pattern += re.escape(piece)
    found = {tuple(match.groups()) for match in re.finditer(pattern, run.said)}
    if len(found) != 1:
        what = "nothing like" if not found else f"{len(found)} different matches of"
        raise ValueError(f"{run.name}: its outputs hold {what} {template!r}")
    return dict(zip(names, found.pop(), strict=True))


def values(scenes: list[Scene], runs: dict[str, Lesson]) -> dict[str, str]:
    """All numbers of a storyboard by name; `runs` by the lesson's number. A name may be given once."""
    known: dict[str, str] = {}
    for each in scenes:
        for number, template in each.numbers:
            if number not in runs:
                raise ValueError(f"storyboard, {each.title!r}: no executed lesson {number!r}; there are {', '.join(runs)}")
            read_now = numbers(runs[number], template, known)
            if twice := known.keys() & read_now.keys():
                raise ValueError(f"storyboard, {each.title!r}: {', '.join(twice)} is named twice")
            known |= read_now
    return known
