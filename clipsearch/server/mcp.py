"""A server for agents, by the Model Context Protocol over standard input and output: four tools that only read.

Pictures are named by what other tools return, and only those of an index are opened. Nothing is written.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, ParamSpec, TypeVar

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

import clipsearch
from clipsearch.errors import ClipsearchError
from clipsearch.index.format import Record
from clipsearch.output.paths import printable
from clipsearch.output.reports import status_fields, status_of
from clipsearch.output.thumbnails import reduced
from clipsearch.search.hit import Hit
from clipsearch.search.query_terms import ContentTerm
from clipsearch.server.answers import Answers, record
from clipsearch.server.asking import Question, parse
from clipsearch.server.indexes import Indexes, Served
from clipsearch.server.pictures import decoded
from clipsearch.server.uploads import Uploads
from clipsearch.system.paths import from_folder

_MOST, _MOST_NAMED = 100, 20
"""The largest number of pictures in an answer, and of unreadable files in a status."""
_LEAST_SIDE, _SIDE, _LARGEST_SIDE = 64, 1024, 2048
"""Lengths of the longest side of a shown picture, in pixels."""
_QUALITY = 85
_ID = re.compile(r"[0-9a-f]{32}")
_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_INSTRUCTIONS = (
    "Finds pictures on this machine by what they show. Describe the picture in plain words (search), look at what was "
    "found (show), and go on from one that is close (similar). Scores are cosines and can only be compared within one "
    "query; the confidence says how sure it is that a picture shows what was asked for."
)

Given = ParamSpec("Given")
Result = TypeVar("Result")

# --- what tools take ---

Index = Annotated[str | None, Field(description="The name of an index, as `status` lists them; by default the first.")]
Number = Annotated[int, Field(ge=1, le=_MOST, description="How many pictures to return at most.")]
Named = Annotated[str, Field(description="The `id` or the `path` of a picture, as the other tools return it.")]


class Filters(BaseModel):
    """Which pictures are searched; all of the conditions count."""

    under: str | None = Field(None, description="Only pictures in this folder.")
    glob: list[str] | None = Field(
        None, description="Only paths that match these patterns, with the rules of .gitignore; !PATTERN excludes."
    )
    after: str | None = Field(
        None, description="Only pictures taken then or later: 2024-05-31, 2024-05, 2024, or back from now: 30d, 2w, 1y."
    )
    before: str | None = Field(None, description="Only pictures taken before then; as `after`.")
    min_width: int | None = Field(None, ge=1, description="Only pictures of at least this width in pixels.")
    min_height: int | None = Field(None, ge=1, description="Only pictures of at least this height in pixels.")
    orientation: Literal["landscape", "portrait", "square"] | None = Field(
        None, description="Only pictures of this shape."
    )


Which = Annotated[Filters | None, Field(description="Which pictures are searched; by default all.")]

# --- what tools return ---


class Picture(BaseModel):
    """A picture that was found."""

    rank: int = Field(description="1 is the best.")
    id: str | None = Field(description="The name of its content, for `similar` and `show`.")
    path: str = Field(description="The absolute path of its file.")
    score: float = Field(description="The cosine of query and picture.")
    confidence: float | None = Field(
        description="From 0 to 1, how sure it is that the picture shows the query; none for queries with a picture."
    )
    width: int | None = Field(description="In pixels, upright.")
    height: int | None
    bytes: int
    date: str = Field(description="When it was taken, or else its file was last changed: local time.")
    date_source: str = Field(description="Where the date is from: exif, xmp, name (of the file) or file (its time).")
    box: tuple[int, int, int, int] | None = Field(
        None,
        description="Left, top, right and bottom of the part that fits best, in pixels; none if it is all.",
    )


class Pictures(BaseModel):
    """The result of a search."""

    index: str
    total: int | None = Field(description="How many pictures there are in all; none if only the best were looked for.")
    pictures: list[Picture]


class Root(BaseModel):
    """A folder that was indexed."""

    path: str
    images: int


class Unreadable(BaseModel):
    """A file that could not be read."""

    path: str
    reason: str


class IndexStatus(BaseModel):
    """What one index holds."""

    name: str
    images: int
    model: str | None
    roots: list[Root]
    unreadable: int = Field(description="The number of files that could not be read.")
    unreadable_files: list[Unreadable] = Field(description=f"The first {_MOST_NAMED} of them.")
    updated_at: str | None = Field(description="When the last update ended, in universal time.")
    at_work: bool = Field(description="Whether an update is under way.")
    whole: bool = Field(description="Whether all folders were searched completely at least once.")


class Status(BaseModel):
    """What there is to search."""

    clipsearch: str
    indexes: list[IndexStatus]


# --- the tools ---


def _said(tool: Callable[Given, Result]) -> Callable[Given, Result]:
    """Tell an agent what is wrong with its arguments or with a picture, instead of that something is."""

    @functools.wraps(tool)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return tool(*args, **kwargs)
        except ClipsearchError as error:
            raise ToolError(str(error)) from error

    return call


class Tools:
    """The tools, for the indexes that they read."""

    def __init__(self, indexes: Indexes) -> None:
        self._indexes = indexes
        self._answers, self._nothing_sent = Answers(), Uploads()

    def server(self) -> MCPServer[object]:
        """Make a server with these tools."""
        server: MCPServer[object] = MCPServer(
            "clipsearch", instructions=_INSTRUCTIONS, version=clipsearch.__version__, log_level="WARNING"
        )
        for tool in (self.search, self.similar, self.status):
            server.tool(annotations=_READS)(_said(tool))
        server.tool(annotations=_READS, structured_output=False)(_said(self.show))
        return server

    def search(
        self,
        *,
        text: Annotated[str, Field(min_length=1, description="What the picture shows, such as: a dog in the snow.")],
        k: Number = 10,
        unwanted: Annotated[list[str] | None, Field(description="What the picture should not show.")] = None,
        min_confidence: Annotated[
            float | None,
            Field(ge=0, le=1, description="Only pictures with at least this confidence; 0.8 is a good start."),
        ] = None,
        newest_first: Annotated[
            bool,
            Field(description="Return the newest first, of all that have `min_confidence`, or else of the `k` best."),
        ] = False,
        filters: Which = None,
        index: Index = None,
    ) -> Pictures:
        """Find the pictures that fit a description best."""
        served = self._indexes.named(index)
        most = k if newest_first and min_confidence is None else None
        question = self._question(
            served,
            filters,
            q=f"1:{text}",  # a text that begins like a weight is meant as it is
            **{"not": [f"1:{one}" for one in unwanted or ()]},
            k=k,
            most=most,
            min_confidence=min_confidence,
            sort="date" if newest_first else None,
        )
        page = self._answers.page(served, question)
        return Pictures(index=served.name, total=page.total, pictures=_shown(page.hits))

    def similar(
        self,
        *,
        picture: Named,
        k: Number = 10,
        filters: Which = None,
        index: Index = None,
    ) -> Pictures:
        """Find the pictures that are most similar to one of the index, without that picture itself."""
        served = self._indexes.named(index)
        known = _found(served, picture)
        if known.hash is None:
            raise ToolError(f"The content of {picture} is not known.")
        question = self._question(served, filters, k=k + 1)
        page = self._answers.page(served, question.with_picture(known.hash, ContentTerm(known.hash)))
        others = [hit for hit in page.hits if hit.path_bytes != known.path][:k]
        hits = [hit._replace(rank=rank) for rank, hit in enumerate(others, 1)]
        return Pictures(index=served.name, total=None, pictures=_shown(hits))

    def show(
        self,
        *,
        picture: Named,
        side: Annotated[
            int, Field(ge=_LEAST_SIDE, le=_LARGEST_SIDE, description="Its longest side in pixels, at most.")
        ] = _SIDE,
        index: Index = None,
    ) -> list[str | Image]:
        """Show a picture of the index, upright and reduced, with its path, size and date."""
        known = _found(self._indexes.named(index), picture)
        out = io.BytesIO()
        reduced(decoded(known, side), side).save(out, "JPEG", quality=_QUALITY)
        about = f"{printable(known.path)}: {known.width} x {known.height} pixels"
        if known.taken_at:
            about += f", taken {known.taken_at.replace('T', ' ')}"
        return [about, Image(data=out.getvalue(), format="jpeg")]

    def status(self) -> Status:
        """Say which indexes there are, and what they hold."""
        return Status(clipsearch=clipsearch.__version__, indexes=[_status(one) for one in self._indexes])

    def _question(self, served: Served, filters: Filters | None, **given: object) -> Question:
        return parse(_Parameters(given | dict(filters or ())), served, self._nothing_sent)


class _Parameters:
    """Arguments of a tool as the parameters of a request, which have the same names and meaning."""

    def __init__(self, given: dict[str, object]) -> None:
        self._given = given

    def multi_items(self) -> list[tuple[str, str]]:
        """Return all names and values."""
        return [
            (name, str(one))
            for name, value in self._given.items()
            for one in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value])
            if one is not None
        ]


def _shown(hits: Sequence[Hit]) -> list[Picture]:
    return [Picture.model_validate(record(hit)) for hit in hits]


def _found(served: Served, picture: str) -> Record:
    """Return the record of a picture, by the hash of its content or by its path.

    Raises:
        ToolError: the index has no such picture.
    """
    store = served.index.store
    if _ID.fullmatch(picture):
        rows = [row for _, row in store.rows_with(bytes.fromhex(picture))]
    else:
        row = store.row_of(from_folder(served.base, picture))
        rows = [] if row is None else [row]
    if not rows:
        raise ToolError(f"There is no picture {picture!r} in the index. Take an id or a path that a search returned.")
    return store.image(min(rows))


def _status(served: Served) -> IndexStatus:
    status = status_of(served.index.store)
    fields = status_fields(status, bytes) | {
        "name": served.name,
        "unreadable": len(status.unreadable),
        "unreadable_files": [
            Unreadable(path=printable(path), reason=reason) for path, reason in status.unreadable[:_MOST_NAMED]
        ],
        "updated_at": (status.last_run or {}).get("ended_at"),
    }
    return IndexStatus.model_validate(fields)
