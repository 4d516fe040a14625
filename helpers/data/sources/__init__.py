"""One file a data set; importing a file registers its data set for `load_faces`."""

from helpers.data.sources import bfw, folder, illustrated, orl, table

__all__ = ["bfw", "folder", "illustrated", "orl", "table"]
