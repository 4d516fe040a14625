"""Audit: groups, gaps with intervals, and a threshold that moves them all."""

from __future__ import annotations

import ipywidgets as w

from helpers.explorer.sentences import interval, picture, readable, table, text


class AuditTab:
    """Gaps and rates at a threshold; every position of the slider is a look-up in a table made once."""

    title = "Audit"

    def __init__(self, page):
        self.page = page
        self.threshold = w.FloatSlider(
            value=0.5, min=0, max=1, step=0.01, description="Decision threshold", readout_format=".2f",
            layout=w.Layout(width="32em"), style={"description_width": "initial"},
        )  # fmt: skip
        self.reset = w.Button(description="Back to 0.5", tooltip="Set the decision threshold back to 0.5")
        self.said, self.gaps, self.rates, self.all = (w.HTML() for _ in range(4))
        self.widget = w.VBox([self.said, w.HBox([self.threshold, self.reset]), w.HBox([self.gaps, self.rates]), self.all])
        for box in (self.widget.children[1], self.widget.children[2]):
            box.layout.flex_flow = "row wrap"
        self.threshold.observe(lambda change: self.page.guard(self.moved), "value")
        self.reset.on_click(lambda button: setattr(self.threshold, "value", 0.5))

    def show(self) -> None:
        """All of it, for what is open now."""
        state = self.page.state
        faces = state.faces
        self.said.value = text(
            f"{len(faces):,} faces of {faces.name} ({faces.split}); groups: "
            + ", ".join(f"{name} ({int((faces.group == code).sum())})" for code, name in enumerate(faces.groups))
            + "."
        )
        self.threshold.disabled = self.reset.disabled = not state.binary
        self.moved()
        if state.binary:
            from helpers.plots import scores

            draw = lambda: picture(lambda table=state.sweep: scores.sweep(table, "equalized_odds", threshold=None))
            self.page.jobs.run("sweep", draw, self.swept)  # beneath the fold, so that the gaps need not wait for it
        else:
            self.all.value = text("With three classes or more the likeliest one is decided on, so that there is no threshold.")

    def swept(self, drawn: str) -> None:
        self.all.value = f"<h3>All thresholds at once</h3>{drawn}"

    def moved(self) -> None:
        """The gaps and rates at the slider's place."""
        from helpers.plots import bias

        state, at = self.page.state, self.threshold.value
        gaps, rates = gap_table(state, at), rate_table(state, at)
        self.gaps.value = picture(lambda: bias.gaps(gaps), dpi=80)
        self.rates.value = table(rates, f"Rates by group at the threshold {at:.2f}" if state.binary else "Rates by group")


def gap_table(state, threshold: float):
    """`statistic, difference, difference_low, difference_high` at a threshold, as `helpers.plots.bias.gaps` takes it."""
    if not state.binary:
        return state.audit().gaps
    rows = state.at(threshold)
    names = {"value": "difference", "low": "difference_low", "high": "difference_high"}
    return rows[rows["kind"] == "gap"].rename(columns=names)


def rate_table(state, threshold: float):
    """One row a rate, one column a group, for people."""
    if state.binary:
        rows = state.at(threshold)
        rows = rows[rows["kind"] == "group"]
    else:
        rows = state.audit().by_group
        rows = rows[rows["class"].isin(("macro", "all"))]
    rows = rows.assign(shown=[interval(*cell) for cell in rows[["value", "low", "high"]].to_numpy(float)])
    wide = rows.pivot_table("shown", "statistic", "group", aggfunc="first", sort=False).reset_index()
    wide["statistic"] = wide["statistic"].map(readable)
    return wide.rename(columns={"statistic": "rate"})
