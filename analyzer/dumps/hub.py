"""Dumps in data sets of the Hugging Face Hub, by an address that the user writes: found through its fsspec file system,
pinned to a commit, fetched once into the hub's cache of assets. Nothing is sent but the requests for these files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from analyzer.errors import DumpError, UsageError

SCHEME = "hf://"
ADDRESS = re.compile(
    r"hf://(?P<repo>datasets/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+))(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?"
)
COMMIT = re.compile(r"[0-9a-f]{40}")


def addresses(text: str, wanted: Callable[[Path], bool]) -> list[str]:
    """The files at an address, each pinned to the commit that wrote it: of a folder, those `wanted`; of a pattern, its
    matches. Raises UsageError for an address of another kind, DumpError where nothing is there or it can't be asked."""
    found = _parsed(text)
    place = f"{found['repo']}{f'@{r}' if (r := found['revision']) else ''}/{found['path'] or ''}".rstrip("/")
    if COMMIT.fullmatch(r or "") and _kept(text).is_file():
        return [text]
    fs = _file_system(text)
    try:
        if any(c in place for c in "*?["):
            names = [n for n in sorted(fs.glob(place)) if fs.isfile(n)]
        elif fs.isdir(place):
            names = [n for n in sorted(fs.find(place)) if wanted(Path(n))]
        else:
            names = [place] if fs.exists(place) else []
        commits = [getattr(fs.info(n, expand_info=True).get("last_commit"), "oid", None) for n in names]
    except Exception as error:  # of whatever the client of the hub is built on
        raise _refused(text, error) from None
    if not names:
        raise DumpError(f"{text}: no dump there; check the name, the revision and the path on https://huggingface.co")
    return [_pinned(found["repo"], name, commit or r) for name, commit in zip(names, commits, strict=True)]


def fetched(address: str) -> Path:
    """The file at a pinned address, in the cache. Raises DumpError."""
    target, found = _kept(address), _parsed(address)
    if target.is_file() and COMMIT.fullmatch(found["revision"] or ""):
        return target
    part = target.with_name(f".{target.name}.part")
    fs = _file_system(address)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(address.removeprefix(SCHEME), str(part))
        part.replace(target)
    except Exception as error:  # as above, and of the disk
        raise _refused(address, error) from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _parsed(text: str) -> dict[str, Any]:
    found = ADDRESS.fullmatch(text)
    if found is None:
        raise UsageError(f"dump {text!r}: expected hf://datasets/OWNER/NAME/PATH, a revision as NAME@REVISION")
    return found.groupdict()


def _pinned(repo: str, name: str, revision: str | None) -> str:
    path = name.lstrip("/")[len(repo) :]
    path = path.partition("/")[2] if path.startswith("@") else path.lstrip("/")
    return f"{SCHEME}{repo}{f'@{revision}' if revision else ''}/{path}"


def _kept(address: str) -> Path:
    """Where a file lies in the cache: below a folder of the data set's name, which may name its source."""
    from huggingface_hub import cached_assets_path, constants

    found = _parsed(address)
    if ".." in PurePosixPath(found["path"] or "").parts:
        raise UsageError(f"dump {address!r}: a path in a data set has no '..'")
    space = f"datasets--{found['owner']}--{found['name']}"
    revision, cache = found["revision"] or "main", constants.HF_ASSETS_CACHE
    folder = cached_assets_path("reasoning-path-analyzer", space, revision, assets_dir=cache)
    return folder / found["name"] / (found["path"] or "")


def _file_system(text: str) -> Any:
    import fsspec
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise DumpError(
            f"{text}: HF_HUB_OFFLINE is set, and the file is not in the cache; unset it, or fetch the data where there "
            "is a network (hf download OWNER/NAME --repo-type dataset --local-dir DIR) and give DIR"
        )
    return fsspec.filesystem("hf")


def _refused(text: str, error: Exception) -> DumpError:
    said = (str(error) or type(error).__name__).splitlines()[0][:160]
    if isinstance(error, FileNotFoundError):
        return DumpError(f"{text}: not found on the hub ({said}); check the name; a private one needs: hf auth login")
    return DumpError(
        f"{text}: can't be fetched ({said}); check the network, or fetch it elsewhere (hf download OWNER/NAME "
        "--repo-type dataset --local-dir DIR) and give DIR"
    )
