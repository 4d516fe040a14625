"""Pictures as cameras, scanners, browsers and careless programs write them, for every entry that reads image files.

What `decode` must do is checked on files made byte by byte or by Pillow; that folders, tables and the official layouts go
through the same decoder is checked by loading one tree of hard files through each of them. About 6 s on one thread.
"""

import os
import struct
import tempfile
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms

import helpers.data.decode as module
from helpers.data import load_faces
from helpers.data.decode import decode, decode_all

QUARTERS = np.zeros((40, 40, 3), np.uint8)  # red, green / blue, white
QUARTERS[:20, :20, 0] = QUARTERS[:20, 20:, 1] = QUARTERS[20:, :20, 2] = QUARTERS[20:, 20:] = 255
PICTURE, RED = Image.fromarray(QUARTERS), Image.new("RGB", (40, 40), (255, 0, 0))
TURNED = "rgbw rgbw grwb wbgr bwrg rbgw brwg wgbr gwrb rgbw".split()  # by orientation, 0 … 9
EXACT = {"webp": {"lossless": True}, "jpg": {"quality": 95}}


def save(image, path, **options):
    image.save(path, **options)
    return path


def corners(array):
    """The colours near the four corners, as letters."""
    name = {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 1): "w", (0, 0, 0): "k"}
    end = len(array) - 2
    return "".join(name.get(tuple((array[y, x] > 127).astype(int)), "?") for y in (1, end) for x in (1, end))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(pixels, **more):
    """A PNG of 16 bits a channel, from an array (H, W, channels); Pillow writes only grey ones."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    extra = b"".join(chunk(name.encode(), body) for name, body in more.items())
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pixels, order="<", kind=1, white_is_zero=False):
    """An uncompressed TIFF in either byte order, from an array (H, W) or (H, W, 3); kind 1 unsigned, 2 signed, 3 float."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, channels = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    photometric = 2 if channels == 3 else int(not white_is_zero)
    per_channel = {258: pixels.dtype.itemsize * 8, 339: kind}
    entries = {256: width, 257: height, 258: None, 259: 1, 262: photometric, 273: 0}
    entries |= {277: channels, 278: height, 279: len(data), 339: None}
    behind, body, extra = 8 + 2 + 12 * len(entries) + 4, b"", b""
    start = behind + 2 * (2 * channels if channels > 2 else 0)
    for tag, value in entries.items():
        values = [per_channel[tag]] * channels if value is None else [start if tag == 273 else value]
        packed = struct.pack(order + str(len(values)) + ("H" if value is None else "I"), *values)
        if len(packed) > 4:
            extra += packed
            packed = struct.pack(order + "I", behind + len(extra) - len(packed))
        body += struct.pack(order + "HHI", tag, 3 if value is None else 4, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return head + body + bytes(4) + extra + data


RAMP = np.repeat(np.array([[0, 16384, 32768, 65535]], np.uint16), 4, axis=0)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif", "mpo.jpg"])
def test_of_several_pictures_in_a_file_the_first_is_taken(tmp_path, ending):
    path, lossless = tmp_path / f"a.{ending}", EXACT.get(ending.split(".")[-1], {})
    kind = {"format": "MPO"} if "mpo" in ending else {}
    save(PICTURE, path, save_all=True, append_images=[RED, RED], **lossless, **kind)
    with Image.open(path) as image:
        assert image.n_frames > 1
    assert corners(decode(path, 16)) == "rgbw"


def test_a_first_frame_that_covers_a_part_of_the_screen_is_laid_in_its_place(tmp_path):
    path = save(RED, tmp_path / "a.gif")
    content = bytearray(path.read_bytes())
    content[6:10] = struct.pack("<HH", 80, 80)  # the screen; the frame stays 40×40 at the top left
    path.write_bytes(content)
    assert decode(path, 16)[:7, :7].reshape(-1, 3).tolist() == [[255, 0, 0]] * 49


def test_a_progressive_jpeg_reads_as_a_plain_one(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    plain, progressive = (save(noise, tmp_path / f"{p}.jpg", progressive=p, quality=95) for p in (False, True))
    assert plain.read_bytes() != progressive.read_bytes()
    assert np.array_equal(decode(plain, 60), decode(progressive, 60))


@pytest.mark.parametrize(
    "name, kind", [("a.png", "JPEG"), ("a.jpg", "PNG"), ("a.JPG", "GIF"), ("a.bmp", "WEBP"), ("a.gif", "TIFF")]
)
def test_what_a_file_is_its_content_says(tmp_path, name, kind):
    assert corners(decode(save(PICTURE, tmp_path / name, format=kind), 16)) == "rgbw"


@pytest.mark.parametrize("orientation, expected", list(enumerate(TURNED)))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_every_camera_orientation_is_undone_in_every_format_that_has_them(tmp_path, ending, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation  # 0 and 9 are not defined, and do nothing
    assert corners(decode(save(PICTURE, tmp_path / f"a.{ending}", exif=exif.tobytes(), **EXACT.get(ending, {})), 16)) == expected


def test_unreadable_camera_data_does_no_harm(tmp_path):
    path = save(PICTURE, tmp_path / "a.jpg", exif=b"Exif\0\0II*\0garbage", quality=95)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what Pillow warns of thousands of files would bury everything else
        assert corners(decode_all([path], 16)[0][0]) == "rgbw"


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_in_either_byte_order_become_eight(tmp_path, order):
    (tmp_path / "grey.tif").write_bytes(tiff(RAMP, order))
    assert decode(tmp_path / "grey.tif", 4)[0, :, 0].tolist() == [0, 63, 127, 255]
    if order == "<":  # Pillow knows no such file of the other order
        (tmp_path / "white_is_zero.tif").write_bytes(tiff(65535 - RAMP, order, white_is_zero=True))
        assert np.abs(decode(tmp_path / "white_is_zero.tif", 4)[0, :, 0] - np.array([0, 63, 127, 255])).max() <= 1
    (tmp_path / "colour.tif").write_bytes(tiff(np.stack([RAMP, RAMP[:, ::-1], RAMP], 2), order))
    assert decode(tmp_path / "colour.tif", 4)[0].tolist() == [[0, 255, 0], [64, 128, 64], [128, 64, 128], [255, 0, 255]]
    (tmp_path / "eight.tif").write_bytes(tiff(QUARTERS, order))
    assert corners(decode(tmp_path / "eight.tif", 16)) == "rgbw"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_a_channel_in_a_png(tmp_path, channels):
    pixels = np.repeat(RAMP[..., None], channels, axis=2)
    if channels in (2, 4):
        pixels[..., -1] = 65535
        pixels[3, :, -1] = 0
    (tmp_path / "a.png").write_bytes(png16(pixels))
    array = decode(tmp_path / "a.png", 4)
    assert np.abs(array[0, :, 0] - np.array([0, 63.75, 127.5, 255])).max() <= 1 and (np.ptp(array, axis=2) == 0).all()
    assert (array[3] == 255).all() or channels in (1, 3)  # transparent: white


def test_one_transparent_value_of_sixteen_bits_is_laid_on_white(tmp_path):
    (tmp_path / "a.png").write_bytes(png16(RAMP[..., None], tRNS=struct.pack(">H", 16384)))
    assert decode(tmp_path / "a.png", 4)[0, :, 0].tolist() == [0, 255, 127, 255]


def test_portable_maps_of_any_depth(tmp_path):
    bodies = {
        "P5 4 1 65535\n": RAMP[0].astype(">u2").tobytes(),
        "P5 4 1 255\n": bytes([0, 64, 128, 255]),
        "P2 4 1 15\n": b"0 4 8 15\n",
        "P5\n# a comment\n4 1 3\n": bytes([0, 1, 2, 3]),
    }
    for head, body in bodies.items():
        (tmp_path / "a.pgm").write_bytes(head.encode() + body)
        values = np.array(Image.fromarray(decode(tmp_path / "a.pgm", 8)))
        assert np.ptp(values, axis=2).max() == 0 and 85 <= values.mean() <= 171  # its middle square is one of the two greys
    (tmp_path / "a.ppm").write_bytes(b"P6 4 4 65535\n" + np.stack([RAMP, RAMP[:, ::-1], RAMP], 2).astype(">u2").tobytes())
    assert decode(tmp_path / "a.ppm", 4)[0, 1].tolist() == [64, 128, 64]
    (tmp_path / "a.pnm").write_bytes(b"P1 2 2\n1 0 0 1\n")
    assert decode(tmp_path / "a.pnm", 8)[[0, 0, -1, -1], [0, -1, 0, -1], 0].tolist() == [0, 255, 255, 0]


@pytest.mark.parametrize("kind, shape", [("P5", (40, 40)), ("P6", (40, 40, 3)), ("P5", (40, 20, 2))])
def test_a_portable_map_that_was_sent_as_text_is_mended(tmp_path, kind, shape):
    """Some program put \\r before every \\n, in the head and among the pixels, whose rows are shifted by that."""
    pixels = np.random.default_rng(0).integers(0, 30, shape, dtype=np.uint8)  # many a 10
    pixels[pixels == 13] = 14
    most = 255 if shape != (40, 20, 2) else 65535
    plain = b"%s\n%d %d\n%d\n" % (kind.encode(), shape[1], shape[0], most) + pixels.tobytes()
    sent = plain.replace(b"\n", b"\r\n")
    (tmp_path / "plain.pgm").write_bytes(plain)
    (tmp_path / "sent.pgm").write_bytes(sent)
    assert len(sent) > len(plain) + 20
    wanted = decode(tmp_path / "plain.pgm", shape[1])
    assert np.array_equal(decode(tmp_path / "sent.pgm", shape[1]), wanted)
    (tmp_path / "head.pgm").write_bytes(sent[: sent.index(b"%d\r\n" % most)] + b"%d\r\n" % most + pixels.tobytes())
    assert np.array_equal(decode(tmp_path / "head.pgm", shape[1]), wanted)


def test_a_portable_map_whose_first_pixel_is_ten_stays(tmp_path):
    pixels = bytes([10, 13, 10, 200] * 4)
    for end in (b"\r", b"\n"):
        (tmp_path / "a.pgm").write_bytes(b"P5\r\n4 4\r\n255" + end + pixels)
        assert decode(tmp_path / "a.pgm", 4)[..., 0].ravel().tolist() == list(pixels)


@pytest.mark.parametrize(
    "content, name, message",
    [
        (tiff(np.full((4, 4), 0.5, np.float32), kind=3), "a.tif", "floating-point"),
        (b"Pf 2 2 -1.0\n" + bytes(16), "a.pnm", "floating-point"),
        (tiff(np.full((4, 4), -5, np.int16), kind=2), "a.tif", "outside the 16 bits"),
        (tiff(np.full((4, 4), 3_000_000_000, np.uint32)), "a.tif", "outside the 16 bits"),
    ],
)
def test_pixels_whose_range_is_unknown_are_refused(tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: cannot read the image: .*{message}"):
        decode(tmp_path / name, 8)


def test_print_colours_with_adobes_marker_are_not_inverted(tmp_path):
    inks = Image.merge("CMYK", [*Image.fromarray(255 - QUARTERS).split(), Image.new("L", (40, 40), 0)])
    assert corners(decode(save(inks, tmp_path / "cmyk.jpg", quality=95), 16)) == "rgbw"
    # YCCK: what is stored is the YCbCr of the inks' complement; transform 2 of Adobe's marker says so.
    stored = Image.fromarray(255 - QUARTERS).convert("YCbCr").split()
    planes = [Image.fromarray(255 - np.asarray(plane)) for plane in stored] + [Image.new("L", (40, 40), 0)]
    content = bytearray(save(Image.merge("CMYK", planes), tmp_path / "ycck.jpg", quality=95, subsampling=0).read_bytes())
    content[content.index(b"Adobe") + 11] = 2
    (tmp_path / "ycck.jpg").write_bytes(content)
    assert corners(decode(tmp_path / "ycck.jpg", 16)) == "rgbw"


@pytest.mark.parametrize(
    "image, name, options",
    [
        (Image.new("LA", (9, 9), (50, 0)), "a.png", {}),
        (Image.new("L", (9, 9), 100), "a.png", {"transparency": 100}),
        (Image.new("RGB", (9, 9), (1, 2, 3)), "a.png", {"transparency": (1, 2, 3)}),
        (Image.new("1", (9, 9), 0), "a.png", {"transparency": 0}),
        (Image.new("P", (9, 9), 0), "a.png", {"transparency": bytes([0, 255])}),
        (Image.new("P", (9, 9), 0), "a.gif", {"transparency": 0}),
        (Image.new("RGBA", (9, 9), (9, 9, 9, 0)), "a.webp", {"lossless": True}),
        (Image.new("RGBA", (9, 9), (9, 9, 9, 0)), "a.tif", {}),
    ],
)
def test_transparency_of_every_kind_is_laid_on_white(tmp_path, image, name, options):
    assert (decode(save(image, tmp_path / name, **options), 8) == 255).all()


def test_half_transparency_mixes_with_white(tmp_path):
    array = decode(save(Image.new("LA", (9, 9), (100, 128)), tmp_path / "a.png"), 8)
    assert np.abs(array - (100 * 128 + 255 * 127) / 255).max() <= 1


@pytest.mark.parametrize("name, options", [("a.png", {}), ("a.tif", {}), ("a.bmp", {})])
def test_one_bit_is_black_and_white(tmp_path, name, options):
    image = Image.fromarray(np.kron(np.array([[True, False], [False, True]]), np.ones((20, 20), bool)))
    assert corners(decode(save(image, tmp_path / name, **options), 16)) == "wkkw"


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_codes_are_refused_because_their_damage_cannot_be_seen(tmp_path, compression):
    path = save(Image.new("1", (40, 40), 1), tmp_path / "a.tif", compression=compression)
    with pytest.raises(ValueError, match=f"a.tif: .*coded as a fax .{compression}.*save it as PNG"):
        decode(path, 8)


def test_jpegs_in_a_tiff_are_as_large_as_it_says(tmp_path):
    path = save(PICTURE.resize((64, 64)), tmp_path / "a.tif", compression="jpeg", quality=95)
    assert corners(decode(path, 16)) == "rgbw"
    content, width = path.read_bytes(), struct.pack("<HHII", 256, 4, 1, 64)
    width = width if width in content else struct.pack("<HHIHH", 256, 3, 1, 64, 0)
    path.write_bytes(content.replace(width, width[:8] + struct.pack("<I", 640)))
    with pytest.raises(ValueError, match="a.tif: .*its JPEG data has 64×64 pixels where 640×64 are announced"):
        decode(path, 16)


def test_a_colour_profile_is_passed_over(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        plain, tagged = save(PICTURE, tmp_path / name), save(PICTURE, tmp_path / f"icc_{name}", icc_profile=profile)
        assert profile in tagged.read_bytes() or name == "a.png"  # PNG compresses it
        assert np.array_equal(decode(plain, 16), decode(tagged, 16))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.bmp", "a.gif", "a.ppm"])
def test_one_pixel_and_long_strips(tmp_path, name):
    colour = (9, 80, 7)
    sizes = [(1, 1), (1, 50), (20, 16_000), (16_000, 20)] if "webp" in name else [(1, 1), (1, 50), (20, 20_000), (20_000, 20)]
    for size in sizes:
        array = decode(save(Image.new("RGB", size, colour), tmp_path / name, **EXACT.get(name[2:], {})), 8)
        assert np.abs(array.astype(int) - colour).max() <= 2


def test_a_strip_keeps_its_middle(tmp_path):
    pixels = np.zeros((20, 20_000), np.uint8)
    pixels[:, 9_990:10_010] = 255
    assert (decode(save(Image.fromarray(pixels), tmp_path / "a.png"), 8)[1:-1, 1:-1] == 255).all()
    assert (decode(save(Image.fromarray(pixels.T), tmp_path / "b.png"), 8)[1:-1, 1:-1] == 255).all()


def bomb(kind):
    """(name, content, what the message says) of a small file that claims, or unpacks to, something huge."""
    if kind == "png":
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
        return "a.png", b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""), "bomb"
    if kind == "limit":  # between our limit and Pillow's error, where it only warns
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 11_000, 11_000, 8, 2, 0, 0, 0))
        return "a.png", b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "11000×11000 pixels are more"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a"
        if kind == "gif":
            content = bytearray(save(RED, file, format="GIF").read_bytes())
            content[6:10] = b"\xff" * 4
            return "a.gif", bytes(content), "bomb"
        if kind == "webp":
            content = bytearray(save(RED, file, format="WEBP", save_all=True, append_images=[PICTURE]).read_bytes())
            canvas = content.index(b"VP8X") + 12
            content[canvas : canvas + 6] = struct.pack("<I", 16_382)[:3] * 2
            return "a.webp", bytes(content), "bomb"
        if kind == "tiff":
            large = save(Image.new("1", (8_100, 8_100)), file, format="TIFF", compression="tiff_deflate")
            return "a.tif", large.read_bytes(), "8100×8100"
        if kind == "ppm":
            return "a.ppm", b"P6 99999999 99999999 255\n" + bytes(9), "bomb"
        if kind == "short":
            return "a.ppm", b"P6 7900 7900 255\n" + bytes(9), "truncated"
        if kind == "scans":
            content = save(Image.new("L", (64, 64), 77), file, format="JPEG", progressive=True).read_bytes()
            last = content[content.rindex(b"\xff\xda") : -2]
            return "a.jpg", content[:-2] + last * 200 + content[-2:], "a progressive JPEG of 206 scans"


@pytest.mark.parametrize("kind", ["png", "limit", "gif", "webp", "tiff", "ppm", "short", "scans"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path, kind):
    name, content, message = bomb(kind)
    (tmp_path / name).write_bytes(content)
    assert len(content) < 30_000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=f"{name}: cannot read the image: .*{message}"):
            decode(tmp_path / name, 8)


def test_large_pictures_are_turned_to_rgb_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 100)
    at_work, most = [], []

    def watched(image, white_is_zero, plain=module._to_rgb):
        at_work.append(1)
        most.append(len(at_work))
        read = plain(image, white_is_zero)
        at_work.pop()
        return read

    monkeypatch.setattr(module, "_to_rgb", watched)
    monkeypatch.setattr(module, "CHUNK", 1)
    decode_all([save(PICTURE, tmp_path / f"{i}.png") for i in range(30)], 8)
    assert max(most) == 1 and len(most) == 30


NAMES = [
    "Zoë Ångström.png",
    unicodedata.normalize("NFD", "Zoë Ångström 2.png"),
    "面.png",
    "two\nlines.png",
    "100% #1 'it' \"is\".png",
    " blank .png",
    "a;b,c\td.png",
    "x" * 200 + ".png",
    "UPPER.PNG",
    "-rf.png",
    "*?[a].png",
]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_names_may_hold_any_sign(tmp_path, make_image, ending):
    files = [f"{c}/{g}/{name}" for c in ("no", "yes") for g in ("bare", "hat #1 %") for name in NAMES]
    root = tmp_path / "faces"
    for number, file in enumerate(files):
        make_image(root / file, number)
    faces = load_faces("folder", root=root, split="all", image_size=8)
    assert faces.table["path"].tolist() == sorted(files) and faces.skipped == []
    assert faces.images[:, 0, 0, 0].tolist() == [files.index(path) for path in sorted(files)]
    sheet = tmp_path / f"t{ending}"
    table = pd.DataFrame({"path": files, "class": [f[0] for f in files], "group": [i % 2 for i in range(len(files))]})
    table.to_csv(sheet, index=False) if ending == ".csv" else table.to_parquet(sheet)
    listed = load_faces("table", root=sheet, images=root, target="class", protected="group", split="all", image_size=8)
    assert listed.table["path"].tolist() == files and listed.images[:, 0, 0, 0].tolist() == list(range(len(files)))


def test_accents_of_one_sign_or_of_two_are_the_same(tmp_path, make_image):
    """A Mac writes ë as e and two dots into file names, a spreadsheet as one sign into the table."""
    one, two = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    for number, path in enumerate([f"{two}/x/{two}.png", "Ann/x/1.png"]):
        make_image(tmp_path / "faces" / path, 50 + number)
    (tmp_path / "t.csv").write_text(f"path,hat\n{one}/x/{one}.png,{one}\nAnn/x/1.png,{two}\n", encoding="utf-8")
    folder = {"root": tmp_path / "faces", "levels": ("class", "group"), "attributes": tmp_path / "t.csv", "protected": "hat"}
    table = {"root": tmp_path / "t.csv", "images": tmp_path / "faces", "target": "hat", "protected": "hat"}
    for name, options in {"folder": folder, "table": table}.items():
        faces = load_faces(name, split="all", image_size=8, **options)
        assert faces.groups == (one,) and sorted(faces.images[:, 0, 0, 0].tolist()) == [50, 51]
    assert load_faces("folder", split="all", image_size=8, **folder).classes == ("Ann", one)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_name_that_is_no_text_is_named(tree, on_error):
    root = tree(*[f"{c}/x/{n}.png" for c in "ab" for n in range(2)])
    os.rename(os.fsencode(root / "a/x/1.png"), os.fsencode(root / "a/x") + b"/caf\xe9.png")
    if on_error == "raise":
        with pytest.raises(ValueError, match=r"root: .*a/x/caf\\udce9.png has a name that is no UTF-8"):
            load_faces("folder", root=root, split="all", image_size=8)
    else:
        faces = load_faces("folder", root=root, split="all", image_size=8, on_error="skip")
        assert len(faces) == 3 and [path for path, _ in faces.skipped] == [r"a/x/caf\udce9.png"]


SYSTEM = ["Thumbs.db", "desktop.ini", ".DS_Store", "._1.png", ".hidden.png", "__MACOSX/1.png"]


def test_what_operating_systems_leave_behind_is_no_image(tree):
    root = tree(*[f"{c}/x/{n}.png" for c in "ab" for n in range(2)], *[f"a/x/{name}" for name in SYSTEM], *SYSTEM)
    faces = load_faces("folder", root=root, split="all", image_size=8)
    assert len(faces) == 4
    assert sorted(path for path, _ in faces.skipped) == ["Thumbs.db", "a/x/Thumbs.db", "a/x/desktop.ini", "desktop.ini"]


def test_links_in_circles_pipes_and_dangling_links_are_named_once(tree):
    root = tree(*[f"{c}/x/{n}.png" for c in "ab" for n in range(2)])
    (root / "a" / "x" / "self.png").symlink_to("self.png")
    (root / "a" / "x" / "nowhere.png").symlink_to("absent.png")
    (root / "a" / "x" / "up").symlink_to("..")
    (root / "a" / "x" / "circle").symlink_to("circle")
    os.mkfifo(root / "a" / "x" / "pipe.png")
    sheet = root / "sheet.csv"
    sheet.write_text("path,hat\n" + "".join(f"{c}/x/{n}.png,1\n" for c in "ab" for n in ("0", "1", "self", "nowhere", "pipe")))
    for options in ({}, {"attributes": sheet}):
        faces = load_faces("folder", root=root, split="all", image_size=8, on_error="skip", levels=("class", "group"), **options)
        listed = [path for path, _ in faces.skipped if path != "sheet.csv"]
        assert len(faces) == 4 and sorted(listed) == [f"a/x/{n}" for n in ("circle", "nowhere.png", "pipe.png", "self.png")]
        with pytest.raises(FileNotFoundError, match="a/x/nowhere.png: no such image file"):
            load_faces("folder", root=root, split="all", image_size=8, levels=("class", "group"), **options)


@pytest.fixture
def stranger():
    """A folder that an ordinary user may enter, and that user's rights: root may read everything."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        Image.new("RGB", (9, 9)).save(Path(place) / "warm.png")
        decode(Path(place) / "warm.png", 8)  # imports what Pillow needs while it may
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        yield Path(place)
        os.seteuid(before)


def test_what_may_not_be_read_is_named(stranger):
    for kind in ("a/x", "b/x", "b/locked"):
        (stranger / "faces" / kind).mkdir(parents=True)
        for i in range(2):
            save(PICTURE, stranger / "faces" / kind / f"{i}.png")
    shut, locked = stranger / "faces/a/x/0.png", stranger / "faces/b/locked"
    shut.chmod(0)
    locked.chmod(0)
    try:
        for path in (shut, locked / "0.png"):
            with pytest.raises(ValueError, match=f"{path}: cannot read the image: .*Permission denied"):
                decode(path, 8)
        with pytest.raises(ValueError, match="faces/b/locked may not be read"):
            load_faces("folder", root=stranger / "faces", split="all", image_size=8)
        faces = load_faces("folder", root=stranger / "faces", split="all", image_size=8, on_error="skip")
        assert faces.table["path"].tolist() == ["a/x/1.png", "b/x/0.png", "b/x/1.png"]
        reasons = dict(faces.skipped)
        assert set(reasons) == {"a/x/0.png", "b/locked"} and all("ermission denied" in reason for reason in reasons.values())
    finally:
        locked.chmod(0o700)


@pytest.mark.parametrize("path", ["x" * 300 + ".png", "a\0b.png", "\udcff.png"])
def test_names_that_no_file_can_have_are_no_such_file(tmp_path, path):
    with pytest.raises(FileNotFoundError, match="no such image file"):
        decode(tmp_path / path, 8)


def layout(name, root):
    """The folder of images and the paths in it, of a small data set as `name` lays it out, with its lists but without images."""
    n = 16
    if name == "folder":
        return root, [f"{c}/{g}/{i}.jpg" for c in "ab" for g in "xy" for i in range(n // 4)]
    if name == "table":
        paths = [f"p/{i}.jpg" for i in range(n)]
        (root / "t.csv").write_text("path,a,b\n" + "".join(f"{path},{i % 2},{i // 2 % 2}\n" for i, path in enumerate(paths)))
        return root, paths
    if name == "celeba":
        paths = [f"{i + 1:06}.jpg" for i in range(n)]
        rows = [f"{path} {(1, -1)[i % 2]} {(1, -1)[i // 2 % 2]}" for i, path in enumerate(paths)]
        (root / "list_attr_celeba.txt").write_text(f"{n}\nSmiling Male\n" + "\n".join(rows))
        return root / "img_align_celeba", paths
    if name == "fairface":
        for part in ("train", "val"):
            rows = [f"{part}/{i}.jpg,20-29,{('Male', 'Female')[i % 2]},White,True\n" for i in range(n // 2)]
            (root / f"fairface_label_{part}.csv").write_text("file,age,gender,race,service_test\n" + "".join(rows))
        return root, [f"{part}/{i}.jpg" for part in ("train", "val") for i in range(n // 2)]
    if name == "utkface":
        return root, [f"{20 + i}_{i % 2}_{i % 5}_2017011617252{i:04}.jpg.chip.jpg" for i in range(n)]
    if name == "lfw":
        rows = [f"Ann B{i}\t1\t{(1, -1)[i % 2]}.5\t{(1, -1)[i // 2 % 2]}.5\n" for i in range(n)]
        (root / "lfw_attributes.txt").write_text("# LFW\n#\tperson\timagenum\tMale\tSmiling\n" + "".join(rows))
        return root / "lfw", [f"Ann_B{i}/Ann_B{i}_0001.jpg" for i in range(n)]
    if name == "bfw":
        subgroups = [f"{e}_{g}" for e in ("asian", "black", "indian", "white") for g in ("females", "males")]
        return root, [f"{subgroup}/n{i}/0010_01.jpg" for subgroup in subgroups for i in range(2)]
    return root, [f"s{person}/{photo}.pgm" for person in range(1, 41) for photo in range(1, 11)]


def hard_files(folder):
    """What is written over the first images of a data set: name of the case, content, and whether it can be read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    good = {
        "grey": (PICTURE.convert("L"), "JPEG", {}),
        "print colours": (PICTURE.convert("CMYK"), "JPEG", {}),
        "progressive": (PICTURE, "JPEG", {"progressive": True}),
        "turned": (PICTURE, "JPEG", {"exif": exif.tobytes()}),
        "palette, animated, mislabelled": (PICTURE, "GIF", {"save_all": True, "append_images": [RED]}),
        "transparent, mislabelled": (PICTURE.convert("RGBA"), "PNG", {}),
        "16 bits, mislabelled": (Image.fromarray(RAMP), "PNG", {}),
        "one pixel": (RED.resize((1, 1)), "PNG", {}),
        "strip": (RED.resize((20_000, 20)), "JPEG", {}),
    }
    cases = []
    for case, (image, kind, options) in good.items():
        cases.append((case, save(image, folder / "made", format=kind, **options).read_bytes(), True))
    whole = save(PICTURE.resize((200, 200)), folder / "made", format="PNG").read_bytes()
    bad = {"empty": b"", "truncated": whole[: len(whole) // 2], "no picture": b"<html>"}
    bad |= {kind: bomb(kind)[1] for kind in ("png", "scans")}
    return cases + [(case, content, False) for case, content in bad.items()]


@pytest.mark.parametrize("name", ["folder", "table", "celeba", "fairface", "utkface", "lfw", "bfw", "orl"])
def test_every_data_set_reads_hard_pictures_and_names_bad_ones_once(tmp_path, name):
    (tmp_path / "root").mkdir()
    folder, paths = layout(name, tmp_path / "root")
    cases = hard_files(tmp_path)
    plain = save(RED, tmp_path / "plain.png").read_bytes()
    for i, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(cases[i][1] if i < len(cases) else plain)
    options = {"root": tmp_path / "root" / ("t.csv" if name == "table" else ""), "split": "all", "image_size": 16}
    options |= {"target": "a", "protected": "b"} if name == "table" else {}
    faces = load_faces(name, on_error="skip", **options)
    readable = [path for i, path in enumerate(paths) if i >= len(cases) or cases[i][2]]
    assert sorted(faces.table["path"]) == sorted(readable)
    assert sorted(path for path, _ in faces.skipped) == sorted(set(paths) - set(readable))
    assert all((faces.images[i] == decode(folder / path, 16)).all() for i, path in enumerate(faces.table["path"]))
    seen = dict(zip(faces.table["path"], map(corners, faces.images), strict=True))
    told = {case: seen.get(path) for (case, _, _), path in zip(cases, paths, strict=False)}
    assert told["turned"] == "brwg"
    assert told["progressive"] == told["print colours"] == told["transparent, mislabelled"] == "rgbw"
    with pytest.raises(ValueError, match="cannot read the image|is empty") as caught:
        load_faces(name, **options)
    assert any(path in str(caught.value) for path in set(paths) - set(readable))
