"""The native scanner against the general way of reading: whatever the input, the same result.

``native.WORTHWHILE`` is the switch: 0 has every chunk scanned, a large number none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests import tracemaker
from tests.conftest import CORPUS
from tests.test_corpus import SMALL
from traceq.errors import TraceReadError
from traceq.kineto import ArgSelection, native, read_trace, scan
from traceq.kineto.events import decode_kind
from traceq.model import TraceData

NEVER = sys.maxsize
PLAIN = '{"ph":"X","cat":"op","name":"n","pid":1,"tid":2,"ts":1.5,"dur":2,"args":{"stream":7}}'


# The same result -----------------------------------------------------------------------------


def content(data: TraceData) -> dict[str, Any]:
    """All of a trace, without the numbers that strings, tracks and flows happen to have."""
    slices, flows = data.slices, data.flows
    _, first, arrow = np.unique(flows.key, return_index=True, return_inverse=True)
    return {
        "slices": [
            slices.ts.tolist(),
            slices.dur.tolist(),
            slices.instant.tolist(),
            texts(data, slices.name),
            texts(data, slices.category),
            [data.tracks[number] for number in slices.track.tolist()],
        ],
        "args": {
            (arg.key, arg.kind): dict(
                zip(
                    arg.row.tolist(),
                    texts(data, arg.value) if arg.kind == "string" else arg.value.tolist(),
                    strict=True,
                )
            )
            for arg in slices.args
        },
        "flows": [
            flows.ts.tolist(),
            flows.role.tolist(),
            flows.binds_next.tolist(),
            first[arrow].tolist(),
            texts(data, flows.category),
            [data.tracks[number] for number in flows.track.tolist()],
        ],
        "others": [
            [sample._replace(track=0) for sample in data.counters],
            [data.tracks[sample.track] for sample in data.counters],
            [event._replace(track=0) for event in data.asyncs],
            [data.tracks[event.track] for event in data.asyncs],
        ],
        "names": [data.process_names, data.thread_names, data.labels, repr(data.metadata)],
        "tracks": set(data.tracks),
        "ledger": data.ledger,
    }


def texts(data: TraceData, numbers: Any) -> list[str | None]:
    return [None if number < 0 else data.strings[number] for number in numbers.tolist()]


def read(path: Path, worthwhile: int, args: ArgSelection = "default") -> Any:
    """The content of a trace, or the error it gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "WORTHWHILE", worthwhile)
        try:
            data = read_trace(path, args=args)
        except TraceReadError as error:
            return error.message
    for arg in data.slices.args:
        assert (np.diff(arg.row) > 0).all()
    return content(data)


def agree(path: Path, args: ArgSelection = "default") -> Any:
    """Read both ways; what both give."""
    scanned, general = read(path, 0, args), read(path, NEVER, args)
    assert scanned == general
    return scanned


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scanner") / "trace.json"


def agree_on(file: Path, text: bytes, args: ArgSelection = "default") -> Any:
    file.write_bytes(text)
    return agree(file, args)


def events_text(*events: str | bytes) -> bytes:
    raw = [event.encode() if isinstance(event, str) else event for event in events]
    return b'{"traceEvents": [\n' + b",\n".join(raw) + b"\n]}"


class Scans(list[bool]):
    """Whether each chunk that was tried was plain."""


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Scans:
    """Records the scans, so that a test can tell that it tested the scanner at all."""
    seen = Scans()
    scan_chunk = native.EventScanner.scan

    def recorded(self: native.EventScanner, text: bytearray, end: int) -> Any:
        result = scan_chunk(self, text, end)
        seen.append(result is not None)
        return result

    monkeypatch.setattr(native.EventScanner, "scan", recorded)
    return seen


# Random traces -------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
ARG_KEYS = (*native.INTEGER_ARGS, *native.TEXT_ARGS, *native.RARE_ARGS)
ARGS = st.dictionaries(st.sampled_from((*ARG_KEYS, "other", "")), VALUES, max_size=6)
NUMBERS = st.one_of(
    st.integers(0, 10**16).map(str),
    st.integers(0, 10**18).map(lambda ns: f"{ns // 1000}.{ns % 1000:03}"),
    st.tuples(st.integers(0, 10**6), st.integers(0, 99)).map("{0[0]}.{0[1]}".format),
)
ODD_NUMBERS = st.sampled_from(
    ["1e5", "-0", "00012", "1.", ".5", "+1", "12345678901234567890", '"7"', "-3", "NaN", "null"]
)
SPACE = st.sampled_from(["", " ", "\n", "\t", "\r\n  ", " " * 40])


def quoted(draw: Any, text: str) -> str:
    """A JSON string, some of it in escapes."""
    plain = json.dumps(text, ensure_ascii=draw(st.booleans()))
    if text and draw(st.integers(0, 9)) == 0:
        plain = f'"\\u{ord(text[0]):04x}{plain[2:]}' if text[0].isalpha() else plain
    return plain


@st.composite
def event_texts(draw: Any) -> str:
    """An event in any arrangement: order of keys, white space, keys twice or missing."""
    fields = {
        "ph": json.dumps(draw(st.sampled_from("XXXXXXsfti"))),
        "name": quoted(draw, draw(tracemaker.NAMES)),
        "cat": quoted(draw, draw(st.sampled_from(["cpu_op", "python_function", "kernel"]))),
        "pid": json.dumps(draw(tracemaker.PIDS)),
        "tid": json.dumps(draw(tracemaker.TIDS)),
        "ts": draw(NUMBERS),
        "dur": draw(NUMBERS),
        "args": json.dumps(draw(ARGS), ensure_ascii=draw(st.booleans())),
    }
    if fields["ph"] in ('"s"', '"f"', '"t"'):
        fields["id"] = draw(st.sampled_from(["1", "2", '"1"', "3", str(10**19)]))
    if draw(st.integers(0, 5)) == 0:
        odd = draw(st.sampled_from(["ts", "dur", "id", "bp", "pid", "cat", "args", "x", "ph"]))
        fields[odd] = draw(st.one_of(ODD_NUMBERS, VALUES.map(json.dumps), st.just('"e"')))
    pairs = [(quoted(draw, key), value) for key, value in fields.items()]
    if draw(st.booleans()):
        pairs = draw(st.permutations(pairs))
    if draw(st.integers(0, 5)) == 0:
        pairs = pairs[draw(st.integers(0, 3)) :] + pairs[: draw(st.integers(0, 3))]
    space = draw(SPACE)
    body = f",{space}".join(f"{key}{space}:{space}{value}" for key, value in pairs)
    return f"{{{space}{body}{space}}}"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(event_texts(), min_size=1, max_size=12), st.sampled_from(["default", "all"]))
@example([PLAIN, PLAIN.replace('"X"', '"i"'), PLAIN], "default")
def test_any_arrangement(file: Path, events: list[str], args: ArgSelection) -> None:
    agree_on(file, events_text(*(event.encode("utf-8", "surrogatepass") for event in events)), args)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(tracemaker.traces(), st.booleans(), st.sampled_from([1 << 23, 700]))
def test_traces_of_any_writer(file: Path, events: Any, spaced: bool, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "CHUNK_SIZE", chunk)
        agree_on(file, tracemaker.spaced(events) if spaced else tracemaker.compact(events))


@pytest.mark.corpus
@pytest.mark.parametrize("name", SMALL)
def test_real_traces(name: str, scans: Scans) -> None:
    agree(CORPUS / name)
    assert any(scans)


# Hostile input -------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(len(PLAIN)))
def test_cut_off_anywhere(file: Path, cut: int) -> None:
    agree_on(file, events_text(PLAIN)[:-3] + b",\n" + PLAIN.encode()[:cut])
    agree_on(file, events_text(PLAIN, PLAIN[:cut], PLAIN))


@pytest.mark.parametrize("position", range(len(PLAIN)))
@pytest.mark.parametrize("byte", [b"\x00", b"\x1f", b"\xff", b'"', b"\\", b"}", b"[", b",", b"9"])
def test_one_byte_changed(file: Path, position: int, byte: bytes) -> None:
    broken = PLAIN.encode()[:position] + byte + PLAIN.encode()[position + 1 :]
    agree_on(file, events_text(PLAIN, broken, PLAIN))


def test_deep_nesting(file: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    agree_on(file, events_text(PLAIN, PLAIN.replace("7", deep), PLAIN))
    agree_on(file, events_text(PLAIN, PLAIN.replace("7", "[" * 100_000), PLAIN))
    for depth in (500, 511, 512, 513):
        agree_on(file, events_text(PLAIN.replace("7", "[" * depth + "]" * depth)))


def test_an_event_larger_than_the_chunk(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = PLAIN.replace('"n"', json.dumps("n" * 5000))
    monkeypatch.setattr(scan, "CHUNK_SIZE", 1000)
    found = agree_on(file, events_text(PLAIN, large, PLAIN))
    assert len(found["slices"][0]) == 3


def test_a_text_larger_than_the_scanner_takes() -> None:
    scanner = native.EventScanner(decode_kind, raw_args=False)
    text = bytearray(PLAIN.replace('"n"', '"' + "n" * (11 << 20) + '"').encode())
    assert scanner.scan(text, len(text)) is None


def test_more_events_than_the_scanner_takes() -> None:
    scanner = native.EventScanner(decode_kind, raw_args=False)
    for count, found in ((131072, 131072), (131073, None)):
        text = bytearray(b",".join([b"{}"] * count))
        plain = scanner.scan(text, len(text))
        assert (plain and plain.count) == found


@pytest.mark.parametrize(
    "name",
    [
        r'"\ud800"',
        r'"\udc00"',
        r'"\ud83d\ude00"',
        r'"\ud83d\u0041"',
        r'"\ud83dx"',
        r'"\u12g4"',
        r'"\x"',
        r'"\"\\\/\b\f\n\r\t"',
        '"\x7f"',
        '"\x1f"',
        "5",
        "null",
        '["n"]',
    ],
)
@pytest.mark.parametrize("place", ['"n"', "7", "1,", '"stream"'])
def test_escapes_and_types(file: Path, name: str, place: str) -> None:
    comma = "," if place.endswith(",") else ""
    agree_on(file, events_text(PLAIN, PLAIN.replace(place, name + comma, 1), PLAIN))


@pytest.mark.parametrize("field", ['"n"', '"op"', "7", '"stream"'])
@pytest.mark.parametrize("raw", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80"])
def test_bytes_that_may_not_be_utf8(file: Path, field: str, raw: bytes) -> None:
    broken = PLAIN.encode().replace(field.encode(), b'"' + raw + b'"', 1)
    agree_on(file, events_text(PLAIN, broken, PLAIN))


# Times and numbers ---------------------------------------------------------------------------


NUMBERS_IN_ANY_FORM = [
    "0",
    "-0",
    "0.0",
    "1e5",
    "1E+5",
    "00012",
    "1.",
    ".5",
    "+1",
    "-1",
    "-",
    "1.0005",
    "0x1",
    "7.000",
    "99.99",
    "1.12345",
    "1e400",
    "123456789012345",
    "1234567890123456",
    "12345678901234567890",
    "9223372036854775807",
    "9223372036854775.807",
    "4600000000000000",
    "3999999999999999.999",
    '"7"',
    "true",
    "null",
    "NaN",
    "Infinity",
    "[1]",
    "{}",
]


@pytest.mark.parametrize("place", ["1.5", "2,", "7"])
@pytest.mark.parametrize(
    "number",
    [*NUMBERS_IN_ANY_FORM, "9" * 400, ""],
)
def test_numbers(file: Path, place: str, number: str) -> None:
    comma = "," if place.endswith(",") else ""
    agree_on(file, events_text(PLAIN, PLAIN.replace(place, number + comma, 1), PLAIN))


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1712195496004644.2", 1712195496004644200),
        ("1712195496004644.27", 1712195496004644270),
        ("1712195496004644.273", 1712195496004644273),
        ("1712195496004644", 1712195496004644000),
        ("3999999999999999.999", 3999999999999999999),
        ("4477455819281.489", 4477455819281489),
        ("123456789012345.001", 123456789012345001),
        ("12345678.001", 12345678001),
        ("123456789.010", 123456789010),
        ("0.001", 1),
        ("0", 0),
        ("7", 7000),
    ],
)
def test_times_are_exact(text: str, nanoseconds: int) -> None:
    scanner = native.EventScanner(decode_kind, raw_args=False)
    event = bytearray(PLAIN.replace("1.5", text).replace('"dur":2', f'"dur":{text}').encode())
    plain = scanner.scan(event, len(event))
    assert plain is not None
    assert (plain.slices.ts.tolist(), plain.slices.dur.tolist()) == ([nanoseconds], [nanoseconds])


# Kinds ---------------------------------------------------------------------------------------


def test_names_never_merge(file: Path) -> None:
    names = [f"{'k' * length}{end}" for length in range(40) for end in ("a", "b", "\x7f")]
    names += [chr(97 + place) * 8 + "x" * 8 for place in range(26)] + ["", "a\0b", "a\0"]
    events = [PLAIN.replace('"n"', json.dumps(name)) for name in names]
    found = agree_on(file, events_text(*events, *events))
    shown = [name.replace("\0", "\N{SYMBOL FOR NULL}") or "[No name]" for name in names]
    assert found["slices"][3] == shown * 2


def test_fields_do_not_run_into_each_other(file: Path) -> None:
    events = [
        PLAIN.replace('"pid":1,"tid":2', f'"pid":{pid},"tid":{tid}')
        for pid, tid in [(1, 12), (11, 2), (112, 0), ('"1"', 12), (1, '"12"')]
    ]
    found = agree_on(file, events_text(*events))
    assert len(set(found["slices"][5])) == len(events)


def test_more_kinds_than_the_scanner_keeps(file: Path, scans: Scans) -> None:
    shape = '{"Input Dims": [[%d]], "stream": 1}'
    events = [
        PLAIN.replace('"n"', f'"{number}"').replace('{"stream":7}', shape % number)
        for number in range(40_000)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "CHUNK_SIZE", 1 << 18)
        agree_on(file, events_text(*events, *events))
    assert all(scans)
    agree_on(file, events_text(*events))  # in one chunk


def test_kinds_in_pieces(file: Path, scans: Scans) -> None:
    event = '{"name":"%s","ts":1,"ph":"X","dur":2,"cat":"op","args":{},"tid":2,"pid":1}'
    found = agree_on(file, events_text(event % "a", event % "b", event % "a"))
    assert found["slices"][3] == ["a", "b", "a"]
    assert scans
    assert all(scans)


def test_the_order_of_the_file(file: Path, scans: Scans) -> None:
    events = [
        PLAIN.replace('"n"', f'"{number}"').replace('"X"', '"i"' if number % 3 else '"X"')
        for number in range(50)
    ]
    found = agree_on(file, events_text(*events))
    assert found["slices"][3] == [str(number) for number in range(50)]
    assert scans
    assert all(scans)


def test_small_input_is_not_worth_a_scanner(file: Path, scans: Scans) -> None:
    file.write_bytes(events_text(PLAIN))
    read_trace(file)
    assert not scans
