"""Store: a folder behind a URL, through fsspec: what it lists, ranges of its files, new files."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

from tuili.errors import InvalidArgument, Unavailable, Unsupported

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://.+")
_EXTRAS: Final = {
    "s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "http": "http",
    "https": "http",
}  # fmt: skip
# What the stores call the mark that changes with the content, best first.
_TAGS: Final = (
    "ETag", "etag", "md5Hash", "content_md5", "generation", "mtime", "LastModified",
    "last_modified", "updated",
)  # fmt: skip
_CONDITION_FAILED: Final = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
# Where a file needs a folder to be in.
_WITH_FOLDERS: Final = ("file", "local", "sftp", "ssh", "smb")
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")


class Listed(NamedTuple):
    """A file of a store: its size and a mark that changes with its content."""

    size: int
    tag: str


def is_url(text: str) -> bool:
    """Whether a repository is behind a URL."""
    return _URL.fullmatch(text) is not None


def options_for(url: str, path: Path | None) -> dict[str, Any]:
    """The options (credentials, endpoint) that a TOML file has for a URL; the longest prefix wins.

    `${NAME}` in a value is the environment variable of that name.
    """
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from error
    fits = [
        prefix for prefix in tables if url == prefix or url.startswith(f"{prefix.rstrip('/')}/")
    ]
    found = tables[max(fits, key=len)] if fits else {}
    if not isinstance(found, dict):
        raise InvalidArgument(f"{path}: expected a table of options for {url!r}, found {found!r}")
    return {key: _filled(value, path) for key, value in cast(dict[str, Any], found).items()}


def _filled(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        entries = cast(dict[str, Any], value)
        return {key: _filled(each, path) for key, each in entries.items()}
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise InvalidArgument(f"{path}: environment variable {found[1]} is not set")
        return os.environ[found[1]]

    return _VARIABLE.sub(variable, value)


class Store:
    """A remote folder; every failure to reach it is Unavailable and names the URL."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = url.rstrip("/")
        self._scheme = scheme = url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs

            found = url_to_fs(self.url, **(options or {}))
        except ImportError as error:
            extra = _EXTRAS.get(scheme, "remote")
            raise Unsupported(f"{url} needs `pip install 'tuili[{extra}]'`: {error}") from error
        except Exception as error:
            raise InvalidArgument(f"{url} cannot be opened: {error}") from error
        self._files: Any = found[0]
        self._root: str = str(found[1]).rstrip("/")

    def listing(self, below: str = "") -> dict[str, Listed]:
        """All files by their names below the root, or below a folder of it that may be absent.

        Hidden ones are left out.
        """
        root = f"{self._root}/{below}" if below else self._root
        try:
            self._files.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._files.find(root, detail=True)
            names = {path: self._name(path, root) for path in found}
            return {
                name: self._listed(path, found[path])
                for path, name in names.items()
                if name and not any(part.startswith(".") for part in name.split("/"))
            }
        except Exception as error:
            if below and isinstance(error, FileNotFoundError):
                return {}
            raise self._unavailable(error) from error

    def mark(self, name: str) -> Listed:
        """Size and mark of one file at this moment."""
        path = f"{self._root}/{name}"
        try:
            self._files.invalidate_cache()
            return self._listed(path, self._files.info(path))
        except Exception as error:
            raise self._unavailable(error, name) from error

    def read(self, name: str, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, or the whole file from a server that has no ranges."""
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}", start=start, end=end))
        except Exception as error:
            raise self._unavailable(error, name) from error

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file that nobody wrote before; false when somebody has.

        A conditional write where the store has one (S3, GCS, Azure). As some that speak their
        language ignore the condition, it is looked for before, and read back. A write that was
        tried twice may find itself.
        """
        path = self._writable(name)
        try:
            self._files.invalidate_cache()
            if not self._files.exists(path):
                self._files.pipe_file(path, content, mode="create")
        except Exception as error:
            if not _exists_already(error):
                raise self._unavailable(error, name, "written") from error
        self._files.invalidate_cache()
        return self.read(name, 0, len(content) + 1) == content

    def upload(self, name: str, source: Path, on_bytes: Callable[[int], None]) -> None:
        """Write a file that is nobody else's; a large one in parts."""
        from fsspec.callbacks import Callback

        told = Callback()
        told.add_hook("bytes", lambda size, value: on_bytes(value))
        path = self._writable(name)
        try:
            self._files.put_file(str(source), path, callback=told)
        except Exception as error:
            raise self._unavailable(error, name, "written") from error

    def _writable(self, name: str) -> str:
        if self._scheme in ("http", "https"):
            raise Unsupported(
                f"{self.url} is read-only, as all HTTP repositories are: publish into the folder "
                "that its server shows, or into an s3, gs or az repository"
            )
        path = f"{self._root}/{name}"
        if self._scheme in _WITH_FOLDERS:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    def _name(self, path: str, root: str) -> str:
        name = path.removeprefix(root).lstrip("/") if path.startswith(f"{root}/") else ""
        name = unquote(name) if self._root.startswith("http") else name
        return "" if any(sign in name for sign in "?#\\") or ".." in name.split("/") else name

    def _listed(self, path: str, about: dict[str, Any]) -> Listed:
        if about.get("size") is None:
            about = self._files.info(path)
        if about.get("size") is None:
            raise Unavailable(f"{path}: the server does not tell its size")
        tag = next((str(about[key]) for key in _TAGS if about.get(key)), "")
        return Listed(int(about["size"]), tag.strip('"'))

    def _unavailable(self, error: Exception, name: str = "", what: str = "read") -> Unavailable:
        where = f"{self.url}/{name}" if name else f"repository {self.url}"
        told = str(error) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            told = f"not found: {told}"
        return Unavailable(f"{where} cannot be {what}: {told}")


def _exists_already(error: Exception) -> bool:
    """Whether a conditional write failed for its condition; s3fs has no one exception for it."""
    answer: Any = getattr(error.__cause__ or error, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else ""
    return isinstance(error, FileExistsError) or code in _CONDITION_FAILED
