"""Decoded once, read ever after: the same bytes as without a cache, whatever happens on the way."""

import errno
import gc
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

import helpers
from helpers.__main__ import remembered
from helpers.data import decode, load_faces, store
from helpers.data.base import FaceDataset
from helpers.data.decode import decode_all
from helpers.data.store import ABOUT, PIXELS, PROGRESS, Unwritable, open_faces
from helpers.data.stored import BLOCK, Stored
from helpers.models import predict, resume
from helpers.plots import faces as plots

N, SIZE = 300, 8  # five blocks of 64 files, the last one short
fork = multiprocessing.get_context("fork")


@pytest.fixture
def photos(tmp_path):
    """A folder of N small pictures that all differ, and their names."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{i:03}.png" for i in range(N)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(folder / name)
    return folder, names


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cache"


def plainly(folder, names, **options):
    return decode_all([folder / name for name in names], SIZE, **options)


def home_of(place):
    (home,) = [entry for entry in place.iterdir() if entry.is_dir()]
    return home


def described(home):
    about = json.loads((home / ABOUT).read_text())
    del about["changed"]  # when it was written
    return about


def damage(file, position):
    """Flip one bit, a while after the file was written."""
    time.sleep(0.02)  # longer than the clock of the file system ticks
    with file.open("r+b") as out:
        out.seek(position)
        byte = out.read(1)[0]
        out.seek(position)
        out.write(bytes([byte ^ 4]))


@pytest.fixture
def counted(monkeypatch):
    """The paths that are decoded from now on."""
    seen, real = [], decode.decode

    def spy(path, image_size):
        seen.append(os.path.basename(path))
        return real(path, image_size)

    monkeypatch.setattr(decode, "decode", spy)
    return seen


def test_pixels_are_those_of_the_files_and_are_decoded_once(photos, place, counted):
    plain, _, _ = plainly(*photos)
    counted.clear()
    images, kept, failed = open_faces(*photos, SIZE, place)
    assert np.array_equal(np.asarray(images), plain) and kept.tolist() == list(range(N)) and failed == []
    assert sorted(counted) == photos[1]
    assert sorted(os.listdir(home_of(place))) == [ABOUT, PIXELS]
    assert (home_of(place) / PIXELS).read_bytes() == plain.tobytes()
    again, _, _ = open_faces(*photos, SIZE, place)
    assert np.array_equal(np.asarray(again), plain) and len(counted) == N
    store.verify(again)


index = st.one_of(
    st.integers(-7, 6),
    st.slices(7),
    st.lists(st.integers(-7, 6), max_size=9),
    st.lists(st.integers(-7, 6), min_size=1, max_size=9).map(np.array),
    st.lists(st.booleans(), min_size=7, max_size=7).map(np.array),
    st.just(np.array([[0, 3], [6, 2]])),
    st.just(Ellipsis),
    st.tuples(st.one_of(st.integers(-7, 6), st.slices(7), st.lists(st.integers(-7, 6), min_size=1, max_size=4)), st.slices(5)),
    st.tuples(st.lists(st.integers(0, 6), min_size=2, max_size=2), st.just([1, 4])),
    st.tuples(st.slices(7), st.integers(0, 4), st.just([0, 2]), st.integers(0, 2)),
    st.tuples(st.integers(0, 6), st.slices(5), st.just([0, 2]), st.just([1, 1])),
    st.tuples(st.just(slice(None)), st.integers(0, 4), st.slices(6), st.just(2)),
    st.tuples(st.slices(7), st.just(Ellipsis), st.just(0)),
    st.tuples(st.just(Ellipsis), st.just(1)),
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    images = np.random.default_rng(1).integers(0, 256, (12, 5, 6, 3), dtype=np.uint8)
    file = tmp_path_factory.mktemp("raw") / "pixels"
    file.write_bytes(images.tobytes())
    return images, file


@given(index, st.booleans())
@settings(max_examples=300)
def test_any_index_gives_what_an_array_gives(raw, index, chosen):
    rows = np.array([4, 5, 6, 11, 0, 4, 2])
    whole, file = raw
    images = Stored(file, whole.shape, rows) if chosen else Stored(file, whole.shape).select(np.arange(7))
    expected = (whole[rows] if chosen else whole[:7])[index]
    found = images[index]
    assert found.shape == expected.shape and found.dtype == np.uint8 and np.array_equal(found, expected)


def test_it_stands_for_an_array(raw):
    whole, file = raw
    images = Stored(file, whole.shape)
    assert (images.shape, images.dtype, images.ndim, images.nbytes, len(images)) == (whole.shape, np.uint8, 4, whole.nbytes, 12)
    assert np.array_equal(np.stack(list(images)), whole) and np.array_equal(np.array(images, dtype=float), whole)
    np.testing.assert_array_equal(np.mean(images, axis=(0, 3)), whole.mean((0, 3)))
    assert resume.fingerprint(images) == resume.fingerprint(whole) != resume.fingerprint(images.select(np.arange(11)))
    assert np.array_equal(np.concatenate(list(images.blocks(5))), whole)
    images[2][:] = 0  # what is read is a copy
    assert np.array_equal(np.asarray(images), whole)
    for wrong in (12, -13, [0, 12], np.ones(5, bool), 1.5, "a"):
        with pytest.raises(IndexError, match="index"):
            images[wrong]


def test_without_reads_at_a_place_as_on_windows_the_same_is_read(tmp_path, monkeypatch):
    array = np.random.default_rng(1).integers(0, 256, (40, 5, 7, 3), dtype=np.uint8)
    array.tofile(tmp_path / "raw")
    monkeypatch.delattr(os, "preadv", raising=False)
    images = Stored(tmp_path / "raw", array.shape)
    rows = [np.random.default_rng(seed).integers(0, 40, 30) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for wanted, read in zip(rows, pool.map(images.__getitem__, rows), strict=True):
            assert (read == array[wanted]).all()


def test_one_channel_of_many_images_is_read_in_blocks(tmp_path):
    whole = np.random.default_rng(2).integers(0, 256, (2 * BLOCK + 5, 2, 2, 3), dtype=np.uint8)
    (tmp_path / "pixels").write_bytes(whole.tobytes())
    images = Stored(tmp_path / "pixels", whole.shape)
    assert np.array_equal(images[:, 1, 0, 2], whole[:, 1, 0, 2])
    assert np.array_equal(images[::-1, 1], whole[::-1, 1])
    assert resume.fingerprint(images, [1]) == resume.fingerprint(whole, [1])


@pytest.mark.parametrize("size", [0, 1079, 1081])
def test_a_file_of_another_size_is_refused(tmp_path, size):
    (tmp_path / "pixels").write_bytes(bytes(size))
    with pytest.raises(ValueError, match=f"has {size} bytes, not 1080; load the faces again"):
        Stored(tmp_path / "pixels", (12, 5, 6, 3))[0]


def test_a_file_cut_off_while_it_is_read_is_told_and_its_descriptor_given_back(raw, tmp_path):
    whole, _ = raw
    (tmp_path / "pixels").write_bytes(whole.tobytes())
    images = Stored(tmp_path / "pixels", whole.shape)
    part = images.select(np.array([11, 0]))
    images[0], part[1]
    later = images.select(np.array([3]))
    del images
    assert np.array_equal(later[0], whole[3])  # the file is open as long as someone needs it
    os.truncate(tmp_path / "pixels", 200)
    with pytest.raises(ValueError, match="was cut off while it was read; load the faces again"):
        later[0]
    del later, part
    gc.collect()
    if os.path.isdir("/proc/self/fd"):
        opened = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        assert os.path.realpath(tmp_path / "pixels") not in opened


def data_set(photos, images, kept):
    table = pd.DataFrame({"smiling": [i % 2 == 0 for i in kept], "age": [["old", "young", "middle"][i % 3] for i in kept]})
    return FaceDataset(images, table, target="smiling", protected="age")


def test_a_data_set_is_the_same_from_the_cache(photos, place):
    plain = data_set(photos, *plainly(*photos)[:2])
    cached = data_set(photos, *open_faces(*photos, SIZE, place)[:2])
    assert cached.image_size == SIZE and repr(cached) == repr(plain)
    for shuffle in (False, True):
        for one, other in zip(plain.loader(32, shuffle, seed=5), cached.loader(32, shuffle, seed=5), strict=True):
            for left, right in zip(one, other, strict=True):
                assert torch.equal(left, right) and left.stride() == right.stride()
    mask = np.arange(N) % 7 == 3
    for rows in (slice(290, 2, -9), [5, 5, -1], mask):
        part = cached.subset(rows)
        assert isinstance(part.images, Stored) and np.array_equal(part.images[:], plain.subset(rows).images)
        assert isinstance(part.subset([0]).images, Stored) and torch.equal(part.subset([0])[0][0], plain.subset(rows)[0][0])
    assert cached.relabel(target="age").images is cached.images


def test_the_other_verbs_take_faces_from_the_cache(photos, place):
    """Training (with its checkpoint), prediction, mitigation and figures give what they give for faces in memory."""
    results = []
    for images in (plainly(*photos)[0], open_faces(*photos, SIZE, place)[0]):
        faces = data_set(photos, images, np.arange(N)).subset(slice(0, 192))
        checkpoint = place / "run.pt"
        checkpoint.unlink(missing_ok=True)
        model = helpers.train(faces, epochs=1, batch_size=32, progress=False, checkpoint=checkpoint)
        seen = predict(model, faces)
        audit = helpers.audit(seen.y_true, seen.y_pred, seen.group, groups=faces.groups)
        fixed = helpers.debias(model, faces, "NT")["NT"].get_all_metrics()
        figure = plots.mean_faces(faces, "group")
        means = [axes.images[0].get_array() for axes in figure.axes if axes.images]
        shown = plots.grid(faces.images[3:7]).axes[0].images[0].get_array()
        results.append((list(model.state_dict().values()), seen.logits, audit.to_markdown(), fixed, means, shown))
    plain, cached = results
    assert all(map(torch.equal, plain[0], cached[0])) and np.array_equal(plain[1], cached[1])
    assert plain[2] == cached[2] and repr(plain[3]) == repr(cached[3])
    assert np.array_equal(plain[4], cached[4]) and np.array_equal(plain[5], cached[5])


def test_a_model_does_not_remember_where_its_faces_were_cached():
    wanted = {"root": "photos", "option": {"cache": "/somewhere", "on_error": "skip"}}
    assert remembered(wanted) == {"option": {"on_error": "skip"}}


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_open_the_file_anew(photos, place, start):
    faces = data_set(photos, *open_faces(*photos, SIZE, place)[:2])
    first = faces[0][0]  # the file is open in this process
    loader = DataLoader(faces, batch_size=100, num_workers=2 if start == "fork" else 1, multiprocessing_context=start)
    images = torch.cat([batch[0] for batch in loader])
    assert torch.equal(images[0], first) and torch.equal(images, faces[:][0])


def test_what_is_pickled_is_the_way_to_the_file(photos, place):
    images, _, _ = open_faces(*photos, SIZE, place)
    images[0]
    text = pickle.dumps(images)
    assert len(text) < 1000 and np.array_equal(pickle.loads(text)[5:9], images[5:9])


def test_another_side_or_changed_added_and_removed_files_are_another_cache(photos, place):
    folder, names = photos
    open_faces(folder, names, SIZE, place)

    def caches(names=names, size=SIZE):
        images, _, _ = open_faces(folder, names, size, place)
        assert np.array_equal(np.asarray(images), decode_all([folder / name for name in names], size)[0])
        return sum(entry.is_dir() for entry in place.iterdir())

    assert caches() == 1
    assert caches(size=SIZE + 1) == 2
    assert caches(names[:-1]) == 3
    assert caches(names[::-1]) == 4
    os.utime(folder / names[7], ns=(1, 1))
    assert caches() == 5
    Image.new("RGB", (9, 9), "red").save(folder / names[7])
    os.utime(folder / names[7], ns=(1, 1))
    assert caches() == 6


def test_folders_that_differ_in_content_only_are_not_taken_for_each_other(tmp_path, place):
    names = [f"{i}.bmp" for i in range(3)]
    for grey, folder in ((10, tmp_path / "a"), (20, tmp_path / "b")):
        folder.mkdir()
        for name in names:
            Image.new("RGB", (9, 9), (grey, grey, grey)).save(folder / name)
            os.utime(folder / name, (0, 0))
    for grey, folder in ((10, tmp_path / "a"), (20, tmp_path / "b")):
        assert (np.asarray(open_faces(folder, names, SIZE, place)[0]) == grey).all()


def test_a_moved_folder_keeps_its_cache(photos, place, counted):
    folder, names = photos
    open_faces(folder, names, SIZE, place)
    folder.rename(folder.with_name("moved"))
    counted.clear()
    open_faces(folder.with_name("moved"), names, SIZE, place)
    assert counted == []


def slowly(folder, names, place, log=None):
    """Make the cache in this (forked) process, a millisecond a file; count the files in `log`."""
    real = decode.decode

    def slow(path, image_size):
        time.sleep(0.001)
        if log:
            with open(log, "a") as out:
                out.write("x")
        return real(path, image_size)

    decode.decode = slow
    open_faces(folder, names, SIZE, place)


@pytest.mark.parametrize("lines", [0, 1, 2, 4])
def test_after_a_kill_it_goes_on_and_ends_with_the_same_bytes(photos, place, tmp_path, lines, counted):
    """Killed with SIGKILL when `lines` of the five blocks were written, and once more, at any moment, on the second try."""
    undisturbed = tmp_path / "undisturbed"
    open_faces(*photos, SIZE, undisturbed)
    written = lambda: (home_of(place) / PROGRESS).read_text().count("\n") if list(place.glob(f"*/{PROGRESS}")) else -1
    process = fork.Process(target=slowly, args=(*photos, place))
    process.start()
    while written() < lines:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -9 and not (home_of(place) / ABOUT).exists()
    before = written()
    second = fork.Process(target=slowly, args=(*photos, place))
    second.start()
    time.sleep(0.03)
    second.kill()
    second.join()
    assert written() >= before  # nothing is lost that was done
    counted.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an interrupted run is not a damaged one
        images, _, _ = open_faces(*photos, SIZE, place)
    assert len(counted) <= N - 64 * min(before, 4)
    assert np.array_equal(np.asarray(images), plainly(*photos)[0])
    assert (home_of(place) / PIXELS).read_bytes() == (home_of(undisturbed) / PIXELS).read_bytes()
    assert described(home_of(place)) == described(home_of(undisturbed)) and not (home_of(place) / PROGRESS).exists()


def test_a_line_of_progress_cut_anywhere_makes_no_row_taken_for_done(photos, place):
    """The pixels of what the line tells are wiped, so that a block wrongly taken for done would show."""
    plain = plainly(*photos)[0]
    open_faces(*photos, SIZE, place)
    home = home_of(place)
    blocks = described(home)["blocks"]
    lines = "".join(json.dumps([b, digest, []]) + "\n" for b, digest in enumerate(blocks))
    for cut in (0, 1, 30, len(lines) // 2, len(lines) - 2):
        (home / ABOUT).unlink()
        whole = lines[:cut].count("\n")  # the lines that are whole
        (home / PROGRESS).write_text(lines[:cut])
        (home / PIXELS).write_bytes(plain.tobytes()[: whole * 64 * SIZE * SIZE * 3])
        assert np.array_equal(np.asarray(open_faces(*photos, SIZE, place)[0]), plain)


def test_two_processes_make_it_once(photos, place, tmp_path):
    log = tmp_path / "decoded"
    processes = [fork.Process(target=slowly, args=(*photos, place, log)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0] and len(log.read_text()) == N
    assert np.array_equal(np.asarray(open_faces(*photos, SIZE, place)[0]), plainly(*photos)[0])


@given(position=st.integers(0, N * SIZE * SIZE * 3 - 1))
@settings(max_examples=5)
def test_a_damaged_byte_is_found_and_its_block_decoded_again(tmp_path_factory, position):
    top = tmp_path_factory.mktemp("damage")
    (top / "photos").mkdir()
    names = [f"{i}.png" for i in range(N)]
    Image.new("RGB", (9, 9), (1, 2, 3)).save(top / "photos" / names[0])
    for name in names[1:]:
        shutil.copy(top / "photos" / names[0], top / "photos" / name)
    images, _, _ = open_faces(top / "photos", names, SIZE, top)
    plain = np.asarray(images)
    damage(images.path, position)
    with pytest.raises(ValueError, match="1 of 5 blocks of .* are damaged; remove it and load the faces again"):
        store.verify(images)
    with pytest.warns(UserWarning, match="1 of 5 blocks in .* are damaged and are decoded again"):
        again, _, _ = open_faces(top / "photos", names, SIZE, top)
    assert np.array_equal(np.asarray(again), plain)
    store.verify(again)


def test_damage_that_leaves_the_time_is_found_by_verify(photos, place):
    images, _, _ = open_faces(*photos, SIZE, place)
    before = images.path.stat()
    damage(images.path, 1000)
    os.utime(images.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ValueError, match="damaged"):
        store.verify(open_faces(*photos, SIZE, place)[0])


@pytest.mark.parametrize("wrong", ["shorter", "longer", "gone", "about", "about gone", "touched"])
def test_a_cache_that_is_not_what_was_written_is_repaired(photos, place, wrong, counted):
    plain = plainly(*photos)[0]
    open_faces(*photos, SIZE, place)
    home = home_of(place)
    if wrong == "gone":
        (home / PIXELS).unlink()
    elif wrong == "about":
        (home / ABOUT).write_text((home / ABOUT).read_text().replace('"failed": []', '"failed": [[3, ": no"]]'))
    elif wrong == "about gone":
        (home / ABOUT).unlink()
    elif wrong == "touched":
        os.utime(home / PIXELS, ns=(7, 7))
    else:
        os.truncate(home / PIXELS, plain.nbytes + (-5000 if wrong == "shorter" else 9))
    counted.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images, _, failed = open_faces(*photos, SIZE, place)
    assert np.array_equal(np.asarray(images), plain) and failed == []
    least = {"shorter": 1, "longer": 0, "touched": 0}.get(wrong)
    assert len(counted) == N if least is None else len(counted) <= least * 2 * 64
    counted.clear()
    open_faces(*photos, SIZE, place)
    assert counted == []


def test_files_that_cannot_be_read_are_told_as_without_a_cache(photos, place):
    folder, names = photos
    (folder / names[3]).write_bytes(b"no picture")
    (folder / names[200]).unlink()
    plain = plainly(folder, names, on_error="skip")
    for _ in range(2):
        images, kept, failed = open_faces(folder, names, SIZE, place, on_error="skip")
        assert np.array_equal(np.asarray(images), plain[0]) and np.array_equal(kept, plain[1]) and failed == plain[2]
        assert len(images) == N - 2 and [i for i, _ in failed] == [3, 200]
    for wrong, error in (([3], ValueError), ([200], FileNotFoundError)):
        with pytest.raises(error, match='on_error="skip" leaves such files out'):
            open_faces(folder, [names[i] for i in (*range(3), *wrong)], SIZE, place)
    with pytest.raises(ValueError, match='003.png: cannot read.*on_error="skip"'):
        open_faces(folder, names, SIZE, place)  # from a cache made with "skip"
    with pytest.raises(ValueError, match="none of the 1 image files can be read; the first: .*003.png"):
        open_faces(folder, names[3:4], SIZE, place, on_error="skip")


def test_an_error_leaves_what_was_done_for_the_next_call(photos, place, counted):
    folder, names = photos
    (folder / names[-1]).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=names[-1]):
        open_faces(folder, names, SIZE, place)
    done = (home_of(place) / PROGRESS).read_text().count("\n")
    counted.clear()
    open_faces(folder, names, SIZE, place, on_error="skip")
    assert done >= 1 and len(counted) <= N - 64 * done


def test_a_file_that_can_be_read_after_all_is_taken_in(photos, place, monkeypatch):
    """As when its permissions change, which leaves size and time."""
    folder, names = photos
    real = decode.decode

    def forbidden(path, image_size):
        if os.path.basename(path) == names[70]:
            raise ValueError(f"{path}: cannot read the image: Permission denied")
        return real(path, image_size)

    for module in (decode, store):
        monkeypatch.setattr(module, "decode", forbidden)
    assert open_faces(folder, names, SIZE, place, on_error="skip")[2] == [
        (70, f"{folder / names[70]}: cannot read the image: Permission denied")
    ]
    for module in (decode, store):
        monkeypatch.setattr(module, "decode", real)
    images, kept, failed = open_faces(folder, names, SIZE, place, on_error="skip")
    assert failed == [] and np.array_equal(np.asarray(images), plainly(folder, names)[0])


def test_a_full_disk_is_told_before_the_work(photos, place, monkeypatch, counted):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(Unwritable, match="cache: .* has 1 MB free, but 0 MB are to be written and 50 to be left.*cache=False"):
        open_faces(*photos, SIZE, place)
    assert counted == []


def limited(folder, names, place, answer):
    """Make the cache where no file may grow beyond two and a half blocks, as on a disk that fills up."""
    limit = int(2.5 * 64 * SIZE * SIZE * 3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        open_faces(folder, names, SIZE, place)
    except ValueError as error:
        answer.put((type(error).__name__, str(error)))


def test_a_disk_that_fills_up_leaves_what_was_done(photos, place, monkeypatch):
    answer = fork.Queue()
    process = fork.Process(target=limited, args=(*photos, place, answer))
    process.start()
    kind, message = answer.get(timeout=60)
    process.join()
    assert kind == "Unwritable" and "make room" in message and os.strerror(errno.EFBIG) in message
    assert np.array_equal(np.asarray(open_faces(*photos, SIZE, place)[0]), plainly(*photos)[0])


def test_a_place_that_takes_no_files_is_told_and_auto_does_without(photos, tmp_path, monkeypatch):
    folder, names = photos
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(Unwritable, match="cache: cannot write .*give another folder, or cache=False"):
        open_faces(folder, names, SIZE, blocked)
    monkeypatch.setenv("CANDOR_CACHE", str(blocked / "cache"))
    monkeypatch.setattr(store, "FROM_IMAGES", N)
    pd.DataFrame({"path": names, "a": [0, 1] * (N // 2), "b": [0, 1, 2] * (N // 3)}).to_csv(folder / "faces.csv", index=False)
    asked = {"root": folder / "faces.csv", "target": "a", "protected": "b", "split": "all", "image_size": SIZE}
    with pytest.raises(ValueError, match="cache: cannot make .*cache=False"):
        load_faces("table", **asked, cache=True)
    with pytest.warns(UserWarning, match="cannot make .*held in memory this time"):
        faces = load_faces("table", **asked)
    assert np.array_equal(faces.images, plainly(folder, names)[0])


def test_large_data_sets_go_to_the_cache_by_themselves(photos, place, monkeypatch):
    folder, names = photos
    monkeypatch.setenv("CANDOR_CACHE", str(place))
    pd.DataFrame({"path": names, "a": [0, 1] * (N // 2), "b": [0, 1, 2] * (N // 3)}).to_csv(folder / "faces.csv", index=False)
    asked = {"root": folder / "faces.csv", "target": "a", "protected": "b", "split": "all", "image_size": SIZE}
    plain = load_faces("table", **asked)
    assert isinstance(plain.images, np.ndarray) and not place.exists()
    assert isinstance(load_faces("table", **asked, cache=True).images, Stored)
    assert load_faces("table", **asked, cache=str(place / "mine")).images.path.is_relative_to(place / "mine")
    for name, value in (("FROM_IMAGES", N), ("FROM_BYTES", plain.images.nbytes)):
        with monkeypatch.context() as changed:
            changed.setattr(store, name, value)
            cached = load_faces("table", **asked)
            assert isinstance(cached.images, Stored) and np.array_equal(np.asarray(cached.images), plain.images)
            assert isinstance(load_faces("table", **asked, cache=False).images, np.ndarray)
    for wrong in (3, None, ""):
        with pytest.raises(ValueError, match='cache: expected "auto", True, False or a folder'):
            load_faces("table", **asked, cache=wrong)


@pytest.mark.parametrize("name", ["bfw", "celeba", "fairface", "folder", "lfw", "orl", "table", "utkface"])
def test_every_source_of_photographs_takes_the_option(name):
    from inspect import signature

    assert signature(helpers.data.SOURCES[name]).parameters["cache"].default == "auto"


def test_photographs_are_the_same_from_the_cache(place):
    plain, cached = (load_faces("orl", split="test", image_size=16, cache=cache) for cache in (False, place))
    assert np.array_equal(plain.images, cached.images) and plain.table.equals(cached.table)
