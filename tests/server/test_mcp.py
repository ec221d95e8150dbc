"""The server for agents, asked by the client of the protocol's own SDK over standard input and output."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, index, paint
from mcp import StdioServerParameters, stdio_client
from mcp.client.client import Client
from mcp_types import CallToolResult
from PIL import Image

from clipsearch.server.indexes import Indexes
from clipsearch.server.mcp import Tools

TOOLS = ("search", "similar", "status", "show")
HOSTILE = ("/etc/passwd", "../secret.png", "%2e%2e/secret.png", "p/../secret.png", "\0", "f" * 32, "", "-1", "lock")

Calls = dict[str, tuple[str, dict[str, Any]]]


def asked(folder: Path, environment: dict[str, str], calls: Callable[[dict[str, Any]], Calls]) -> dict[str, Any]:
    """The answers of one server to some calls, by names; `calls` makes them of the answer to a first search."""

    async def ask() -> dict[str, Any]:
        command = StdioServerParameters(
            command=sys.executable, args=["-W", "error", "-m", "clipsearch", "mcp"], cwd=folder, env=environment
        )
        async with Client(stdio_client(command)) as client:
            first = await client.call_tool("search", {"text": "a red thing"})
            found: dict[str, Any] = {"tools": (await client.list_tools()).tools, "first": first}
            for name, (tool, arguments) in calls(first.structured_content or {}).items():
                found[name] = await client.call_tool(tool, arguments)
            return found

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Pictures with dates in their names, and one beside them that is not in the index. Tests read it only."""
    folder = tmp_path_factory.mktemp("album")
    for number, colour in enumerate(("red", "green", "blue", "orange")):
        paint(folder / "p" / ("old" if number % 2 else "new") / f"2024050{number + 1}_{colour}.png", colour, (200, 100))
    paint(folder / "p" / "new" / "caf\N{LATIN SMALL LETTER E WITH ACUTE} <b>.png", "gold")
    (folder / "p" / "broken.png").write_text("no picture")
    index(run, "p", "--model", "picturebook", cwd=folder)
    paint(folder / "secret.png", "red")
    return folder


@pytest.fixture(scope="module")
def answers(album: Path, environment: dict[str, str]) -> dict[str, Any]:
    """What one server answered to all of the calls below."""

    def calls(first: dict[str, Any]) -> Calls:
        best = first["pictures"][0]
        return {
            "three": ("search", {"text": "a red thing", "k": 3}),
            "filtered": ("search", {"text": "red", "filters": {"under": "p/old", "after": "2024-05-03"}}),
            "globbed": ("search", {"text": "red", "filters": {"glob": ["*.png", "!caf*"], "orientation": "landscape"}}),
            "sure": ("search", {"text": "a zebra", "min_confidence": 0.999, "unwanted": ["a square"]}),
            "newest": ("search", {"text": "red", "k": 2, "newest_first": True}),
            "weight": ("search", {"text": "0.5:red", "k": 1}),
            "by id": ("similar", {"picture": best["id"], "k": 2}),
            "by path": ("similar", {"picture": best["path"], "k": 2}),
            "shown": ("show", {"picture": best["path"], "side": 64}),
            "status": ("status", {}),
            "no tool": ("delete", {}),
            "too many": ("search", {"text": "red", "k": 1000}),
            "no index": ("search", {"text": "red", "index": "other"}),
            "no date": ("search", {"text": "red", "filters": {"after": "soon"}}),
            "outside": ("search", {"text": "red", "filters": {"under": "/etc"}}),
            "no confidence": ("search", {"text": "red", "min_confidence": 2}),
            **{f"show {name}": ("show", {"picture": name}) for name in HOSTILE},
            **{f"similar {name}": ("similar", {"picture": name}) for name in HOSTILE},
        }

    return asked(album, environment, calls)


def pictures(answer: CallToolResult) -> list[dict[str, Any]]:
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    found: list[dict[str, Any]] = answer.structured_content["pictures"]
    return found


def names(answer: CallToolResult) -> list[str]:
    return [Path(picture["path"]).stem for picture in pictures(answer)]


def test_four_tools_that_only_read_with_typed_arguments_and_results(answers: dict[str, Any]) -> None:
    tools = {tool.name: tool for tool in answers["tools"]}
    assert set(tools) == set(TOOLS)
    for tool in tools.values():
        assert tool.annotations.read_only_hint
        assert tool.annotations.destructive_hint is False
        assert tool.description
        assert (tool.output_schema is None) == (tool.name == "show")
    limits = tools["search"].input_schema["properties"]["k"]
    assert (limits["minimum"], limits["maximum"], limits["default"]) == (1, 100, 10)
    assert tools["search"].input_schema["required"] == ["text"]


def test_a_search_gives_what_the_command_gives(answers: dict[str, Any], album: Path, run: Run) -> None:
    hits = json.loads(run("query", "a red thing", "-k", "3", "--json", cwd=album).stdout)
    found = pictures(answers["three"])
    assert [picture["path"] for picture in found] == [str(album / hit["path"]) for hit in hits]
    for field in ("rank", "score", "confidence", "width", "height", "bytes", "date", "date_source"):
        assert [picture[field] for picture in found] == [hit[field] for hit in hits]
    assert answers["three"].structured_content["total"] in (5, None)
    assert json.loads(answers["three"].content[0].text) == answers["three"].structured_content  # for older clients


def test_filters_and_cut_off(answers: dict[str, Any]) -> None:
    assert names(answers["filtered"]) == ["20240504_orange"]
    assert sorted(names(answers["globbed"])) == ["20240501_red", "20240502_green", "20240503_blue", "20240504_orange"]
    assert pictures(answers["sure"]) == []
    best = sorted(pictures(answers["first"])[:2], key=lambda picture: picture["date"], reverse=True)
    newest = pictures(answers["newest"])
    assert [picture["date"] for picture in newest] == sorted((p["date"] for p in newest), reverse=True)
    assert len(newest) == len(best) == 2
    assert not answers["weight"].is_error  # a text is taken as it stands


def test_pictures_like_one_of_the_index(answers: dict[str, Any]) -> None:
    best = pictures(answers["first"])[0]
    found = pictures(answers["by id"])
    assert found == pictures(answers["by path"])
    assert [picture["rank"] for picture in found] == [1, 2]
    assert best["path"] not in [picture["path"] for picture in found]
    assert found[0]["confidence"] is None


def test_a_picture_is_shown_reduced_and_upright(answers: dict[str, Any]) -> None:
    about, shown = answers["shown"].content
    assert pictures(answers["first"])[0]["path"] in about.text
    assert (shown.type, shown.mime_type) == ("image", "image/jpeg")
    image = Image.open(io.BytesIO(base64.b64decode(shown.data)))
    assert max(image.size) == 64


def test_the_status(answers: dict[str, Any], album: Path) -> None:
    (found,) = answers["status"].structured_content["indexes"]
    assert (found["name"], found["images"], found["model"]) == (album.name, 5, "picturebook")
    assert found["roots"] == [{"path": str(album / "p"), "images": 5}]
    assert (found["unreadable"], found["whole"], found["at_work"]) == (1, True, False)
    assert found["unreadable_files"][0]["path"] == str(album / "p" / "broken.png")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("too many", "less than or equal to 100"),
        ("no index", "There is no index 'other'"),
        ("no date", "'soon' is no date"),
        ("outside", "is not in the index"),
        ("no confidence", "less than or equal to 1"),
        ("no tool", "delete"),
    ],
)
def test_what_is_wrong_is_said(answers: dict[str, Any], call: str, said: str) -> None:
    assert answers[call].is_error
    text = answers[call].content[0].text
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_but_pictures_of_the_index_is_opened(answers: dict[str, Any], name: str) -> None:
    for tool in ("show", "similar"):
        answer = answers[f"{tool} {name}"]
        assert answer.is_error
        assert "There is no picture" in answer.content[0].text
        assert [content.type for content in answer.content] == ["text"]


def test_nothing_is_written(answers: dict[str, Any], album: Path) -> None:
    assert answers
    assert {path.name for path in album.iterdir()} == {"p", ".clipsearch", "secret.png"}


GREETING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.mark.parametrize(("ending", "code"), [(None, 0), (signal.SIGTERM, 143)])
def test_it_ends_with_its_input_and_with_signals(
    album: Path, environment: dict[str, str], ending: signal.Signals | None, code: int
) -> None:
    command = [sys.executable, "-m", "clipsearch", "mcp"]
    with subprocess.Popen(
        command,
        cwd=album,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(GREETING).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "clipsearch"
        if ending is None:
            process.stdin.close()
        else:
            process.send_signal(ending)
        assert process.wait(60) == code
        assert b"Traceback" not in process.stderr.read()


def test_without_an_index_it_says_so(tmp_path: Path, run: Run) -> None:
    done = run("mcp", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"No index" in done.stderr


def test_a_picture_whose_name_is_not_utf8_has_an_id(tmp_path: Path, run: Run) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"p", b"caf\xe9.png")
    os.rename(paint(tmp_path / "p" / "a.png", "red"), path)
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    with Indexes([tmp_path / ".clipsearch"]) as indexes:
        tools = Tools(indexes)
        (picture,) = tools.search(text="red").pictures
        assert picture.id is not None
        about, _ = tools.show(picture=picture.id, side=64)
        assert "caf\\xe9.png" in str(about)
        assert tools.similar(picture=picture.id).pictures == []
