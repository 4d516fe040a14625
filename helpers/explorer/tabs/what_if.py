"""What if: redraw a face, or cover a part of a photograph, and see score and map change."""

from __future__ import annotations

import ipywidgets as w

from helpers.explorer import panels
from helpers.explorer.sentences import face, readable, text

WHEN = ("as it was", "now")
METHODS = ("saliency", "gradient_input", "grad_cam", "layer_cam", "integrated_gradients")


class WhatIfTab:
    """One face, one control for each attribute it can be drawn with; photographs have a rectangle to place instead."""

    title = "What if"

    def __init__(self, page):
        self.page, self._quiet = page, False
        self.face = w.BoundedIntText(value=0, min=0, max=0, description="Face number", style={"description_width": "initial"})
        self.method = w.Dropdown(options=METHODS, description="Map by")
        self.back = w.Button(description="As it was", tooltip="Set everything back to how the face was")
        self.controls = w.HBox(layout=w.Layout(flex_flow="row wrap"))
        self.note, self.pair, self.maps = w.HTML(), w.HTML(), w.HTML()
        top = w.HBox([self.face, self.method, self.back], layout=w.Layout(flex_flow="row wrap"))
        self.widget = w.VBox([top, self.note, self.controls, self.pair, self.maps])
        self.face.observe(lambda change: self.page.guard(self.chosen), "value")
        self.method.observe(lambda change: self.page.guard(self.update), "value")
        self.back.on_click(lambda button: self.page.guard(self.chosen))

    def show(self) -> None:
        state = self.page.state
        self._quiet = True
        try:
            self.face.max = len(state.faces) - 1
            rows = state.rows("wrong", count=1) or [0]  # a face that the model gets wrong is the more instructive one
            self.face.value = rows[0]
        finally:
            self._quiet = False
        self.note.value = text(
            "Everything else in the picture stays exactly as it was."
            if state.drawn
            else "Photographs cannot be redrawn: nobody knows how this person would look otherwise. Cover a part instead."
        )
        self.chosen()

    def chosen(self) -> None:
        """Controls for a face, set to how it is."""
        if self._quiet:
            return
        state, row = self.page.state, self.face.value
        wide = {"description_width": "initial"}
        if state.drawn:
            controls = {
                name: w.Dropdown(
                    options=[(shown(value), value) for value in values], value=now, description=readable(name), style=wide
                )
                for name, (values, now) in state.drawable(row).items()
            }
        else:
            height, width = state.faces.images.shape[1:3]
            controls = {
                name: w.IntSlider(value=value, min=0, max=most, description=f"{name} (pixels)", style=wide)
                for name, value, most in (
                    ("top", height // 4, height - 1), ("left", width // 4, width - 1),
                    ("height", height // 5, height), ("width", width // 2, width),
                )
            }  # fmt: skip
        for each in controls.values():
            each.layout.width = "17em"
            each.observe(lambda change: self.page.guard(self.update), "value")
        self.values = controls
        self.controls.children = list(controls.values())
        self.update()

    def update(self) -> None:
        """Scores and maps of the face as it was and as it is now."""
        if self._quiet:
            return
        row, values = self.face.value, {name: each.value for name, each in self.values.items()}
        method = self.method.value
        self.page.jobs.run("what if", lambda: self.answer(row, values, method), self.done)

    def answer(self, row: int, values: dict, method: str) -> tuple[str, str, str]:
        state = self.page.state
        changed = state.redrawn(row, values) if state.drawn else state.covered(row, **values)
        before, after = changed.probabilities
        words = (
            f"The model gives {changed.asked} {before:.0%} as it was and {after:.0%} now: "
            + (f"the decision changes to {changed.decisions[1]}." if changed.flipped else "the decision stays.")
        )
        pair = "".join(
            f"<figure style='display:inline-block;margin:.3em 1em .3em 0'>{face(image, f'{state.label(row)}, {when}', 128)}"
            f"<figcaption>{when}: {changed.asked} {share:.1%}</figcaption></figure>"
            for image, when, share in zip(changed.images, WHEN, changed.probabilities, strict=True)
        )
        maps = state.maps_of(changed, method)
        label = [f"{readable(method)} for {changed.asked}"]
        return words, pair, panels.change(label, maps[:1], maps[1:], WHEN)

    def done(self, found: tuple[str, str, str]) -> None:
        words, self.pair.value, self.maps.value = found
        self.page.say(words)


def shown(value: object) -> str:
    """A value of an attribute in words."""
    return {True: "yes", False: "no"}.get(value, str(value))
