"""Getting a data set: download it where that is allowed, else say what to request where and where to put it."""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from helpers.data.cache import cache_dir
from helpers.data.decode import printable
from helpers.names import choose

BLOCK = 1 << 18
LONGEST_NAME = 240  # bytes; file systems take 255, and .part is appended
TRIES = 5  # in a row that bring next to nothing
ENOUGH = 1 << 16  # bytes that a connection must bring to count as progress
SLOWEST = 1000  # bytes a second, below which a connection counts as stalled
WORTH_ANOTHER_TRY = (408, 429, 500, 502, 503, 504)
DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)  # another try changes nothing
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


@dataclass(frozen=True)
class File:
    """A file that may be downloaded: where it is, its SHA-256, and what is there once it has been put in its place."""

    name: str
    url: str
    sha256: str
    gives: str


@dataclass(frozen=True)
class Offer:
    """How to come by a data set.

    Attributes
    ----------
    page : where its authors describe it
    licence : its terms, in short; the page has the last word
    files : what may be downloaded directly
    steps : what is left to do by hand, and where things go; `{root}` is the folder
    """

    page: str
    licence: str
    steps: str
    files: tuple[File, ...] = ()


# Addresses and checksums of LFW are those in scikit-learn's sklearn/datasets/_lfw.py, of the copy that it maintains.
OFFERS: dict[str, Offer] = {
    "bfw": Offer(
        page="https://github.com/visionjo/facerec-bias-bfw",
        licence="on request, under its authors' terms; the photographs are from VGGFace2",
        steps="Fill in the form linked at {page}, and unpack what you are sent so that there is "
        "{root}/bfw-cropped-aligned/asian_females/n000009/0010_01.jpg, and for verification {root}/bfw-<version>-datatable.csv.",
    ),
    "celeba": Offer(
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        licence="for non-commercial research only, under the agreement on its page; it is not to be passed on",
        steps="Read the agreement at {page} and follow its links to img_align_celeba.zip, list_attr_celeba.txt, "
        "list_eval_partition.txt and identity_CelebA.txt. Unpack and lay them so that there is "
        "{root}/img_align_celeba/000001.jpg and the three lists in {root}.",
    ),
    "fairface": Offer(
        page="https://github.com/joojs/fairface",
        licence="CC BY 4.0",
        steps="Follow the links at {page} to the images (padding 0.25) and the labels of train and validation. Unpack and lay "
        "them so that there is {root}/train/1.jpg, {root}/val/1.jpg, {root}/fairface_label_train.csv and "
        "{root}/fairface_label_val.csv.",
    ),
    "utkface": Offer(
        page="https://susanqq.github.io/UTKFace/",
        licence="for non-commercial research only; the rights in the photographs stay with their owners",
        steps="Follow the links at {page} to the aligned and cropped faces (UTKFace.tar.gz), and unpack them so that there is "
        "{root}/UTKFace/1_0_0_20161219140623097.jpg.chip.jpg.",
    ),
    "lfw": Offer(
        page="http://vis-www.cs.umass.edu/lfw/",
        licence="published for research in face verification; the rights in the photographs, taken from news on the web, stay "
        "with their owners",
        steps="The attributes are published by Columbia University, without a checksum: put "
        "http://www.cs.columbia.edu/CAVE/databases/pubfig/download/lfw_attributes.txt at {root}/lfw_attributes.txt.",
        files=(
            File(
                "lfw.tgz",
                "https://ndownloader.figshare.com/files/5976018",
                "055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
                "lfw",
            ),
            File(
                "pairs.txt",
                "https://ndownloader.figshare.com/files/5976006",
                "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
                "pairs.txt",
            ),
        ),
    ),
}


def fetch(
    name: str,
    root: str | Path | None = None,
    *,
    accept_licence: bool = False,
    url: str | None = None,
    sha256: str | None = None,
    progress: bool = True,
    say: Callable[[str], None] = print,
    **options,
) -> bool:
    """Download a data set to `root`, or tell how to get it.

    The licence is told first; nothing is downloaded unless it is accepted. What is there already stays. An interrupted
    download goes on where it stopped. Nothing is kept whose checksum differs, and nothing unpacked that would leave `root`.

    Parameters
    ----------
    name : a key of `OFFERS`
    root : folder; None: `data/cache/<name>`
    accept_licence : whether you have read the terms and accept them
    url, sha256 : a link that you were given, such as on request, and the SHA-256 of the file behind it (64 hexadecimal
        digits); both or none
    progress : show a bar
    say : takes the lines of text
    **options : `tries`, `timeout` and `pause` of `download`

    Returns
    -------
    bool, whether everything that can be downloaded is there

    Raises
    ------
    ValueError : unknown name, one of url and sha256 without the other, a checksum that differs, an archive with a path
        outside of it.
    ConnectionError : the server cannot be reached, refuses, or breaks off again and again.
    """
    offer = OFFERS[choose(name, OFFERS, "name")]
    name = name.casefold()
    if (url is None) != (sha256 is None):
        raise ValueError("url, sha256: give both, the link and the SHA-256 of the file behind it, or neither")
    folder = cache_dir() / name if root is None else Path(root).expanduser()
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(f"root: {folder} is a file; give a folder")
    say(f"{name}: {offer.page}\nLicence: {offer.licence}.")
    files = offer.files
    if url is not None:
        file_name = PurePosixPath(unquote(urlsplit(url).path)).name
        if file_name in ("", "..") or "\\" in file_name or not file_name.isprintable():
            raise ValueError(f"url: {url!r} does not end in the name of a file")
        if len(os.fsencode(file_name)) > LONGEST_NAME:
            raise ValueError(f"url: the name of its file has more than {LONGEST_NAME} bytes: {file_name}")
        files = (File(file_name, url, sha256, "" if _is_archive(file_name) else file_name),)
    steps = offer.steps.format(page=offer.page, root=folder)
    if not files:
        say(f"Nothing is downloaded for you. {steps}\nA link that you were sent: --url LINK --sha256 CHECKSUM.")
        return False
    if not accept_licence:
        say("Nothing is downloaded unless you accept these terms: --accept-licence.")
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"root: the folder {folder} cannot be made ({error.strerror})") from None
    for file in files:
        if file.gives and (folder / file.gives).exists():
            say(f"{folder / file.gives} is there already.")
            continue
        got = download(file.url, folder / file.name, file.sha256, progress=progress, **options)
        if _is_archive(file.name):
            say(f"Unpacked {', '.join(unpack(got, folder))} to {folder}.")
            got.unlink()
        else:
            say(f"Saved {got}.")
    if url is None:
        say(steps)
    return True


def download(
    url: str,
    file: str | Path,
    sha256: str,
    *,
    tries: int = TRIES,
    timeout: float = 30,
    pause: float = 1,
    progress: bool = True,
) -> Path:
    """Download one file; a broken-off download is continued, in this call or a later one.

    What has come so far lies in `<file>.part`. The file appears under its name only with the right checksum. If a continued
    download has the wrong one, it is begun anew once: the file may have been replaced between the two parts.

    Parameters
    ----------
    url : http or https
    file : where it goes
    sha256 : 64 hexadecimal digits
    tries : how often in a row the server may break off after less than 64 KiB
    timeout : seconds without a byte, or with less than 1,000 bytes a second, after which a connection counts as stalled
    pause : seconds before the first new try, doubled each time

    Returns
    -------
    Path of the file

    Raises
    ------
    ValueError : another kind of address, no checksum, or a file with another one; it is removed.
    ConnectionError : as said.
    """
    file, sha256 = Path(file), str(sha256).strip().lower()
    _check_address(url)
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"sha256: expected 64 hexadecimal digits, got {sha256!r}")
    if file.is_file() and checksum(file) == sha256:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    for last in (False, True):
        continued = part.is_file() and part.stat().st_size > 0
        continued |= _receive(url, part, tries, timeout, pause, progress)
        found = checksum(part)
        if found == sha256:
            os.replace(part, file)
            return file
        part.unlink()
        if last or not continued:
            raise ValueError(
                f"sha256: {url} sent a file with {found}, not {sha256}; it was changed, damaged or cut off, and is not kept"
            )
    raise AssertionError("unreachable")


def _check_address(url: str) -> None:
    """What no try will reach is said before the first one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # the port is read when it is asked for
    except ValueError as error:
        raise ValueError(f"url: {url!r} is no address ({error})") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"url: expected http://… or https://…, got {url!r}")
    if "@" in parts.netloc:
        raise ValueError("url: names and passwords in an address are not sent; ask for a link without them")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"url: {url!r} holds blanks or signs beyond ASCII; write them as %20 and the like")


def checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _receive(url: str, part: Path, tries: int, timeout: float, pause: float, progress: bool) -> bool:
    """Fill `part` to its end; whether that took more than one connection."""
    failed, several = 0, False
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _connect(url, part, timeout, progress)
            return several
        except HTTPError as error:
            if error.code not in WORTH_ANOTHER_TRY:
                raise ConnectionError(f"{url}: the server answers {error.code} {error.reason}") from None
            reason = f"the server answers {error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            if getattr(error, "errno", None) in DISK:
                raise
            reason = str(getattr(error, "reason", None) or error) or type(error).__name__
        several = True
        now = part.stat().st_size if part.is_file() else 0
        failed = 0 if now - before >= ENOUGH else failed + 1
        if failed >= tries:
            raise ConnectionError(
                f"{url}: {reason}; {now:,} bytes have come and are kept. The same command goes on from there"
            )
        time.sleep(min(pause * 2**failed, 60))


def _connect(url: str, part: Path, timeout: float, progress: bool) -> None:
    """One connection: append to `part` what is missing, or begin anew where the server cannot continue."""
    have = part.stat().st_size if part.is_file() else 0
    request = Request(url, headers={"User-Agent": "candor-workbench", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        answer = urlopen(request, timeout=timeout)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
            return  # it had come whole
        part.unlink()  # longer than the file: it is of another one
        raise ConnectionError("the server has less than what had come") from None
    with answer:
        start, total = _extent(answer, have)
        room = shutil.disk_usage(part.parent).free
        if total is not None and total - start > room:
            raise ValueError(f"root: {url} has {total:,} bytes, and there is room for {room:,} at {part.parent}")
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, unit_divisor=1024, desc=part.stem, disable=not progress
        )
        with part.open("ab" if start else "wb") as out, bar:
            since, from_byte = time.monotonic(), start
            while block := answer.read1(BLOCK):
                out.write(block)
                bar.update(len(block))
                end, passed = out.tell(), time.monotonic() - since
                if passed > timeout:
                    if end - from_byte < SLOWEST * passed:
                        raise TimeoutError(f"{end - from_byte:,} bytes in {passed:.1f} s are a stalled connection")
                    since, from_byte = time.monotonic(), end
            end = out.tell()
    if total is not None and end < total:
        raise ConnectionError(f"the connection broke off at {end:,} of {total:,} bytes")


def _extent(answer, have: int) -> tuple[int, int | None]:
    """Where the answer begins in the file, and the file's length if it is told."""
    length = answer.headers.get("Content-Length")
    if answer.status != 206:
        return 0, int(length) if length and length.isdigit() else None
    unit, _, extent = answer.headers.get("Content-Range", "").strip().partition(" ")
    span, _, total = extent.partition("/")
    if unit != "bytes" or not span.startswith(f"{have}-"):
        raise ConnectionError(f"the server was asked to go on at byte {have:,} and sends {extent or 'something else'!r}")
    return have, int(total) if total.isdigit() else None


def _is_archive(name: str) -> bool:
    return name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


def unpack(archive: str | Path, folder: str | Path) -> list[str]:
    """Unpack a zip or tar archive into a folder, whole or not at all.

    Returns
    -------
    The names that are new in `folder`.

    Raises
    ------
    ValueError : the archive is damaged or empty, has a path or link that leaves it or a special file, takes more room than
        there is, or has a name that is in `folder` already.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as place:
        try:
            if zipfile.is_zipfile(archive):
                _unzip(archive, Path(place))
            else:
                _untar(archive, Path(place))
        except DAMAGED as error:
            raise ValueError(f"{archive}: cannot be unpacked ({error})") from error
        names = sorted(name for name in os.listdir(place) if name != "__MACOSX")
        if not names:
            raise ValueError(f"{archive}: the archive is empty")
        there = [name for name in names if (folder / name).exists()]
        if there:
            raise ValueError(f"{archive}: {folder} has {there[0]} already; move it away to unpack it anew")
        for name in names:
            os.replace(Path(place) / name, folder / name)
    return [printable(name) for name in names]


def _untar(archive: Path, place: Path) -> None:
    try:
        opened = tarfile.open(archive)
    except tarfile.ReadError:  # its own words tell what each of four methods met, on four lines
        raise ValueError(f"{archive}: is neither a zip nor a tar archive, or it is cut off") from None
    with opened as tar:
        members = tar.getmembers()
        _check_room(archive, place, sum(member.size for member in members))
        tar.extractall(place, members, filter="data")  # refuses absolute paths, `..`, links that lead out, and devices


def _unzip(archive: Path, place: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        _check_room(archive, place, sum(member.file_size for member in members))
        for member in members:
            path = PurePosixPath(member.filename)
            # zipfile itself would quietly drop `..` and a leading slash, which hides that something is wrong.
            drive = path.parts[0][1:2] == ":" if path.parts else False
            if path.is_absolute() or ".." in path.parts or "\\" in member.orig_filename or drive:
                raise ValueError(f"{archive}: {member.orig_filename!r} leads out of the archive; nothing is unpacked")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"{archive}: {member.filename!r} is a link; nothing is unpacked")
        packed.extractall(place)


def _check_room(archive: Path, place: Path, size: int) -> None:
    room = shutil.disk_usage(place).free
    if size > room:
        raise ValueError(f"{archive}: unpacked it takes {size:,} bytes, and there is room for {room:,}")
