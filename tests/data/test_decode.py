import numpy as np
import pytest
from PIL import Image

from helpers.data.decode import decode, decode_all


def save(image, path, **options):
    image.save(path, **options)
    return path


def quadrants(mode="RGB", size=40):
    """Red top left, green top right, blue bottom left, white bottom right."""
    pixels = np.zeros((size, size, 3), np.uint8)
    half = size // 2
    pixels[:half, :half, 0] = pixels[:half, half:, 1] = pixels[half:, :half, 2] = 255
    pixels[half:, half:] = 255
    return Image.fromarray(pixels).convert(mode)


def corners(array):
    """The colours near the four corners, as letters."""
    name = {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 1): "w", (0, 0, 0): "k"}
    end = len(array) - 2
    return "".join(name.get(tuple((array[y, x] > 127).astype(int)), "?") for y in (1, end) for x in (1, end))


@pytest.mark.parametrize(
    ("file", "mode"),
    [
        ("a.png", "RGB"),
        ("a.jpg", "RGB"),
        ("a.bmp", "RGB"),
        ("a.webp", "RGB"),
        ("a.tif", "RGB"),
        ("a.ppm", "RGB"),
        ("a.png", "P"),
        ("a.gif", "P"),
        ("a.png", "RGBA"),
        ("a.jpg", "CMYK"),
        ("a.tif", "CMYK"),
    ],
)
def test_every_colour_format_keeps_its_colours_in_place(tmp_path, file, mode):
    image = quadrants()
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    array = decode(save(image, tmp_path / file), 16)
    assert array.shape == (16, 16, 3) and array.dtype == np.uint8
    assert corners(array) == "rgbw"


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_is_repeated_over_the_channels(tmp_path, mode):
    array = decode(save(Image.new("L", (20, 20), 255).convert(mode), tmp_path / "a.png"), 8)
    assert (array == 255).all()
    shade = decode(save(Image.new("L", (20, 20), 77), tmp_path / "b.pgm"), 8)
    assert (shade == 77).all() and shade.shape == (8, 8, 3)


@pytest.mark.parametrize("file", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, file):
    ramp = np.repeat(np.array([[0, 16384, 32768, 65535]], np.uint16), 4, axis=0)
    array = decode(save(Image.fromarray(ramp), tmp_path / file), 4)
    assert array[0, :, 0].tolist() == [0, 63, 127, 255]


def test_transparency_is_laid_on_white(tmp_path):
    hidden = Image.new("RGBA", (10, 10), (200, 0, 0, 0))
    assert (decode(save(hidden, tmp_path / "a.png"), 8) == 255).all()
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([10, 20, 30])
    assert (decode(save(palette, tmp_path / "b.png", transparency=0), 8) == 255).all()


@pytest.mark.parametrize(
    ("orientation", "expected"), [(1, "rgbw"), (2, "grwb"), (3, "wbgr"), (6, "brwg"), (8, "gwrb")]
)
def test_the_camera_orientation_is_undone(tmp_path, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(quadrants(), tmp_path / "a.jpg", exif=exif.tobytes(), quality=95)
    assert corners(decode(path, 16)) == expected


@pytest.mark.parametrize("size", [(40, 80), (80, 40), (41, 83), (8, 300)])
def test_the_central_square_is_kept(tmp_path, size):
    width, height = size
    side = min(size)
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = 255
    array = decode(save(Image.fromarray(pixels), tmp_path / "a.png"), 24)
    assert (array[2:-2, 2:-2] == 255).all()
    pixels[:] = 255 - pixels
    assert (decode(save(Image.fromarray(pixels), tmp_path / "b.png"), 24)[2:-2, 2:-2] == 0).all()


def test_shrinking_averages_instead_of_dropping_pixels(tmp_path):
    chess = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(decode(save(Image.fromarray(chess), tmp_path / "a.png"), 8).astype(int) - 127).max() <= 3


def test_large_jpegs_decoded_at_a_fraction_look_the_same(tmp_path):
    slope = np.linspace(0, 255, 1600).astype(np.uint8)
    pixels = np.stack(
        [np.tile(slope, (1600, 1)), np.tile(slope[:, None], (1, 1600)), np.full((1600, 1600), 90, np.uint8)],
        2,
    )
    exact = decode(save(Image.fromarray(pixels), tmp_path / "a.png"), 32).astype(int)
    quick = decode(save(Image.fromarray(pixels), tmp_path / "a.jpg", quality=95), 32).astype(int)
    assert np.abs(exact - quick).max() <= 6


def damaged(tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    if kind == "empty":
        path.touch()
    elif kind == "truncated":
        save(noise, path)
        path.write_bytes(path.read_bytes()[:900])
    elif kind == "truncated_jpeg":
        path = save(noise, tmp_path / "truncated.jpg")
        path.write_bytes(path.read_bytes()[:900])
    elif kind == "flipped":
        save(noise, path)
        data = bytearray(path.read_bytes())
        data[60:400] = bytes(340)
        path.write_bytes(data)
    elif kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "postscript":
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    elif kind == "bomb":
        Image.new("1", (9000, 9000)).save(path)
    elif kind == "float":
        path = save(Image.fromarray(np.ones((5, 5), np.float32)), tmp_path / "float.tif")
    elif kind == "folder":
        path.mkdir()
    return path


KINDS = [
    "empty",
    "truncated",
    "truncated_jpeg",
    "flipped",
    "text",
    "postscript",
    "bomb",
    "float",
    "folder",
    "absent",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_is_named(tmp_path, kind):
    path = damaged(tmp_path, kind)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        decode(path, 8)
    assert str(path) in str(caught.value) and len(str(caught.value)) > len(str(path)) + 10


def test_bad_files_are_skipped_and_listed_and_the_rest_keeps_its_order(tmp_path):
    paths, good = [], []
    for i in range(200):  # several chunks
        if i % 50 == 7:
            paths.append(damaged(tmp_path, KINDS[i // 50]))
        else:
            good.append(i)
            paths.append(save(Image.new("L", (9, 9), i), tmp_path / f"{i}.png"))
    images, kept, skipped = decode_all(paths, 8, on_error="skip")
    assert kept.tolist() == good and images[:, 0, 0, 0].tolist() == good
    assert [i for i, _ in skipped] == [7, 57, 107, 157] and "empty" in skipped[0][1]
    with pytest.raises(ValueError, match='on_error="skip"'):
        decode_all(paths, 8)


def test_threads_read_what_a_loop_reads(tmp_path):
    rng = np.random.default_rng(1)
    paths = [
        save(Image.fromarray(rng.integers(0, 256, (20, 15, 3), dtype=np.uint8)), tmp_path / f"{i}.png")
        for i in range(150)
    ]
    images, kept, skipped = decode_all(paths, 8)
    assert np.array_equal(images, np.stack([decode(path, 8) for path in paths]))
    assert kept.tolist() == list(range(150)) and skipped == []


def test_nothing_readable_at_all_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="none of the 2 image files"):
        decode_all([tmp_path / "a.png", tmp_path / "b.png"], 8, on_error="skip")
    with pytest.raises(ValueError, match="on_error.*'ignore'.*raise, skip"):
        decode_all([], 8, on_error="ignore")
