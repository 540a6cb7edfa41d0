"""Types told from first bytes: real files of each kind, and bytes that nobody has thought of."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import struct
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ouzel.store.sniff import HEAD_BYTES, UNKNOWN, sniff

OFFICE = "application/vnd.openxmlformats-officedocument."


def archive(*names: str, body: bytes = b"<x/>") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, body)
    return made.getvalue()


BMP = b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + struct.pack("<I", 40) + bytes(36)
HEIC = struct.pack(">I", 24) + b"ftypmif1" + bytes(4) + b"mif1heic" + bytes(40)
AVIF = struct.pack(">I", 28) + b"ftypmif1" + bytes(4) + b"mif1avifmiaf" + bytes(40)
WORD = ("[Content_Types].xml", "_rels/.rels", "word/document.xml")

KNOWN = [
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "x", "application/pdf"),
    (b"\xef\xbb\xbf%PDF-1.4\n", "x", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "x.txt", "image/png"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "x", "image/jpeg"),
    (b"GIF89a\1\0\1\0", "x", "image/gif"),
    (b"RIFF\x24\0\0\0WEBPVP8 ", "x", "image/webp"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "x.webp", UNKNOWN),
    (BMP, "x", "image/bmp"),
    (b"BMW is a car\n", "x", "text/plain"),
    (b"II*\0\x08\0\0\0", "x", "image/tiff"),
    (b"MM\0*\0\0\0\x08", "x", "image/tiff"),
    (HEIC, "x", "image/heic"),
    (AVIF, "x", "image/avif"),
    (struct.pack(">I", 20) + b"ftypisom" + bytes(4) + b"mp41", "x", UNKNOWN),
    (archive("a.txt"), "x.docx", "application/zip"),
    (archive(), "x", "application/zip"),
    (archive(*WORD), "x", f"{OFFICE}wordprocessingml.document"),
    (archive("xl/workbook.xml"), "x.zip", f"{OFFICE}spreadsheetml.sheet"),
    (archive("[Content_Types].xml", "ppt/x"), "x", f"{OFFICE}presentationml.presentation"),
    (archive("[Content_Types].xml"), "R.XLSX", f"{OFFICE}spreadsheetml.sheet"),
    (archive("[Content_Types].xml"), "x", "application/zip"),
    (gzip.compress(b"hello"), "x", "application/gzip"),
    (b"PAR1\x15\4", "x", "application/vnd.apache.parquet"),
    (b"", "x", "text/plain"),
    (b"", "x.csv", "text/csv"),
    (b'{"a": [1, null]}', "x", "application/json"),
    (b"\xef\xbb\xbf [1,\n2]", "x", "application/json"),
    (b'{"a": 1}\n{"a": 2}\n', "x", "application/jsonl"),
    (b'{"a": 1}\r\n\r\n[2]', "x", "application/jsonl"),
    (b'{"a": 1}\n', "x.jsonl", "application/jsonl"),
    (b'{"a": 1}\n{"a": ', "x", "text/plain"),
    (b"{not json}", "x.json", "text/plain"),
    (b"[1] is a footnote", "x", "text/plain"),
    (b"a,b\n1,2\n3,4\n", "x", "text/csv"),
    (b'name,"said, he"\n1,"2\n3"\n3,4\n', "x", "text/csv"),
    (b"Well, yes\nNo\nPerhaps, one, two\n", "x", "text/plain"),
    (b"only one column\n1\n", "x.CSV", "text/csv"),
    (b"a\tb\n", "x.tsv", "text/tab-separated-values"),
    (b"# Title\n", "x.md", "text/markdown"),
    (b"<!DOCTYPE html><p>", "x", "text/html"),
    (b"\n <!-- hello --><HTML lang=en>", "x", "text/html"),
    (b"<p>hello", "x.html", "text/html"),
    (b"<p>hello", "x", "text/plain"),
    (b'<?xml version="1.0"?><!-- a --><svg xmlns="http://www.w3.org/2000/svg"/>', "x", "SVG"),
    (b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" [<!ENTITY a "b">]><svg>', "x", "SVG"),
    (b"<svg:svg/>", "x", "SVG"),
    (b"<?xml version='1.0'?><html/>", "x", "text/html"),
    (b"<?xml version='1.0'?><birds/>", "x", "application/xml"),
    (b"<birds/>", "x.xml", "application/xml"),
    ("Grüße, ouzel\n".encode(), "x.exe", "text/plain"),
    ("\ufeffGrüße".encode("utf-16-le"), "x", "text/plain"),
    ("Grüße".encode("latin-1"), "x.txt", UNKNOWN),
    (b"MZ\x90\0\3\0", "x.png", UNKNOWN),
    (b"\x7fELF\2\1\1", "x.csv", UNKNOWN),
    (b"text with a \0 in it", "x.txt", UNKNOWN),
    (b"\x1b[31mred\x1b[0m", "x", "text/plain"),
]


@pytest.mark.parametrize(("head", "name", "expected"), KNOWN)
def test_a_known_kind_is_told(head: bytes, name: str, expected: str) -> None:
    assert sniff(head[:HEAD_BYTES], name) == expected.replace("SVG", "image/svg+xml")


def test_a_real_database_is_told(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x")) as connection:
        connection.execute("CREATE TABLE birds (name)")
    assert sniff((tmp_path / "x").read_bytes()) == "application/vnd.sqlite3"


LONG = [
    (json.dumps({"birds": [{"name": "ouzel é", "legs": 2}] * 900}, ensure_ascii=False), "json"),
    (json.dumps([1.5e-3, True, None, 'a\\"b'] * 900, indent=2), "json"),
    ("\n".join(json.dumps({"n": n, "é": "x" * 50}) for n in range(500)), "jsonl"),
    (json.dumps({"one": "x" * 9000}) + "\n", "json"),
]


@pytest.mark.parametrize(("text", "expected"), LONG)
def test_text_is_told_wherever_the_head_is_cut(text: str, expected: str) -> None:
    whole = text.encode()
    for shift in range(40):
        head = (b" " * shift + whole)[:HEAD_BYTES]
        assert len(head) == HEAD_BYTES
        assert sniff(head) == f"application/{expected}"


def test_long_text_may_be_cut_through_a_character() -> None:
    for shift in range(4):
        assert sniff((b"x" * shift + "🐦 ".encode() * 3000)[:HEAD_BYTES]) == "text/plain"
        rows = b"x" * shift + "🐦,é\n".encode() * 3000
        assert sniff(rows[:HEAD_BYTES]) == "text/csv"


def test_the_first_line_of_long_json_lines_may_be_longer_than_the_head() -> None:
    assert sniff(b'{"a": "' + b"x" * HEAD_BYTES, "x.jsonl") == "application/jsonl"


TYPES = {expected.replace("SVG", "image/svg+xml") for _, _, expected in KNOWN}
TYPES |= {"application/vnd.sqlite3"}

MARKS = [head[:24] for head, _, _ in KNOWN if head]
PIECES = st.one_of(
    st.binary(max_size=64),
    st.sampled_from(MARKS),
    st.text(max_size=64).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([b"<", b"<?", b"<!--", b"<!doctype", b"[", b"{", b'"', b",", b"\n", b"\\"]),
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=12).map(b"".join), st.integers(1, 200), st.text(max_size=20))
@example(b"[" * 200, 41, "")
@example(b'{"a":' * 40, 41, "x.json")
@example(b"PK\3\4" * 50, 41, "x.xlsx")
@example(b"1" * 6000, 1, "x.jsonl")
def test_whatever_it_is_it_has_a_type(piece: bytes, times: int, name: str) -> None:
    whole = (piece * times)[: 2 * HEAD_BYTES]
    found = sniff(whole, name)
    assert found in TYPES
    # Only the head counts, so it does not matter how much of the rest was at hand.
    assert sniff(whole[:HEAD_BYTES], name) == found


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([".png", ".pdf", ".csv", ".html", ".xlsx", ""]))
def test_a_name_never_makes_a_kind_of_what_is_none(noise: bytes, ending: str) -> None:
    assert sniff(b"\0" + noise[:3] + b"\xff" + noise, f"x{ending}") in {
        UNKNOWN,
        "application/pdf" if b"%PDF-" in noise else UNKNOWN,
        "image/heic",
        "image/avif",
    }


@pytest.mark.parametrize(
    "head",
    [
        b"<!--" * 2048,
        b"<?" * 4096,
        b"<!doctype [" * 700,
        b'["' + b"\\" * 8190,
        b'"a",' * 2000,
        b"[" * HEAD_BYTES,
        b"-" * HEAD_BYTES,
        b"[" + b"-" * 8191,
        b"<" + b" " * 8191,
        b'","' * 2700,
    ],
)
@pytest.mark.timeout(20)  # each takes milliseconds, unless a pattern goes astray
def test_no_head_takes_long(head: bytes) -> None:
    for name in ("x", "x.jsonl", "x.xml"):
        assert sniff(head[:HEAD_BYTES], name) in TYPES
