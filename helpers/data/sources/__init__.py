"""One file a data set; importing a file registers its data set for `load_faces`."""

from helpers.data.sources import bfw, celeba, fairface, folder, illustrated, lfw, orl, table, utkface

__all__ = ["bfw", "celeba", "fairface", "folder", "illustrated", "lfw", "orl", "table", "utkface"]
