"""One vocabulary of attributes for several drawing styles.

DiceBear's styles name their parts differently (`top`, `head`, `hair`). This module says, for each style, which
variants mean *smiling*, *short hair* and so on, so that one set of attributes draws a face in any of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

ATTRIBUTES: dict[str, tuple] = {
    "smiling": (False, True),
    "glasses": (False, True),
    "facial_hair": (False, True),
    "head_covering": (False, True),
    "hair_length": ("short", "long"),
    "skin_tone": ("light", "medium", "dark"),
    "clothing": ("cool", "neutral", "warm"),
}
"""Every attribute of a drawn face and its values. `clothing` is the family of the garment's colour."""

SKIN = {
    "light": ("ffdbb4", "f2d3b1", "edb98a"),
    "medium": ("d08b5b", "c17a48", "ae5d29"),
    "dark": ("7c4a2a", "614335", "4b2e20"),
}
CLOTHING = {
    "cool": ("3d7dd8", "2fa58e", "6b5bd2"),
    "neutral": ("8a8f98", "d5d8dc", "4a4f57"),
    "warm": ("e0533d", "f2a541", "d94f70"),
}
HAIR = ("2c1b18", "4a312c", "724133", "a55728", "b58143", "d6b370", "b9b4b0")
COVERING = ("25557c", "8c3b4a", "3c4f5c", "5e7d4a", "c9a227")
FRAMES = ("262e33", "5b4636", "3c4f5c")


@dataclass(frozen=True)
class StyleGuide:
    """How one DiceBear style draws the vocabulary.

    `mouth`, `hair`, `glasses`, `facial_hair` map values to variant names; an attribute that the style has no
    drawing for is listed in `cannot`. `regions` names, for each face region, the options that take it away. `frame` is
    the face's centre (x, y, fractions of the canvas) and the zoom that brings it to a common size in all styles.
    """

    mouth: tuple[str, Mapping[bool, tuple[str, ...]]]
    hair: tuple[str, Mapping[str, tuple[str, ...]]]
    glasses: tuple[str, tuple[str, ...]]
    colours: Mapping[str, str]
    regions: Mapping[str, Mapping[str, Any]]
    facial_hair: tuple[str, tuple[str, ...]] | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    free: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    no_glasses: str | None = None
    frame: tuple[float, float, float] = (0.5, 0.5, 1.0)
    cannot: tuple[str, ...] = ()


GUIDES: dict[str, StyleGuide] = {
    "avataaars": StyleGuide(
        frame=(0.5, 0.43, 1.45),
        mouth=("mouth", {True: ("default", "smile", "twinkle"), False: ("concerned", "disbelief", "sad", "serious")}),
        hair=("top", {
            "short": ("shortFlat", "shortRound", "shortCurly", "theCaesar", "theCaesarAndSidePart", "sides", "frizzle"),
            "long": ("bob", "curvy", "longButNotTooLong", "miaWallace", "straight01", "straight02", "straightAndStrand"),
            "covered": ("hijab", "turban", "winterHat02", "winterHat1", "winterHat03"),
        }),
        glasses=("accessories", ("prescription01", "prescription02", "round")),
        facial_hair=("facialHair", ("beardLight", "beardMedium", "moustacheFancy", "moustacheMagnum")),
        colours={"skin": "skin", "hair": "hair", "facial_hair": "facialHair", "covering": "hat", "frames": "accessories",
                 "clothing": "clothes"},
        free={"clothes": ("collarAndSweater", "hoodie", "shirtCrewNeck", "shirtScoopNeck", "shirtVNeck"),
              "eyes": ("default", "happy", "side", "squint"),
              "eyebrows": ("default", "defaultNatural", "flatNatural", "raisedExcitedNatural")},
        regions={"accessories": {"accessoriesProbability": 0}, "brows": {"eyebrowsProbability": 0},
                 "eyes": {"eyesProbability": 0}, "mouth": {"mouthProbability": 0}, "nose": {"noseProbability": 0},
                 "facial_hair": {"facialHairProbability": 0}, "hair": {"topProbability": 0},
                 "clothing": {"clothesProbability": 0}},
    ),
    "open-peeps": StyleGuide(
        frame=(0.57, 0.45, 1.4),
        mouth=("expression", {True: ("smile", "calm", "cheeky", "smileTeethGap"),
                              False: ("blank", "solemn", "tired", "serious")}),
        hair=("head", {
            "short": ("short1", "short2", "short3", "short5", "flatTop", "pomp", "twists", "shaved1"),
            "long": ("long", "longBangs", "medium2", "medium3", "mediumBangs", "mediumStraight", "bangs2"),
            "covered": ("hijab", "turban", "hatBeanie", "hatHip"),
        }),
        glasses=("accessories", ("glasses", "glasses2", "glasses3", "glasses5")),
        facial_hair=("facialHair", ("chin", "full", "goatee1", "goatee2", "moustache1", "moustache7")),
        colours={"skin": "skin", "hair": "headContrast", "clothing": "clothing"},
        fixed={"maskProbability": 0},
        regions={"accessories": {"accessoriesProbability": 0}, "face": {"expressionProbability": 0},
                 "facial_hair": {"facialHairProbability": 0}, "hair": {"headProbability": 0},
                 "clothing": {"clothingColor": "00ff00"}},
    ),
    "micah": StyleGuide(
        frame=(0.51, 0.4, 1.4),
        mouth=("mouth", {True: ("laughing", "smile", "smirk"), False: ("frown", "nervous", "pucker", "sad")}),
        hair=("hair", {"short": ("fonze", "mrClean", "mrT", "dannyPhantom"), "long": ("full", "pixie"),
                       "covered": ("turban",)}),
        glasses=("glasses", ("round", "square")),
        facial_hair=("facialHair", ("scruff",)),
        colours={"skin": "base", "hair": "hair", "facial_hair": "facialHair", "covering": "hair", "frames": "glasses",
                 "clothing": "shirt"},
        free={"clothes": ("collared", "crew", "open"), "eyes": ("eyes", "round"), "eyebrows": ("down", "up"),
              "nose": ("curve", "pointed", "tound")},
        fixed={"earringsProbability": 0},
        regions={"accessories": {"glassesProbability": 0}, "brows": {"eyebrowsProbability": 0},
                 "eyes": {"eyesProbability": 0}, "mouth": {"mouthProbability": 0}, "nose": {"noseProbability": 0},
                 "facial_hair": {"facialHairProbability": 0}, "hair": {"hairProbability": 0},
                 "clothing": {"shirtColor": "00ff00"}},
    ),
    "personas": StyleGuide(
        frame=(0.5, 0.42, 1.5),
        mouth=("mouth", {True: ("bigSmile", "smile"), False: ("frown", "surprise")}),
        hair=("hair", {
            "short": ("bald", "buzzcut", "curlyHighTop", "fade", "mohawk", "shortCombover"),
            "long": ("bobBangs", "bobCut", "extraLong", "long", "sideShave"),
            "covered": ("beanie", "cap"),
        }),
        glasses=("eyes", ("glasses",)),
        no_glasses="open",
        facial_hair=("facialHair", ("goatee", "shadow", "soulPatch")),
        colours={"skin": "skin", "hair": "hair", "facial_hair": "facialHair", "clothing": "clothing"},
        free={"clothes": ("checkered", "rounded", "small", "squared"), "nose": ("mediumRound", "smallRound", "wrinkles")},
        regions={"accessories": {"eyesVariant": "open"}, "eyes": {"eyesProbability": 0}, "mouth": {"mouthProbability": 0},
                 "nose": {"noseProbability": 0}, "facial_hair": {"facialHairProbability": 0},
                 "hair": {"hairProbability": 0}, "clothing": {"clothingColor": "00ff00"}},
    ),
    "big-smile": StyleGuide(
        frame=(0.53, 0.52, 1.0),
        mouth=("mouth", {True: ("gapSmile", "kawaii", "openedSmile", "teethSmile"), False: ("openSad", "unimpressed")}),
        hair=("hair", {"short": ("bowlCutHair", "curlyShortHair", "shavedHead", "shortHair"),
                       "long": ("bangs", "braids", "straightHair", "wavyBob")}),
        glasses=("accessories", ("glasses",)),
        colours={"skin": "skin", "hair": "hair"},
        free={"eyes": ("cheery", "confused", "normal", "sad")},
        regions={"accessories": {"accessoriesProbability": 0}, "eyes": {"eyesProbability": 0},
                 "mouth": {"mouthProbability": 0}, "hair": {"hairProbability": 0}},
        cannot=("facial_hair", "head_covering", "clothing"),
    ),
}
"""The drawing styles. A new style is one entry here and its licence in `data/README.md`."""


def jitter(colour: str, rng: np.random.Generator, spread: float = 9.0) -> str:
    """A colour near `colour` (hex), so that no two identities share exactly the same."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)])
    return "".join(f"{int(c):02x}" for c in np.clip(channels + rng.normal(0, spread, 3), 0, 255).round())


@dataclass(frozen=True)
class Person:
    """What stays the same in every picture of one drawn identity: a choice for each part, in each state it can take."""

    style: str
    options: Mapping[str, Any]
    choices: Mapping[str, Mapping[Any, str]]


def draw_person(style: str, rng: np.random.Generator) -> Person:
    """Choose, for an identity in `style`, one variant or colour for every value of every attribute."""
    guide = GUIDES[style]
    pick = lambda values: values[int(rng.integers(len(values)))]
    choices = {
        "smiling": {value: pick(variants) for value, variants in guide.mouth[1].items()},
        "hair": {value: pick(variants) for value, variants in guide.hair[1].items()},
        "glasses": {True: pick(guide.glasses[1])},
        "facial_hair": {True: pick(guide.facial_hair[1])} if guide.facial_hair else {},
        "skin_tone": {value: jitter(pick(shades), rng) for value, shades in SKIN.items()},
        "clothing": {value: jitter(pick(shades), rng) for value, shades in CLOTHING.items()},
        "hair_colour": {None: jitter(pick(HAIR), rng)},
        "covering_colour": {None: jitter(pick(COVERING), rng)},
        "frame_colour": {None: jitter(pick(FRAMES), rng, 5.0)},
    }
    options = {f"{part}Variant": pick(variants) for part, variants in guide.free.items()}
    return Person(style, {**guide.fixed, **options}, choices)


def svg_options(person: Person, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """DiceBear options that draw `person` with `attributes` (a value for each name in `ATTRIBUTES`).

    An attribute that the person's style cannot draw (`GUIDES[style].cannot`) is ignored.
    """
    guide, choices = GUIDES[person.style], person.choices
    options: dict[str, Any] = {"seed": "face", **person.options}

    def put(component: str, variant: str | None) -> None:
        options[f"{component}Probability"] = 0 if variant is None else 100
        if variant is not None:
            options[f"{component}Variant"] = variant

    covered = bool(attributes["head_covering"]) and "covered" in guide.hair[1]
    put(guide.mouth[0], choices["smiling"][bool(attributes["smiling"])])
    put(guide.hair[0], choices["hair"]["covered" if covered else attributes["hair_length"]])
    put(guide.glasses[0], choices["glasses"][True] if attributes["glasses"] else guide.no_glasses)
    if guide.facial_hair:
        put(guide.facial_hair[0], choices["facial_hair"][True] if attributes["facial_hair"] else None)
    colours = {
        "skin": choices["skin_tone"][attributes["skin_tone"]],
        "hair": choices["hair_colour"][None],
        "facial_hair": choices["hair_colour"][None],
        "frames": choices["frame_colour"][None],
        "clothing": choices["clothing"][attributes["clothing"]],
    }
    if covered:  # last, because Micah's turban takes its colour from the hair
        colours["covering"] = choices["covering_colour"][None]
    for what, colour in colours.items():
        if what in guide.colours:
            options[f"{guide.colours[what]}Color"] = colour
    return options


@cache
def definition(style: str) -> Any:
    """The parsed DiceBear style, read from the installed package `dicebear-styles`."""
    from dicebear import Style

    return Style(json.loads(files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8")))


def licences() -> dict[str, str]:
    """The licence text that each style carries, to be shown wherever its drawings are."""
    texts = {}
    for style in GUIDES:
        content = json.loads(files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8"))
        texts[style] = content["meta"]["license"]["text"]
    return texts
