"""Objects in buckets as files: Amazon's S3 and what speaks its protocol, through fsspec's s3fs.

Buckets are listed page by page, and nothing of them is kept: fsspec's own listings would hold all names in memory.
Google's storage (`gs://`) is asked through the same protocol, which it speaks as well.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from clipsearch.errors import StoreError, UnreadableImageError
from clipsearch.images.codecs.limits import check_bytes
from clipsearch.images.files import GoneError, ImageFile, UnreachableError
from clipsearch.images.requesting import (
    AT_ONCE,
    PassingError,
    Server,
    in_background,
    not_installed,
    result_of,
    timeout,
    wait_for,
)
from clipsearch.images.stamping import modified_ns, number_of

_T = TypeVar("_T")
_GOOGLE = "https://storage.googleapis.com"
_PAGE = 1000
"""Number of keys in a page, the most that the protocol allows."""
_PASSING = (408, 429, 500, 502, 503, 504)
"""Status codes of HTTP that come and go; others are not tried again."""
_CODES = ("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestTimeTooSkewed")
"""Error codes of the protocol that come and go, with whatever status."""
_REFUSED = (401, 403)
_OF_THE_KEYS = (
    *("ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"),
    *("AuthorizationHeaderMalformed", "TokenRefreshRequired", "AllAccessDisabled"),
)
"""Error codes that will be the same for every object."""
_NOT_UTF8 = "its key is not UTF-8, and the protocol of the store has no way to ask for it"
_DOTS = "a part of its key is . or .., which means something else in paths"


class _Page(NamedTuple):
    """Some keys of a listing, in order."""

    files: list[ImageFile]
    last: bytes
    """The last key so far; empty if there is none."""
    next: str | None
    """What the next page is asked for with; None after the last one."""


class ObjectStore:
    """A bucket, or a folder in it, as a source of files (see `sources.Source`). Threads may share it."""

    def __init__(self, address: bytes) -> None:
        """Make the source of an address: `s3://BUCKET` or `s3://BUCKET/FOLDER`, or that of an object."""
        self._scheme, _, rest = os.fsdecode(address).partition("://")
        self._bucket, _, self._inner = rest.partition("/")
        self._start = os.fsencode(f"{self._scheme}://{self._bucket}/")
        self._place = os.fsdecode(address)

    def files(self) -> Iterator[ImageFile]:
        """Yield all objects in the folder, as for `sources.Source`.

        Raises:
            StoreError: the bucket cannot be listed, or not to its end.
        """
        _connection(self._scheme)
        page = in_background(self._page(None, b""))
        try:
            while True:
                try:
                    found = result_of(page)
                except UnreachableError as error:
                    raise StoreError(f"{self._place} could not be listed to its end: {error}.") from error
                if found.next is not None:  # while the caller looks at this one
                    page = in_background(self._page(found.next, found.last))
                yield from found.files
                if found.next is None:
                    return
        finally:
            page.cancel()

    def is_folder(self) -> bool:
        """Whether only a folder can be meant: the bucket itself."""
        return not self._inner

    def file(self, path: bytes) -> ImageFile | None:
        """Describe an object, as for `sources.Source`.

        Raises:
            StoreError: the bucket cannot be used.
            UnreachableError: the object cannot be had now.
        """
        if (problem := _problem(self._key(path))) is not None:
            return ImageFile(path, 0, 0, problem)
        try:
            answer = self._ask(lambda client: client.head_object(Bucket=self._bucket, Key=self._name(path)))
        except FileNotFoundError:
            return None
        return _described(path, answer["ContentLength"], answer)

    def first_bytes(self, path: bytes, count: int) -> bytes:
        """Read the first bytes of an object, as for `sources.Source`, with the errors of `read`."""
        return self._read(path, count, wanted=f"bytes=0-{count - 1}")[1]

    def read(self, path: bytes, most: int) -> tuple[ImageFile, bytes]:
        """Read an object, as for `sources.Source`. One that is too large is refused before it is downloaded.

        Raises:
            StoreError: the bucket cannot be used.
            UnreachableError: the object cannot be had now; a GoneError if no other can, either.
        """
        if (problem := _problem(self._key(path))) is not None:
            raise UnreadableImageError(problem)
        return self._read(path, most)

    # -- how ---------------------------------------------------------------------------------------------------

    def _key(self, path: bytes) -> bytes:
        return path.removeprefix(self._start)

    def _name(self, path: bytes) -> str:
        return self._key(path).decode()

    def _ask(self, call: Callable[[Any], Awaitable[_T]]) -> _T:
        """Return the answer to a request, with the errors of `Source`."""
        connection = _connection(self._scheme)
        try:
            return wait_for(
                connection.server(self._bucket).ask(lambda: connection.call(self._place, self._bucket, call))
            )
        except UnreachableError as error:
            if gone := connection.server(self._bucket).gone():
                raise GoneError(gone) from error
            raise

    def _read(self, path: bytes, most: int, wanted: str | None = None) -> tuple[ImageFile, bytes]:
        name = self._name(path)

        async def get(client: Any) -> tuple[ImageFile, bytes]:  # noqa: ANN401
            ranged = {"Range": wanted} if wanted else {}
            answer = await client.get_object(Bucket=self._bucket, Key=name, **ranged)
            size = answer["ContentLength"]
            async with answer["Body"] as body:
                check_bytes(size, most)
                data = await body.read()
            if len(data) != size:
                raise PassingError("it ended early")
            return _described(path, size, answer), data

        try:
            file, data = self._ask(get)
        except _EmptyError:  # no part of an empty object can be asked for
            return ImageFile(path, 0, 0), b""
        return file, data

    async def _page(self, token: str | None, before: bytes) -> _Page:
        """Ask for the page of a token, whose keys come after `before`."""
        connection = _connection(self._scheme)
        prefix = f"{self._inner}/" if self._inner else ""
        more = {"ContinuationToken": token} if token else {}

        async def get(client: Any) -> _Page:  # noqa: ANN401
            answer = await client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, MaxKeys=_PAGE, EncodingType="url", **more
            )
            ends = not answer.get("IsTruncated", False)
            following = answer.get("NextContinuationToken")
            if not ends and not following:
                raise PassingError("the list ends in the middle")
            if not ends and following == token:
                raise StoreError(f"{self._place} could not be listed to its end: the store repeats itself.")
            return self._found(answer.get("Contents", []), None if ends else following, before)

        return await connection.server(self._bucket).ask(lambda: connection.call(self._place, self._bucket, get))

    def _found(self, contents: list[Mapping[str, Any]], token: str | None, last: bytes) -> _Page:
        """Make files of the objects of a page, after the key `last`. What only stands for a folder is left out."""
        files = []
        for one in contents:
            key = unquote_to_bytes(one["Key"].replace("+", " "))
            if key <= last:
                raise StoreError(f"{self._place} could not be listed: its keys do not come in order.")
            last = key
            if not key.endswith(b"/"):
                files.append(_described(self._start + key, one["Size"], one, _problem(key)))
        return _Page(files, last, token)


class _EmptyError(Exception):
    """An object has no bytes."""


class _Connection:
    """What all buckets of one scheme are asked through."""

    def __init__(self, scheme: str) -> None:
        try:
            from fsspec.config import conf
            from s3fs import S3FileSystem
        except ImportError as error:
            raise not_installed() from error
        known = conf.get(scheme, {})
        self._seconds = timeout()
        limits = {
            "connect_timeout": self._seconds,
            "read_timeout": self._seconds,
            "retries": {"max_attempts": 0},  # there are enough in `Server.ask`
            "max_pool_connections": 2 * AT_ONCE,
        }
        options = {**known, "config_kwargs": {**known.get("config_kwargs", {}), **limits}}
        if scheme == "gs":
            options.setdefault("endpoint_url", _GOOGLE)
        self._files = S3FileSystem(
            skip_instance_cache=True, use_listings_cache=False, loop=None, asynchronous=False, **options
        )
        self._scheme = scheme
        self._servers: dict[str, Server] = {}

    def server(self, bucket: str) -> Server:
        """Return what is known of the server of a bucket."""
        return self._servers.setdefault(bucket, Server(f"{self._scheme}://{bucket}"))

    async def call(self, place: str, bucket: str, call: Callable[[Any], Awaitable[_T]]) -> _T:
        """Make one request, with errors that say what is to be done about it."""
        import aiohttp
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        try:
            await self._files.set_session()
            return await call(await self._files.get_s3(bucket))
        except exceptions.ClientError as error:
            raise self._said(error, place, bucket) from None  # its text may hold what was signed
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise StoreError(f"No credentials for {self._scheme}:// were found.", hint=_hint(self._scheme)) from error
        except (
            exceptions.ProfileNotFound,
            exceptions.CredentialRetrievalError,
            exceptions.TokenRetrievalError,
        ) as error:
            raise StoreError(
                f"The credentials for {self._scheme}:// cannot be read ({type(error).__name__}).",
                hint=_hint(self._scheme),
            ) from None
        except (exceptions.ParamValidationError, exceptions.NoRegionError) as error:
            raise StoreError(f"{place} cannot be asked for ({type(error).__name__}).") from None
        except (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError, TimeoutError):
            raise PassingError(f"no answer within {self._seconds:g} s") from None
        except exceptions.EndpointConnectionError:
            raise PassingError("no connection") from None
        except (ResponseParserError, exceptions.IncompleteReadError, aiohttp.ClientPayloadError):
            raise PassingError("the answer ended early") from None
        except (exceptions.BotoCoreError, aiohttp.ClientError, OSError) as error:
            raise PassingError(f"the connection broke ({type(error).__name__})") from None

    def _said(self, error: Any, place: str, bucket: str) -> Exception:  # noqa: ANN401, PLR0911  (of a ClientError)
        """Return the error that an answer of the store means."""
        answer = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket":
            return StoreError(f"There is no bucket {bucket} ({self._scheme}://{bucket}).", hint="bucket")
        if code == "InvalidRange" or status == 416:  # noqa: PLR2004
            return _EmptyError()
        if code in _CODES or status in _PASSING:
            return PassingError(f"the store says {status}" + (f" ({code})" if not code.isdecimal() else ""))
        said = f"{status} {code}" if code != str(status) else code
        if error.operation_name == "ListObjectsV2" or code in _OF_THE_KEYS:
            return StoreError(f"{place} cannot be read: the store says {said}.", hint=_hint(self._scheme))
        if status == 404:  # noqa: PLR2004
            return FileNotFoundError(place)
        if status in _REFUSED:
            return UnreachableError(f"the store refuses it: {said}")
        return UnreadableImageError(f"the store says {said}")


_connections: dict[str, _Connection] = {}
_connecting = threading.Lock()


def _connection(scheme: str) -> _Connection:
    with _connecting:
        if scheme not in _connections:
            _connections[scheme] = _Connection(scheme)
        return _connections[scheme]


def _hint(scheme: str) -> str:
    return "gs-keys" if scheme == "gs" else "s3-keys"


def _problem(key: bytes) -> str | None:
    """Return why an object with this key cannot be read; None if it can."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return _NOT_UTF8
    return _DOTS if {b".", b".."} & set(key.split(b"/")) else None


def _described(path: bytes, size: int, answer: Mapping[str, Any], problem: str | None = None) -> ImageFile:
    """Describe an object by what the store says of it."""
    mtime_ns, inode = modified_ns(answer.get("LastModified")), number_of(answer.get("ETag"))
    return ImageFile(path, size, mtime_ns, problem, inode=inode)
