"""Where renders, downloads and trained models are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """The cache folder, made if it is missing.

    It is `$CANDOR_CACHE`, else `data/cache` of the checkout, else of the working folder.

    Parameters
    ----------
    *parts : str, sub-folders

    Returns
    -------
    Path to an existing folder.
    """
    checkout = Path(__file__).resolve().parents[2]
    home = checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()
    folder = Path(os.environ.get("CANDOR_CACHE", home / "data" / "cache")).joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
