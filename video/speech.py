"""Speech: sentences to sound, by Festival with the voice "slt" of Carnegie Mellon University (HTS)."""

from __future__ import annotations

import re
import subprocess
import wave
from pathlib import Path

import numpy as np

RATE = 32_000  # of the voice, samples a second
VOICE = "cmu_us_slt_arctic_hts"
SLOWER = 1.12  # durations of its sounds: numbers need a little time
QUIET = 10 ** (-45 / 20)  # of full scale: below it there is no speech
FRAME = RATE // 100  # 10 ms

# what the synthesiser would say otherwise: by rule, then by word
RULES = {r"(\d)\s*%": r"\1 percent", r"(?<=\d),(?=\d{3})": "", r"[−–]": "-", r"\s*×\s*": " by ", r"[“”\"]": ""}
WORDS = {
    "FINETUNE": "fine tune",
    "LEACE": "lease",
    "DFR": "D F R",
    "Candor": "candour",
    "ResNet": "rez net",
}


def spoken(sentence: str) -> str:
    """A sentence as the synthesiser is to read it."""
    for pattern, replacement in RULES.items():
        sentence = re.sub(pattern, replacement, sentence)
    for word, sound in WORDS.items():
        sentence = re.sub(rf"\b{word}\b", sound, sentence)
    return sentence


def say(sentences: list[str], folder: Path) -> list[np.ndarray]:
    """Each sentence as sound, float32 (samples,) in [-1, 1] at `RATE`, without silence around it.

    One process speaks them all, since loading the voice takes longer than a sentence. The same sentence gives the same sound.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:03}.wav" for index in range(len(sentences))]
    script = [f"(voice_{VOICE})", f"(Parameter.set 'Duration_Stretch {SLOWER})"]
    for sentence, path in zip(sentences, paths, strict=True):
        text = spoken(sentence).replace("\\", " ").replace('"', " ")
        script.append(f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{path}")')
    done = subprocess.run(["festival", "--pipe"], input="\n".join(script), capture_output=True, text=True)
    missing = [sentence for sentence, path in zip(sentences, paths, strict=True) if not path.exists()]
    if done.returncode or missing:
        raise RuntimeError(f"festival did not say {missing[:1]}: {done.stderr.strip()[-300:]}")
    return [trimmed(load(path)) for path in paths]


def load(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"{path}: not {RATE} Hz, one channel, 16 bit")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def trimmed(sound: np.ndarray) -> np.ndarray:
    """The sound from its first to its last frame that is loud enough to be speech."""
    loud = np.flatnonzero(loudness(sound, FRAME) > QUIET)
    if not len(loud):
        raise ValueError("speech: a sentence is silent")
    return sound[loud[0] * FRAME : (loud[-1] + 1) * FRAME]


def loudness(sound: np.ndarray, frame: int) -> np.ndarray:
    """Root mean square of each frame of `frame` samples, (frames,); an incomplete last frame is left out."""
    whole = sound[: len(sound) // frame * frame].reshape(-1, frame).astype(np.float64)
    return np.sqrt((whole**2).mean(1))


def save(sound: np.ndarray, path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(sound, -1, 1) * 32767).round().astype("<i2").tobytes())
