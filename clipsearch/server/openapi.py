"""The description of the HTTP API for programs, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

import clipsearch
from clipsearch.server.asking import PARAMETERS, SEVERAL
from clipsearch.server.pictures import SIDES

_NUMBERS = {"min_score": "number", "min_confidence": "number", "distinct": "number"}
_WHOLE_NUMBERS = ("k", "offset", "most", "min_width", "min_height")
_PICTURE = {
    "id": "The id of the picture: an answer with it never changes, and is refused once the row has another picture.",
    "index": PARAMETERS["index"],
}
_TEXT: dict[str, Any] = {"type": "string"}
_HIT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "rank": {"type": "integer"},
        "score": {
            "type": ["number", "null"],
            "description": "Cosine of query and picture; null without anything to look for.",
        },
        "confidence": {"type": ["number", "null"], "description": "From 0 to 1; null for queries with pictures."},
        "path": {"type": "string", "description": "Absolute."},
        "path_bytes": {"type": "string", "description": "In base64, if the path is not UTF-8."},
        "width": {"type": ["integer", "null"]},
        "height": {"type": ["integer", "null"]},
        "bytes": {"type": "integer"},
        "date": {"type": "string"},
        "date_source": {"type": "string", "enum": ["exif", "xmp", "name", "file"]},
        "box": {"type": ["array", "null"], "items": {"type": "integer"}},
        "others": {"type": "integer"},
        "row": {"type": "integer", "description": "For `image` and `thumbnail`, until the index changes."},
        "id": {"type": ["string", "null"], "description": "The picture's content, for `like` and `similar`."},
    },
}
_ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "index": _TEXT,
        "version": {"type": "integer", "description": "Changes with the index."},
        "terms": {"type": "array", "items": {"type": "object"}},
        "arguments": {"type": ["string", "null"], "description": "The same as arguments of the command line."},
        "total": {"type": ["integer", "null"], "description": "The number of all hits; null if it is not known yet."},
        "offset": {"type": "integer"},
        "hits": {"type": "array", "items": _HIT},
    },
}


def description() -> dict[str, Any]:
    """Return the description."""
    search = [_parameter(name, words) for name, words in PARAMETERS.items()]
    like = [
        _parameter("row", "The row of a picture of the index."),
        _parameter("id", "Or its id."),
        _parameter("box", "The part of the picture to compare: left, top, right, bottom, in pixels or percent."),
    ]
    row = {"name": "row", "in": "path", "required": True, "schema": {"type": "integer"}}
    picture = [row, *(_parameter(name, words) for name, words in _PICTURE.items())]
    side = {"name": "side", "in": "query", "schema": {"type": "integer", "enum": list(SIDES)}}
    body = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
    rows = {"text/plain": {"schema": {"type": "string", "description": "Rows, separated by spaces."}}}
    index = _parameter("index", PARAMETERS["index"])
    paths: dict[str, Any] = {
        "/api/search": {"get": _does("The pictures that fit a query, or all, by date.", search, _ANSWER)},
        "/api/similar": {
            "get": _does("The pictures that are like one of the index.", [*like, *search], _ANSWER),
            "post": _does("The pictures that are like the one that is sent.", [like[2], *search], _ANSWER, body=body),
        },
        "/api/image/{row}": {"get": _does("The file of a picture.", picture, kind="image/*")},
        "/api/thumbnail/{row}": {"get": _does("A picture, reduced.", [*picture, side], kind="image/webp")},
        "/api/upload/{id}": {
            "get": _does(
                "A picture that was sent, reduced.", [{**row, "name": "id", "schema": _TEXT}], kind="image/webp"
            )
        },
        "/api/zip": {"post": _does("Files of pictures.", [index], kind="application/zip", body=rows)},
        "/api/folders": {"get": _does("The folders that pictures lie in.", [index], {"type": "object"})},
        "/api/status": {"get": _does("What the indexes hold.", [], {"type": "object"})},
        "/api/version": {"get": _does("A number for each index that changes with it.", [], {"type": "object"})},
        "/api/openapi.json": {"get": _does("This description.", [], {"type": "object"})},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "clipsearch", "version": clipsearch.__version__},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }


def _parameter(name: str, words: str) -> dict[str, Any]:
    kind: dict[str, Any] = {"type": "integer" if name in _WHOLE_NUMBERS else _NUMBERS.get(name, "string")}
    schema = {"type": "array", "items": kind} if name in SEVERAL else kind
    return {"name": name, "in": "query", "description": words, "schema": schema}


def _does(
    words: str,
    parameters: list[dict[str, Any]],
    schema: dict[str, Any] | None = None,
    *,
    kind: str = "application/json",
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    error = {"application/json": {"schema": {"type": "object", "properties": {"error": _TEXT}}}}
    fields: dict[str, Any] = {
        "summary": words,
        "parameters": parameters,
        "responses": {
            "200": {"description": words, "content": {kind: {"schema": schema or {}}}},
            "default": {"description": "What is wrong.", "content": error},
        },
    }
    return fields | ({"requestBody": {"required": True, "content": body}} if body else {})
