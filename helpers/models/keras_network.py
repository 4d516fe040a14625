"""A Keras network seen from PyTorch, with gradients: TensorFlow computes, PyTorch is told."""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from helpers.models.networks import limits, pick
from helpers.models.preprocessing import MIXING, resizing
from helpers.names import choose

LIBRARIES = ("keras", "tf_keras")  # Keras 3, and Keras 2, which reads what older versions wrote


def import_tensorflow() -> Any:
    """Import TensorFlow quietly, and have it take GPU memory as needed instead of all of it."""
    quiet = "tensorflow" not in sys.modules and "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    if quiet:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow
    finally:
        if quiet:
            del os.environ["TF_CPP_MIN_LOG_LEVEL"]
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        try:
            tensorflow.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow is already in use, and keeps what its user has set
            break
    return tensorflow


class KerasNetwork(nn.Module):
    """A Keras model that takes and gives tensors of PyTorch; its weights stay in TensorFlow, and copies share them."""

    opaque = True  # PyTorch sees no layers in it

    def __init__(self, model: Any, output: int | str | None = None):
        super().__init__()
        inputs = inputs_of(model)
        if len(inputs) != 1:
            names = ", ".join(each.name for each in inputs)
            raise ValueError(f"source: the Keras model has {len(inputs)} inputs ({names}); accepted are models of one")
        self.model, self.output = model, output
        self.shape = tuple(inputs[0].shape)
        last = getattr(getattr(model.layers[-1], "activation", None), "__name__", "") if len(model.outputs) == 1 else ""
        self.ends_with = last if last in ("softmax", "sigmoid") else None
        tensorflow = import_tensorflow()
        # compiled once for all batch sizes: step by step, a ResNet takes several times as long
        self.compiled = tensorflow.function(self.raw, reduce_retracing=True)
        self.compiled_slope = tensorflow.function(self.slope, reduce_retracing=True)

    def raw(self, batch: Any) -> Any:
        """TensorFlow's output, float32, of TensorFlow's batch."""
        import tensorflow

        names = list(getattr(self.model, "output_names", ()))
        return tensorflow.cast(pick(self.model(batch, training=False), self.output, names), "float32")

    def slope(self, batch: Any, weight: Any) -> Any:
        """The gradient of Σ weight × output with respect to the batch."""
        import tensorflow

        with tensorflow.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(batch)
            output = self.raw(batch)
        return tape.gradient(output, batch, output_gradients=weight, unconnected_gradients="zero")

    def forward(self, batch: Tensor) -> Tensor:
        return Taped.apply(batch, self)

    def __deepcopy__(self, memo: dict) -> KerasNetwork:
        return type(self)(self.model, self.output).train(self.training)

    def __reduce__(self):
        raise TypeError("a Keras network cannot be pickled; load it again where it is needed")


class Taped(torch.autograd.Function):
    """The network's output, with TensorFlow's gradient for the way back."""

    @staticmethod
    def forward(ctx, batch: Tensor, network: KerasNetwork) -> Tensor:
        ctx.network, ctx.batch = network, given(batch)
        return torch.from_numpy(np.array(network.compiled(ctx.batch))).to(batch)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, weight: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(np.array(ctx.network.compiled_slope(ctx.batch, given(weight)))).to(weight), None


def inputs_of(model: Any) -> list[Any]:
    """The inputs of a Keras model; ValueError for one that does not know them, or that TensorFlow does not run."""
    import keras

    if isinstance(model, keras.Model) and keras.config.backend() != "tensorflow":
        raise ValueError(f"source: Keras runs on {keras.config.backend()} here; accepted is KERAS_BACKEND=tensorflow")
    try:
        return list(model.inputs)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"source: the Keras {type(model).__name__} does not know its inputs; accepted is a functional or sequential model, "
            "such as keras.Sequential([keras.Input((H, W, 3)), model])"
        ) from error


def given(tensor: Tensor) -> Any:
    """A tensor of PyTorch as one of TensorFlow, float32."""
    import tensorflow

    return tensorflow.constant(tensor.detach().to("cpu", torch.float32).contiguous().numpy())


def load_keras(path: Path, custom_objects: Mapping[str, Any] | None) -> Any:
    """A Keras model from a file; nothing that the file holds is run as code.

    Raises
    ------
    ValueError : the file holds a Lambda layer (which is code), only weights, a class that Keras does not know, or is damaged.
    """
    config = config_of(path)
    if any(part.get("class_name") in ("Lambda", "__lambda__") for part in dicts(config)):
        raise ValueError(
            f"source: {path} has a Lambda layer, which is code that loading would run; load it yourself, if you trust it, with "
            "keras.models.load_model(…, safe_mode=False), and give the model instead of the file"
        )
    import_tensorflow()
    failures = []
    for name in LIBRARIES:
        if name == "tf_keras" and not is_plain(config):
            failures.append("tf_keras: not asked, since it would import what the file names")
            continue
        try:
            library = importlib.import_module(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return library.models.load_model(path, custom_objects=dict(custom_objects or {}), compile=False, safe_mode=True)
        except Exception as error:  # whatever a library raises for a file of another's
            failures.append(f"{name}: {' '.join(str(error).split())[:300]}")
    own = [n for n in unknown_classes(config) if n not in (custom_objects or {})]
    hint = f" Give classes of its own ({', '.join(own)}) as custom_objects={{name: class}}." if own else ""
    raise ValueError(f"source: {path} cannot be read.{hint} {'; '.join(failures)}")


def config_of(path: Path) -> Any:
    """The description of the network in a Keras file, as JSON data.

    Raises
    ------
    ValueError : the file is damaged, or holds weights without a description.
    """
    try:
        if path.suffix.casefold() == ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        import h5py

        with h5py.File(path) as file:
            config = file.attrs.get("model_config")
    except (OSError, KeyError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise ValueError(f"source: {path} is damaged or no Keras file ({str(error)[:200]})") from error
    if config is None:
        raise ValueError(f"source: {path} holds no network, perhaps weights alone; save the whole model with model.save")
    return json.loads(config)


def dicts(data: Any) -> Iterator[dict]:
    """Every dict inside JSON data."""
    if isinstance(data, dict):
        yield data
    for part in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from dicts(part)


def is_plain(config: Any) -> bool:
    """Whether a description names nothing but classes of Keras; Keras 2 would import any module that one names."""
    for part in dicts(config):
        module, name = part.get("module"), str(part.get("class_name"))
        if module is not None and (str(module).partition(".")[0] not in LIBRARIES or name == "function" or "." in name):
            return False
    return True


def unknown_classes(config: Any) -> list[str]:
    """Names of the layers in a description that Keras itself does not have."""
    import keras

    known = {*dir(keras.layers), "Model", "Functional", "Sequential", "InputLayer"}
    layers = [part for part in dicts(config) if "class_name" in part and "name" in (part.get("config") or {})]
    own = [part["class_name"] for part in layers if not str(part.get("module") or "").startswith("keras")]
    return list(dict.fromkeys(name for name in own if name not in known))


class Split(nn.Module):
    """A Keras network cut in two at one of its layers, whose output, as maps (N, C, h, w), PyTorch sees at `maps`."""

    def __init__(self, network: KerasNetwork, layer: str | None, channels_last: bool):
        super().__init__()
        self.shape, self.channels_last = network.shape, channels_last
        front, back, self.layer = halves(network.model, layer, network.output)
        self.front, self.maps, self.back = KerasNetwork(front), nn.Identity(), KerasNetwork(back)

    def forward(self, batch: Tensor) -> Tensor:
        found = self.front(batch)
        if not self.channels_last:
            return self.back(self.maps(found))
        return self.back(self.maps(found.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


def halves(model: Any, layer: str | None, output: int | str | None) -> tuple[Any, Any, str]:
    """A Keras model up to a layer and from there on, and the layer's name; None takes the last that puts out maps.

    Raises
    ------
    ValueError : no such layer, its output is no map (N, h, w, C), or some of the way from image to score leads past it.
    """
    library = importlib.import_module("tf_keras" if type(model).__module__.startswith("tf_keras") else "keras")
    maps = [each.name for each in model.layers if len(shape := shape_of(each)) == 4 and max(shape[1:3] or (1,)) != 1]
    if layer is not None:
        choose(layer, [each.name for each in model.layers], "layer")
        if layer not in maps:
            raise ValueError(f"layer: {layer!r} puts out no maps; layers of the Keras model that do: {', '.join(maps)}")
    end = pick(list(model.outputs), output, list(getattr(model, "output_names", ())))
    for name in [layer] if layer else reversed(maps):
        cut = model.get_layer(name).output
        try:
            return library.Model(model.inputs, cut), library.Model(cut, end), name
        except ValueError:  # Keras's word for a way that leads past the layer
            continue
    place = f"some of the way from image to score leads past {layer!r}" if layer else "the Keras model has no layer with maps"
    raise ValueError(f"layer: {place}; name a layer that all of it goes through, such as the sum at the end of a block")


def shape_of(layer: Any) -> tuple:
    """The shape of what a Keras layer puts out; () if it puts out several tensors, or its shape is not known."""
    try:
        return tuple(layer.output.shape)
    except (AttributeError, RuntimeError, ValueError):
        return ()


NATIVE: WeakKeyDictionary = WeakKeyDictionary()  # a model for Xplique each, since TensorFlow compiles for every new one


def native(foreign: nn.Module) -> Any:
    """A `Foreign` Keras model with its preprocessing as one Keras model: images (N, H, W, 3) to scores (N, classes).

    The scores are those of `helpers.attribution.score.Score`: of one logit z the columns (−z, z).
    """
    if foreign not in NATIVE:
        NATIVE[foreign] = scores_in_tensorflow(foreign)
    return NATIVE[foreign]


def scores_in_tensorflow(foreign: nn.Module) -> Any:
    tf = import_tensorflow()
    # single names, since a model that held on to `foreign` would keep it in `NATIVE` for ever
    network, preprocessing, outputs = foreign.network, foreign.preprocessing, foreign.outputs
    column, members = foreign.column, foreign.members
    mixing = tf.constant(MIXING[preprocessing.channels], tf.float32)
    mean, std = (tf.constant(values, tf.float32) for values in (preprocessing.mean, preprocessing.std))

    def resized(images: Any) -> Any:
        for axis, (equation, side) in enumerate(zip(("ih,nhwc->niwc", "jw,nhwc->nhjc"), preprocessing.size or (), strict=False)):
            if images.shape[1 + axis] != side:
                images = tf.einsum(equation, tf.constant(resizing(images.shape[1 + axis], side)), images)
        return images

    class Scores(tf.keras.Model):
        inputs, outputs = [network], [network]  # lists of its own, by whose identity Xplique tells models apart

        def call(self, images: Any) -> Any:
            batch = (tf.einsum("kc,nhwc->nhwk", mixing, resized(images)) * preprocessing.scale - mean) / std
            batch = tf.transpose(batch, (0, 3, 1, 2)) if preprocessing.layout == "NCHW" else batch
            raw = network.raw(batch)
            raw = tf.reshape(raw, (tf.shape(raw)[0], raw.shape[1]))
            raw = raw if column is None else raw[:, column : column + 1]
            if outputs == "probabilities":
                low, high = limits(raw.shape[1])
                raw = tf.clip_by_value(raw, low, high)
                raw = tf.math.log(raw) if raw.shape[1] != 1 else tf.math.log(raw) - tf.math.log1p(-raw)
            if members is not None:
                return tf.stack([tf.reduce_logsumexp(tf.gather(raw, numbers, axis=1), 1) for numbers in members], 1)
            return tf.concat([-raw, raw], 1) if raw.shape[1] == 1 else raw

    return Scores()
