"""Maps written to disk chunk by chunk: the same maps, after any interruption, in bounded memory."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.attribution import attribute, evaluate, open_maps, stream
from helpers.attribution.stream import Maps, packed


@pytest.fixture
def pictures():
    return torch.rand(11, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def close(found, expected):
    """Within a two-thousandth of each map's largest modulus."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert (np.abs(found - expected).max((1, 2)) <= np.abs(expected).max((1, 2)) / 2000 + 1e-12).all()


KINDS = {
    "tensor": lambda pictures, path: pictures,
    "array": lambda pictures, path: pictures.numpy(),
    "mapped": lambda pictures, path: mapped(pictures, path),
    "data set of tuples": lambda pictures, path: TensorDataset(pictures, torch.arange(11)),
    "list": lambda pictures, path: list(pictures),
    "loader": lambda pictures, path: DataLoader(TensorDataset(pictures), batch_size=4),
    "loader of images": lambda pictures, path: DataLoader(list(pictures), batch_size=3),
}


def mapped(pictures, path):
    np.save(path, pictures.numpy())
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_those_of_one_call(cnn, pictures, tmp_path, kind):
    state = torch.get_rng_state()
    found = stream(cnn, KINDS[kind](pictures, tmp_path / "images.npy"), tmp_path / "maps.npy", method="saliency", chunk=5)
    close(found, attribute(cnn, pictures, method="saliency"))
    assert torch.equal(torch.get_rng_state(), state) and found.shape == (11, 16, 16) and len(found) == 11
    assert np.load(tmp_path / "maps.npy").dtype == np.float16 and np.abs(np.load(tmp_path / "maps.npy")).max() <= 1
    assert sorted(p.name for p in tmp_path.glob("maps*")) == ["maps.json", "maps.npy", "maps.scale.npy"]


@pytest.mark.parametrize(
    "method, options",
    [
        ("smoothgrad", {"samples": 3}),
        ("rise", {"samples": 4}),
        ("integrated_gradients", {"steps": 3, "baseline": torch.rand(11, 3, 16, 16), "target": torch.arange(11) % 3}),
        ("feature_ablation", {"segments": torch.arange(11 * 256).reshape(11, 16, 16) // 8, "target": 1}),
    ],
)
def test_images_keep_their_number_and_their_options(cnn, pictures, tmp_path, method, options):
    found = stream(cnn, pictures, tmp_path / "maps.npy", method=method, chunk=4, dtype="float32", **options)
    whole = attribute(cnn, pictures, method=method, **options).numpy()
    np.testing.assert_allclose(found[:], whole, rtol=1e-3, atol=1e-4 * np.abs(whole).max())
    about = open_maps(tmp_path / "maps.npy").about
    assert about["method"] == method and about["shape"] == [11, 3, 16, 16]


def test_noise_of_other_libraries_differs_between_chunks(cnn, pictures, tmp_path):
    same = pictures[:1].repeat(4, 1, 1, 1)
    found = stream(cnn, same, tmp_path / "maps.npy", 0, "smoothgrad", "captum", samples=2, chunk=2)
    assert not np.allclose(found[0], found[2])
    again = stream(cnn, same, tmp_path / "again.npy", 0, "smoothgrad", "captum", samples=2, chunk=2)
    assert np.array_equal(found[:], again[:])


class Failing(nn.Module):
    """Ends as a killed process would, after so many images; counts those that it has seen."""

    def __init__(self, inner, after):
        super().__init__()
        self.inner, self.after, self.seen = inner, after, 0

    def forward(self, x):
        if self.seen + len(x) > self.after:
            raise KeyboardInterrupt
        self.seen += len(x)
        return self.inner(x)


@pytest.mark.parametrize("kind", ["tensor", "loader"])
def test_an_interrupted_call_goes_on_where_it_stopped(cnn, pictures, tmp_path, kind):
    data = KINDS[kind](pictures, None)
    whole = stream(Failing(cnn, 1000), data, tmp_path / "whole.npy", method="smoothgrad", target=1, chunk=3, samples=2)
    model, call = Failing(cnn, 24), {"method": "smoothgrad", "target": 1, "chunk": 3, "samples": 2}
    with pytest.raises(KeyboardInterrupt):
        stream(model, data, tmp_path / "maps.npy", **call)
    assert json.loads((tmp_path / "maps.json").read_text())["done"] == 9  # of 7 passes a chunk
    assert not (tmp_path / "maps.npy").exists()
    with pytest.raises(ValueError, match="has 9 of 11 maps so far; call stream again"):
        open_maps(tmp_path / "maps.npy")
    with open(tmp_path / "maps.npy.part", "r+b") as file:  # the next chunk had begun to be written
        file.seek(-700, os.SEEK_END)
        file.write(b"x" * 300)
    model.after = model.seen + 5
    found = stream(model, data, tmp_path / "maps.npy", **call)
    assert np.array_equal(found[:], whole[:]) and not list(tmp_path.glob("*.part"))
    model.after = model.seen
    assert np.array_equal(stream(model, data, tmp_path / "maps.npy", **call)[:], whole[:])  # nothing left to do


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": "gradient_input"}, "method was 'saliency', is now 'gradient_input'"),
        ({"seed": 1}, "seed was 0, is now 1"),
        ({"target": 1}, "target was 0, is now 1"),
        ({"dtype": "float32"}, "dtype was 'float16'"),
        ({"absolute": False}, "options was {}, is now {'absolute': False}"),
        ({"images": torch.rand(11, 3, 16, 16)}, "first image was "),
        ({"images": torch.rand(12, 3, 16, 16)}, "shape was "),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(768, 2))}, "model was "),
    ],
)
def test_another_call_is_refused(cnn, pictures, tmp_path, change, message):
    call = {"model": cnn, "images": pictures, "path": tmp_path / "maps.npy", "target": 0, "method": "saliency"}
    before = stream(**call)[:]
    with pytest.raises(ValueError, match=f"holds maps of another call: .*{message}.*Give another path"):
        stream(**call | change)
    assert np.array_equal(open_maps(tmp_path / "maps.npy")[:], before)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"path": "maps.pt"}, "path: .*expected the ending .npy"),
        ({"path": "there.npy"}, "exists, and is not from stream"),
        ({"chunk": 0}, "chunk: 0; expected a whole number"),
        ({"dtype": "float8"}, "dtype: unknown name 'float8'"),
        ({"method": "salency"}, "Did you mean 'saliency'"),
        ({"step": 3}, "step"),
        ({"images": DataLoader(torch.rand(4, 3, 16, 16), shuffle=True)}, "images: a loader that shuffles"),
        ({"images": []}, "images: the list is empty"),
        ({"images": iter([])}, "images: list_iterator; expected"),
        ({"images": torch.full((2, 3, 16, 16), 2.0)}, "images: values from 2 to 2"),
        ({"target": [0] * 10}, r"target: shape \(10,\); expected one class code, or \(11,\)"),
        ({"target": [0] * 10 + [3]}, "target: class 3 is outside the model's classes 0 to 2"),
        ({"seed": 0.5}, "seed: 0.5 given"),
    ],
)
def test_bad_input_is_named(cnn, pictures, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    np.save("there.npy", np.zeros(3))
    with pytest.raises(ValueError, match=message):
        stream(**({"model": cnn, "images": pictures, "path": "maps.npy", "chunk": 5} | change))
    assert not list(tmp_path.glob("maps*")), "refused before any work"


def test_a_call_that_made_no_map_does_not_bar_the_next(cnn, pictures, tmp_path):
    call = {"images": pictures, "path": tmp_path / "maps.npy", "method": "smoothgrad", "chunk": 3}
    with pytest.raises(ValueError, match="samples: 0"):
        stream(cnn, samples=0, **call)
    close(stream(cnn, samples=2, seed=np.int64(1), **call), attribute(cnn, pictures, method="smoothgrad", samples=2, seed=1))


def test_a_full_disk_is_named_and_the_call_goes_on(cnn, pictures, tmp_path, monkeypatch):
    call, calls, sync = {"path": tmp_path / "maps.npy", "method": "saliency", "chunk": 4}, [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == 3:  # the maps of the second chunk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left.*the same call goes on.*maps.npy.part"):
        patch.setattr(os, "fsync", full)
        stream(cnn, pictures, **call)
    with pytest.raises(ValueError, match="has 4 of 11 maps"):
        open_maps(call["path"])
    close(stream(cnn, pictures, **call), attribute(cnn, pictures, method="saliency"))


def test_what_is_not_there_or_not_ours_is_not_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: there are no maps at"):
        open_maps(tmp_path / "maps.npy")
    np.save(tmp_path / "maps.npy", np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="does not say how maps were made"):
        open_maps(tmp_path / "maps.npy")


def test_maps_are_read_and_judged_piece_by_piece(cnn, pictures, tmp_path):
    maps = stream(cnn, pictures, tmp_path / "maps.npy", method="gradient_input", target=0)
    whole = np.asarray(maps)
    assert maps[3].dtype == np.float32 and np.array_equal(maps[3], whole[3])
    assert np.array_equal(maps[[5, 1]], whole[[5, 1]]) and np.array_equal(maps[2:7], whole[2:7])
    rows, parts = zip(*maps.chunks(4), strict=True)
    assert [(part.start, part.stop) for part in rows] == [(0, 4), (4, 8), (8, 11)]
    assert np.array_equal(np.concatenate(parts), whole)
    expected = evaluate(cnn, pictures, maps, 0, "deletion", steps=5).value
    found = [evaluate(cnn, pictures[which], part, 0, "deletion", steps=5).value for which, part in maps.chunks(4)]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-2)  # half precision makes ties
    with pytest.raises(TypeError, match="expected numbers of images only"):
        maps[0, 1]


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, (2, 3, 4), elements=numbers))
def test_half_precision_keeps_every_map_to_a_two_thousandth(maps):
    """Also maps whose values would overflow (above 65504) or vanish (below 6e-8) as they are."""
    values, scale = packed(maps, "float16")
    found = Maps(values, scale, {})[:]
    largest = np.abs(maps).max((1, 2), keepdims=True).astype(np.float64)
    assert values.dtype == np.float16 and np.isfinite(found).all()
    assert (np.abs(found.astype(np.float64) - maps) <= largest / 2000 + 1e-45).all()
    again = packed(found, "float16")
    assert np.array_equal(Maps(*again, {})[:], found)  # nothing is lost a second time


def test_what_is_not_finite_stays_so_and_harms_nothing_else():
    maps = np.array([[[np.nan, 1e9, -3e8]], [[np.inf, 0, 0]], [[0, 0, 0]]], dtype=np.float32)
    found = Maps(*packed(maps, "float16"), {})[:]
    np.testing.assert_allclose(found, maps, rtol=1e-3)


SCRIPT = """
import resource, sys, torch
from torch import nn
from helpers.attribution import stream

class Faces(torch.utils.data.Dataset):
    def __len__(self):
        return int(sys.argv[1])
    def __getitem__(self, i):
        return torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(i))

torch.set_num_threads(1)
model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(432, 2))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stream(model, Faces(), sys.argv[2], method="saliency", target=0)
print(peak() / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in other units")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """Ten times the images: 2,000 of them take 221 MB, their maps 37 MB."""
    peaks = []
    for count in (200, 2000):
        command = [sys.executable, "-c", SCRIPT, str(count), str(tmp_path / f"{count}.npy")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 60
