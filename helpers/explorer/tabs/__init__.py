"""The tabs of the explorer. Each has a `widget`, and `show()` fills it from `page.state` when the visitor comes to it."""
