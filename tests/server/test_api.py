"""What the HTTP API answers."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

import pytest
from conftest import COLOURS, REPOSITORY, TESTS, Run, index, paint
from fresh import loaded_by
from PIL import Image
from serving import TOKEN, Client, serving

from clipsearch.index.format import FOLDER
from clipsearch.server import pictures
from clipsearch.server.app import Site
from clipsearch.server.asking import PARAMETERS
from clipsearch.server.openapi import description
from clipsearch.server.protocol import LimitedProtocol


@pytest.fixture(scope="module")
def client(sample_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with serving([sample_index / FOLDER], tmp_path_factory.mktemp("thumbnails")) as (_, client):
        yield client


def search(**parameters: object) -> str:
    return "/api/search?" + urlencode(parameters, doseq=True)


def test_hits_have_the_fields_of_the_command_and_more(client: Client, sample_index: Path, run: Run) -> None:
    arguments = ["a dog is sleeping", "0.5:snow", "--not", "people", "-k", "5"]
    of_command = json.loads(run("query", *arguments, "--json", cwd=sample_index).stdout)
    answer = client.ask(search(q=["a dog is sleeping", "0.5:snow"], **{"not": "people"}, k=5)).json
    assert [set(hit) - {"row", "id"} for hit in answer["hits"]] == [set(hit) for hit in of_command]
    for hit, other in zip(answer["hits"], of_command, strict=True):
        other["path"] = str(sample_index / other["path"])
        assert {name: hit[name] for name in other} == other
    assert answer["total"] is None  # only as many were looked for as a page shows at first
    assert [term["weight"] for term in answer["terms"]] == [1, 0.5, -1]
    typed = f"'a dog is sleeping' 0.5:snow --not people --index {sample_index / FOLDER}"
    assert answer["arguments"] == typed


def test_the_command_that_an_answer_names_finds_the_same(client: Client, sample_index: Path, run: Run) -> None:
    best, other = client.ask(search(q="a red car", k=2)).json["hits"]
    like = {"like": f"2:{best['id']}@0%,0%,60%,60%", "unlike": other["id"], "q": 'it\'s "snow"', "not": "2:night"}
    asked = {**like, "under": "sample-images/vehicles"}
    answer = client.ask(search(**asked, orientation="landscape", min_score=-0.9, sort="date", most=4)).json
    found = run("query", *shlex.split(answer["arguments"]), "-k", "4", "--format", "paths", cwd=sample_index.parent)
    paths = [os.path.join(sample_index.parent, line) for line in found.stdout.decode().splitlines()]
    assert paths == [hit["path"] for hit in answer["hits"]]
    assert len(paths) == 4


def test_pages_join_to_the_whole(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipsearch.server import answers

    monkeypatch.setattr(answers, "_STEPS", (10, 40))
    whole = client.ask(search(q="a cat on a chair", k=253)).json["hits"]
    answered = [client.ask(search(q=" a cat on a chair", k=30, offset=start)).json for start in range(0, 300, 30)]
    joined = [hit for answer in answered for hit in answer["hits"]]
    assert [answer["total"] for answer in answered] == [None, *[253] * 9]
    assert [(hit["rank"], hit["row"]) for hit in joined] == [(hit["rank"], hit["row"]) for hit in whole]
    assert len({hit["row"] for hit in joined}) == 253


@pytest.mark.parametrize(
    ("parameters", "good"),
    [
        ({"under": "sample-images/dogs"}, lambda hit: "/dogs/" in hit["path"]),
        ({"glob": "sample-images/dogs/*.png"}, lambda hit: "/dogs/" in hit["path"] and hit["path"].endswith(".png")),
        ({"orientation": "portrait"}, lambda hit: hit["width"] < hit["height"]),
        ({"min_width": 400}, lambda hit: hit["width"] >= 400),
        ({"min_confidence": 0.8}, lambda hit: hit["confidence"] >= 0.8),
        ({"most": 3}, lambda hit: hit["rank"] <= 3),
    ],
)
def test_filters_and_cut_offs(client: Client, parameters: dict[str, object], good: Callable[[Any], bool]) -> None:
    answer = client.ask(search(q="a dog", k=300, **parameters)).json
    assert 0 < answer["total"] == len(answer["hits"]) < 253
    assert all(map(good, answer["hits"]))


def test_hits_are_sorted_by_date_the_newest_first(client: Client) -> None:
    def dates(**more: object) -> list[str]:
        answer = client.ask(search(q="a dog", k=300, most=50, sort="date", **more)).json
        return [hit["date"] for hit in answer["hits"]]

    assert dates() == sorted(dates(), reverse=True)
    assert dates(reverse=1) == sorted(dates())
    assert len(dates()) == 50


def test_without_anything_to_look_for_all_pictures_come_by_date(client: Client) -> None:
    def browsed(**more: object) -> Any:  # noqa: ANN401  (JSON)
        return client.ask(search(**more)).json

    everything = browsed(k=300)
    hits = everything["hits"]
    assert (everything["total"], everything["arguments"], everything["terms"]) == (253, None, [])
    assert [hit["rank"] for hit in hits] == [*range(1, 254)]
    assert {(hit["score"], hit["confidence"]) for hit in hits} == {(None, None)}
    dates = [hit["date"] for hit in hits]
    assert dates == sorted(dates, reverse=True)
    assert len({hit["row"] for hit in hits}) == 253
    oldest = browsed(reverse=1, k=300)["hits"]
    assert [hit["row"] for hit in oldest] == [hit["row"] for hit in hits][::-1]
    pages = [browsed(k=100, offset=start)["hits"] for start in (0, 100, 200, 300)]
    assert [hit for page in pages for hit in page] == hits
    dogs = browsed(under="sample-images/dogs", k=300)
    assert dogs["total"] == len(dogs["hits"]) < 253
    assert dogs["hits"] == [
        hit | {"rank": rank} for rank, hit in enumerate((hit for hit in hits if "/dogs/" in hit["path"]), 1)
    ]
    paths = [hit["path"] for hit in browsed(sort="path", k=300)["hits"]]
    assert paths == sorted(paths)
    assert [hit["path"] for hit in browsed(sort="path", reverse=1, most=5)["hits"]] == paths[:-6:-1]


def test_similar_by_row_by_id_and_by_what_is_sent(client: Client) -> None:
    (dog,) = client.ask(search(q="a dog", k=1)).json["hits"]
    by_row = client.ask(f"/api/similar?row={dog['row']}&k=4").json
    by_id = client.ask(f"/api/similar?id={dog['id']}&k=4").json
    sent = client.ask("/api/similar?k=4", method="POST", body=Path(dog["path"]).read_bytes()).json
    assert by_row["hits"] == by_id["hits"] == sent["hits"]
    assert by_row["hits"][0]["row"] == dog["row"]
    assert sent["terms"][0]["id"] == dog["id"]
    with_words = client.ask(f"/api/similar?id={dog['id']}&q=snow&k=4").json
    assert [set(term) & {"text", "id"} for term in with_words["terms"]] == [{"id"}, {"text"}]
    assert with_words["hits"] != by_id["hits"]


def test_what_is_sent_can_be_searched_by_again_also_by_a_part(client: Client, tmp_path: Path) -> None:
    painted = paint(tmp_path / "new.png", "teal", (300, 200))
    answer = client.ask("/api/similar?k=2", method="POST", body=painted.read_bytes()).json
    (term,) = answer["terms"]
    assert (term["width"], term["height"], "row" in term) == (300, 200, False)
    assert answer["arguments"] is None  # there is no file to name
    again = client.ask(search(like=term["id"], k=2)).json
    assert again["hits"] == answer["hits"]
    part = client.ask(search(like=f"{term['id']}@0,0,50,50", k=2)).json
    assert part["terms"][0]["box"] == "0,0,50,50"
    assert part["hits"][0]["score"] != answer["hits"][0]["score"]
    shown = client.ask(f"/api/upload/{term['id']}")
    assert Image.open(io.BytesIO(shown.body)).size == (300, 200)


def test_thumbnails_are_reduced_kept_and_named_by_content(client: Client) -> None:
    (hit,) = client.ask(search(q="a red car", k=1, min_width=400)).json["hits"]
    first = client.ask(f"/api/thumbnail/{hit['row']}?side=320&id={hit['id']}")
    assert first.headers["Content-Type"] == "image/webp"
    assert "immutable" in first.headers["Cache-Control"]
    assert max(Image.open(io.BytesIO(first.body)).size) == 320
    plain = client.ask(f"/api/thumbnail/{hit['row']}")
    assert plain.body == first.body
    assert "no-cache" in plain.headers["Cache-Control"]
    known = client.ask(f"/api/thumbnail/{hit['row']}", headers={"If-None-Match": str(plain.headers["ETag"])})
    assert (known.status, known.body) == (304, b"")
    assert client.ask(f"/api/thumbnail/{hit['row']}?id={'0' * 32}").status == 404


def test_an_image_is_its_file(client: Client) -> None:
    (hit,) = client.ask(search(q="a red car", k=1)).json["hits"]
    reply = client.ask(f"/api/image/{hit['row']}")
    assert reply.body == Path(hit["path"]).read_bytes()
    assert reply.headers["Content-Type"] == "image/png"
    assert "sandbox" in reply.headers["Content-Security-Policy"]
    assert quote(Path(hit["path"]).name) in reply.headers["Content-Disposition"]


def test_a_large_image_is_sent_in_parts_and_only_as_long_as_it_is_what_was_indexed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_LARGE", 1000)
    monkeypatch.setattr(pictures, "_PART", 1000)
    picture = paint(tmp_path / "p" / "a.bmp", "red", (40, 30))
    content = picture.read_bytes()
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    rest = pictures._rest
    with serving([tmp_path / FOLDER], tmp_path / "cache") as (_, client):
        reply = client.ask("/api/image/0")
        assert (reply.status, reply.body, reply.headers["Content-Type"]) == (200, content, "image/bmp")
        packed = client.ask("/api/zip", method="POST", body=b"0").body
        assert zipfile.ZipFile(io.BytesIO(packed)).read("a.bmp") == content

        looks = 0

        def written_meanwhile(file: BinaryIO) -> Iterator[bytes]:
            nonlocal looks
            looks += 1
            if looks == 2:  # once it was found to be the same, and is about to be sent
                picture.write_bytes(content[:-1] + b"x")
            yield from rest(file)

        with monkeypatch.context() as changed:
            changed.setattr(pictures, "_rest", written_meanwhile)
            with pytest.raises(http.client.IncompleteRead) as cut:
                client.ask("/api/image/0")
        assert cut.value.partial == content[:3000]
        assert client.ask("/api/image/0").status == 422
        picture.unlink()
        picture.mkdir()
        assert client.ask("/api/image/0").json["error"] == "Is a directory"
        picture.rmdir()
        assert client.ask("/api/image/0").status == 410
        os.mkfifo(picture)
        assert client.ask("/api/image/0").json["error"] == "not a regular file"
        assert client.ask("/api/thumbnail/0").json["error"] == "not a regular file"


def test_a_zip_of_several(client: Client) -> None:
    hits = client.ask(search(q="a dog", k=4)).json["hits"]
    rows = " ".join(str(hit["row"]) for hit in [*hits, hits[0]])
    reply = client.ask("/api/zip", method="POST", body=rows.encode())
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert archive.testzip() is None
        names = [Path(hit["path"]).name for hit in hits]
        again = f"{Path(names[0]).stem} (2){Path(names[0]).suffix}"
        assert archive.namelist() == [*names, again]
        assert archive.read(names[0]) == Path(hits[0]["path"]).read_bytes()


def test_status_folders_and_versions(client: Client, sample_index: Path) -> None:
    status = client.ask("/api/status").json
    (one,) = status["indexes"]
    assert (one["images"], one["model"], one["at_work"]) == (253, "picturebook", False)
    assert one["roots"][0]["path"] == str(sample_index / "sample-images")
    assert client.ask("/api/version").json == {one["name"]: one["version"]}
    folders = client.ask("/api/folders").json["folders"]
    assert sum(folder["images"] for folder in folders) == 253


def test_everything_is_described(client: Client) -> None:
    told = client.ask("/api/openapi.json").json
    assert told == json.loads(json.dumps(description()))
    routes = {route.path for route in Site.routes(object.__new__(Site))}
    assert set(told["paths"]) == {route for route in routes if route.startswith("/api/")}
    assert {one["name"] for one in told["paths"]["/api/search"]["get"]["parameters"]} == set(PARAMETERS)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/search?min_score=0.1", "nothing to look for"),
        ("/api/search?q=dog&colour=red", "no parameter 'colour'"),
        ("/api/search?q=dog&k=0", "from 1 to 1000"),
        ("/api/search?q=dog&k=1e3", "no number"),
        ("/api/search?q=dog&min_score=2", "cosine"),
        ("/api/search?q=dog&min_score=nan", "cosine"),
        ("/api/search?q=dog&after=yesterday", "no date"),
        ("/api/search?q=dog&orientation=round", "orientation"),
        ("/api/search?q=dog&index=other", "no index 'other'"),
        ("/api/search?q=dog&sort=size", "score, date, path"),
        ("/api/search?like=1234", "named by its id"),
        (f"/api/search?like={'0' * 32}", "Send it again"),
        (f"/api/search?q={'a' * 1001}", "longer than"),
        ("/api/search?" + "&".join(["q=a"] * 40), "too often"),
        ("/api/similar?k=3", "Which picture"),
        ("/api/similar?id=zz", "An id has"),
        ("/api/thumbnail/0?side=5000", "one of 320"),
    ],
)
def test_mistakes_are_explained(client: Client, path: str, said: str) -> None:
    reply = client.ask(path)
    assert reply.status == 400
    assert said in reply.json["error"]
    assert "--" not in reply.json["error"]


def test_several_indexes_and_one_that_changes(tmp_path: Path, run: Run) -> None:
    for name in ("one", "two"):
        for colour in COLOURS[:3]:
            paint(tmp_path / name / f"{colour}.png", colour if name == "one" else "white", (80, 60))
        index(run, ".", "--model", "picturebook", cwd=tmp_path / name)
    folders = [tmp_path / name / FOLDER for name in ("one", "two")]
    with serving(folders, tmp_path / "cache") as (_, client):
        for name in ("one", "two"):
            answer = client.ask(search(q="a red square", index=name)).json
            assert {Path(hit["path"]).parent for hit in answer["hits"]} == {tmp_path / name}
        before = client.ask(search(q="a red square")).json
        (tmp_path / "one" / "red.png").unlink()
        paint(tmp_path / "one" / "new.png", "cyan", (90, 60))
        gone = next(hit for hit in before["hits"] if hit["path"].endswith("red.png"))
        reply = client.ask(f"/api/thumbnail/{gone['row']}?id={gone['id']}")
        assert (reply.status, reply.json) == (410, {"error": "it is gone"})
        shutil.copy(tmp_path / "one" / "green.png", tmp_path / "one" / "blue.png")
        changed = next(hit for hit in before["hits"] if hit["path"].endswith("blue.png"))
        reply = client.ask(f"/api/image/{changed['row']}")
        assert (reply.status, reply.json["error"]) == (422, "it has changed since it was indexed")
        index(run, cwd=tmp_path / "one")
        after = client.ask(search(q="a red square")).json
        assert after["version"] != before["version"]
        assert {Path(hit["path"]).name for hit in after["hits"]} == {"green.png", "blue.png", "new.png"}


def test_an_index_that_is_deleted_and_made_anew_while_it_is_served(tmp_path: Path, run: Run) -> None:
    for colour in COLOURS[:3]:
        paint(tmp_path / "p" / f"{colour}.png", colour)
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    with serving([tmp_path / FOLDER], tmp_path / "cache") as (_, client):
        first = client.ask("/api/search?q=red").json
        assert first["total"] == 3
        shutil.rmtree(tmp_path / FOLDER)
        for path in ("search?q=red", "search", "status", "version", "thumbnail/0", "image/0", "folders"):
            reply = client.ask(f"/api/{path}")
            assert (reply.status, reply.json) == (503, {"error": f"No index in {tmp_path / FOLDER}."})
        paint(tmp_path / "p" / f"{COLOURS[0]}.png", "white")
        (tmp_path / "p" / f"{COLOURS[1]}.png").unlink()
        index(run, "p", "--model", "picturebook", cwd=tmp_path)
        again = client.ask("/api/search?q=red").json
        assert again["total"] == 2
        assert again["version"] > first["version"]
        assert client.ask("/api/status").json["indexes"][0]["images"] == 2
        assert client.ask(f"/api/image/0?id={first['hits'][0]['id']}").status in (200, 404)
        assert client.ask("/api/image/2").status == 404


def test_names_that_are_not_utf_8(tmp_path: Path, run: Run) -> None:
    name = b"caf\xe9 'n' <b>.png"
    try:
        os.rename(paint(tmp_path / "a.png", "red"), os.path.join(os.fsencode(tmp_path), name))
    except OSError:
        pytest.skip("the file system has no such names")
    index(run, ".", "--model", "picturebook", cwd=tmp_path)
    with serving([tmp_path / FOLDER], tmp_path / "cache") as (_, client):
        answer = client.ask(search(q="red")).json
        (hit,) = answer["hits"]
        assert "\N{REPLACEMENT CHARACTER}" in hit["path"]
        assert client.ask(f"/api/image/{hit['row']}").status == 200
        like = client.ask(search(like=hit["id"])).json["arguments"]
        assert f"--image $'{tmp_path}/caf\\351 \\047n\\047 <b>.png'" in like


def test_two_hundred_clients_at_the_same_time(client: Client, tmp_path: Path) -> None:
    picture = paint(tmp_path / "sent.png", "teal").read_bytes()

    def ask(number: int) -> tuple[int, int, bytes]:
        if number % 10 == 0:
            return 200, client.ask("/api/similar?k=1", method="POST", body=picture).status, b"RIFF"
        answer = client.ask(search(q=f"a {COLOURS[number % 10]} car", k=3))
        reply = client.ask(f"/api/thumbnail/{answer.json['hits'][0]['row']}")
        return answer.status, reply.status, reply.body[:4]

    with ThreadPoolExecutor(200) as pool:
        assert set(pool.map(ask, range(200))) == {(200, 200, b"RIFF")}


def test_an_answer_is_not_held_back_until_the_client_acknowledges_its_headers(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = LimitedProtocol.connection_made
    at_once: list[int] = []

    def seen(self: LimitedProtocol, transport: asyncio.Transport) -> None:
        opened = transport.get_extra_info("socket")
        at_once.append(opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(LimitedProtocol, "connection_made", seen)
    assert client.ask("/api/version").status == 200
    assert at_once == [1]


def test_the_lines_for_curl_in_the_documentation(client: Client, sample_index: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    text = (REPOSITORY / "docs" / "server.md").read_text("utf-8")
    scripts = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    here = tmp_path / "here"
    here.symlink_to(sample_index)
    for script in scripts:
        variables = {**os.environ, "SERVER": f"http://127.0.0.1:{client.port}", "TOKEN": TOKEN}
        line = script.replace("-o thumbnail.webp", f"-o {tmp_path}/thumbnail.webp")
        done = subprocess.run(["/bin/sh", "-c", line], cwd=here, env=variables, capture_output=True, check=True)
        if "-o " not in line:
            answer = json.loads(done.stdout)
            assert answer.get("hits") or answer.get("indexes"), line
    assert (tmp_path / "thumbnail.webp").read_bytes()[8:12] == b"WEBP"
    assert len(scripts) == 7


def test_the_command_prints_its_address_and_ends_with_ctrl_c(sample_index: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "clipsearch", "serve", "--port", "0", "--token", TOKEN, "--index", FOLDER]
    with subprocess.Popen(
        command, cwd=sample_index, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        found = re.fullmatch(rf"http://127\.0\.0\.1:(\d+)/\?token={TOKEN}", address)
        assert found
        assert Client(int(found[1])).ask(search(q="a dog", k=1)).json["hits"]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.decode().splitlines()[0].startswith("Serving 253 images (")
    assert b"Traceback" not in said


def test_a_server_loads_no_torch_until_it_needs_it(
    sample_index: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    code = f"""
import sys
sys.path[:0] = {[*map(str, TESTS)]!r}
from pathlib import Path
from serving import serving
with serving([Path({str(sample_index / FOLDER)!r})], Path({str(tmp_path)!r})) as (_, client):
    (hit,) = client.ask("/api/search?q=a+dog&k=1").json["hits"]
    assert client.ask(f"/api/similar?id={{hit['id']}}").status == 200
    assert client.ask(f"/api/thumbnail/{{hit['row']}}").status == 200
    content = Path(hit["path"]).read_bytes()
    assert client.ask("/api/similar?box=0,0,90,90", method="POST", body=content).status == 200
"""
    loaded = loaded_by(code, environment | {"PYTHONPATH": str(REPOSITORY)}, sample_index)
    assert "uvicorn" in loaded
    assert not loaded & {"torch", "transformers", "pydantic"}
