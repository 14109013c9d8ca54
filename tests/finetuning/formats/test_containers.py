from __future__ import annotations

import gzip
import json
import tracemalloc
from io import BytesIO

import pytest

from finetuning.formats import FileRefusedError, Layout, Limits, Severity, detect, parse
from tests.finetuning.formats.reading import SMALL, chat, codes, read, to_lines

JSONL = Layout("jsonl", "chat_messages")
JSON = Layout("json", "chat_messages")
CSV = Layout("csv", "classification")
GOOD = chat("Hi", "Yo")


def examples(results) -> list:
    return [result.example for result in results if result.example]


def test_broken_json_on_line_4012_costs_that_line_only():
    lines = [json.dumps(chat(f"Hi {n}", "Yo")).encode() for n in range(5000)]
    lines[4011] = lines[4011][:-5]
    results = read(b"\n".join(lines), JSONL)
    assert codes(results) == [(4012, "broken_json")]
    assert len(examples(results)) == 4999


def test_every_kind_of_broken_line_is_told_apart():
    bad = [b"[1, 2]", b"42", b"{", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}", b"\xff\xfe{}", b'{"messages": NaN}']
    results = read(b"\r\n".join([*bad, b"", json.dumps(GOOD).encode()]), JSONL)
    assert codes(results) == [
        (1, "not_an_object"),
        (2, "not_an_object"),
        (3, "broken_json"),
        (4, "too_deep"),
        (5, "broken_json"),
        (6, "bad_encoding"),
        (7, "not_messages"),
    ]
    assert results[-1].line == 9 and results[-1].severity is Severity.OK


class EndlessLine(BytesIO):
    """A long line that is made while it is read, with a good row on either side."""

    def __init__(self, size: int, unit: bytes) -> None:
        self.parts = iter([to_lines(GOOD), *[unit * 1000] * (size // len(unit) // 1000), b"\n", to_lines(GOOD)])

    def read(self, size: int = -1) -> bytes:
        return next(self.parts, b"")


def test_a_line_of_200_megabytes_is_refused_without_being_kept():
    tracemalloc.start()
    results = list(parse(EndlessLine(200_000_000, b"x" * 256), JSONL))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert codes(results) == [(2, "row_too_long")]
    assert [result.line for result in results] == [1, 2, 3]
    assert peak < 30_000_000


def test_an_array_value_of_50_megabytes_is_refused_without_being_kept():
    tracemalloc.start()
    data = EndlessLine(50_000_000, b'"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", ')
    data.parts = iter([b"[{}, [", *data.parts, b"], {}]"])
    results = list(parse(data, JSON))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [code for _, code in codes(results)] == ["not_messages", "row_too_long", "not_messages"]
    assert peak < 60_000_000


def test_too_many_fields_in_a_row():
    assert codes(read(to_lines({str(n): 1 for n in range(300)}), JSONL)) == [(1, "too_many_columns")]


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_an_array_is_read_with_the_lines_its_values_begin_on(indent, chunk):
    rows = [chat(f'a "quoted" \\ {{bracket}} ] {n} é 𝄞', "Yo") for n in range(20)]
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    stream = BytesIO(text.encode())
    read_all, stream.read = stream.read, lambda size=-1: read_all(min(chunk, size))
    results = list(parse(stream, JSON))
    assert [result.example.to_dict() for result in results] == rows
    lines = text.split("\n")
    assert all(lines[result.line - 1].lstrip("[, ").startswith("{") for result in results)
    assert len({result.line for result in results}) == (1 if indent is None else 20)


@pytest.mark.parametrize(
    "broken", ['{"messages": }', '{"messages": ["}', '{"a": "no end}', '{"a": {"b": 1}', "nonsense", "{]"]
)
@pytest.mark.parametrize("separator", [",\n", "\n"])
def test_a_broken_value_of_an_array_does_not_take_the_others_with_it(broken, separator):
    good = json.dumps(GOOD)
    array = "[\n" + separator.join([good, broken, good, good]) + "\n]"
    results = read(array.encode(), JSON)
    assert len(examples(results)) == 3
    assert {line for line, _ in codes(results)} == {3}


def test_a_missing_mark_is_made_good_by_the_line_end():
    good = json.dumps(GOOD, indent=1)
    broken = good.replace('"Hi"', '"Hi', 1)
    results = read(f"[{', '.join([good, broken, good] * 3)}]".encode(), JSON, limits=Limits(max_resyncs=0))
    assert [bool(result.example) for result in results] == [True, False, True] * 3


def test_objects_over_several_lines_are_read():
    data = "\n".join(json.dumps(GOOD, indent=2) for _ in range(3)).encode()
    assert [result.line for result in read(data)] == [1, 13, 25]


def test_an_array_cut_off_ends_with_an_error():
    data = json.dumps([GOOD] * 3).encode()
    results = read(data[:-1], JSON)
    assert len(examples(results)) == 3 and codes(results) == [(1, "broken_json")]
    assert codes(read(data + b" more", JSON))[-1] == (1, "broken_json")


def test_closing_brackets_alone_end():
    assert {code for _, code in codes(read(b"{}]]]}}", JSON))} == {"not_messages", "broken_json"}


def test_csv_cells_over_lines_quotes_and_windows_line_ends():
    data = b'text,label\r\n"He said ""no"",\r\nthen left",neg\r\n\r\nplain,pos\r\n'
    results = read(data, CSV)
    assert [(r.line, r.example.text, r.example.label) for r in results] == [
        (2, 'He said "no",\nthen left', "neg"),
        (5, "plain", "pos"),
    ]


def test_a_quotation_mark_that_is_never_closed_costs_its_own_line():
    rows = [f"text {n},pos" for n in range(30_000)]
    rows[10] = '"never closed,pos'
    results = read("\n".join(["text,label", *rows]).encode(), CSV)
    assert codes(results) == [(12, "unclosed_quote")]
    assert len(examples(results)) == 29_999


def test_lines_that_open_quotes_forever_end():
    data = b"text,label\n" + b'a"b,"c\n' * 60_000
    results = read(data, CSV, limits=Limits(max_row_bytes=100_000, max_resyncs=5))
    assert not examples(results) and len(results) >= 5


def test_csv_rows_with_another_number_of_cells_are_errors():
    results = read(b"text,label\na,b,c\nalone\nfine,pos\n", CSV)
    assert codes(results) == [(2, "wrong_cell_count"), (3, "wrong_cell_count")]


def test_csv_cells_are_never_read_as_anything_but_text():
    results = read(b"text,label\n007,1\nTRUE,01\nNA,nan\n1e5,1.0\n", CSV)
    assert [(r.example.text, r.example.label) for r in results] == [
        ("007", "1"),
        ("TRUE", "01"),
        ("NA", "nan"),
        ("1e5", "1.0"),
    ]


def test_csv_with_nul_and_bytes_of_another_encoding():
    results = read(b"text,label\na\x00b,pos\ncaf\xe9,pos\nfine,pos\n", CSV)
    assert codes(results) == [(2, "nul"), (3, "bad_encoding")]


def test_csv_without_a_header_counts_its_columns():
    layout = Layout("csv", "classification", has_header=False, columns={"text": "column 2", "label": "column 1"})
    (result,) = read(b"pos,fine\n", layout)
    assert (result.line, result.example.text) == (1, "fine")


def test_csv_with_too_many_or_equal_columns_is_refused():
    for header in (",".join(f"c{n}" for n in range(300)), "text,text"):
        with pytest.raises(FileRefusedError):
            read(header.encode() + b"\na,b\n", CSV)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("chunk", [1, 3, 4096])
def test_the_encoding_is_found_and_said(encoding, chunk):
    text = "text,label\r\n" + "Das Café war schön – wirklich,pos\r\nplain and long enough,neg\r\n" * 20
    stream = BytesIO(text.encode(encoding))
    found = detect(stream)
    assert found.layout.encoding == encoding
    assert ("UTF-8" in found.reason) or ("UTF-16" in found.reason) or ("Windows-1252" in found.reason)
    read_all, stream.read = stream.read, lambda size=-1: read_all(min(chunk, size))
    results = list(parse(stream, found.layout))
    assert results[0].example.text == "Das Café war schön – wirklich" and len(results) == 40


def test_an_encoding_that_shows_late_is_still_found():
    data = b"text,label\n" + b"plain,pos\n" * 100_000 + "café,neg\n".encode("cp1252")
    assert detect(BytesIO(data)).layout.encoding == "cp1252"


def test_lines_of_two_encodings_are_said_and_refused_one_by_one():
    data = b"text,label\n" + "café,pos\n".encode() * 3 + "café,neg\n".encode("cp1252")
    found = detect(BytesIO(data))
    assert found.layout.encoding == "utf-8" and "1 lines that are not" in found.reason
    assert codes(read(data, found.layout)) == [(5, "bad_encoding")]


def test_utf_16_cut_in_a_character_costs_the_last_row_only():
    data = "text,label\nfine,pos\nmore,neg\n".encode("utf-16")
    results = read(data[:-3], Layout("csv", "classification", encoding="utf-16"))
    assert len(examples(results)) == 1 and codes(results) == [(3, "bad_encoding")]


def test_plain_text_gives_a_row_a_line():
    results = read(b"One.\r\n\r\n  \nTwo.\n", Layout("lines", "text"))
    assert [(r.line, r.example.text) for r in results] == [(1, "One."), (4, "Two.")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty_file"),
        (b" \n\r\n ", "empty_file"),
        (b"\xef\xbb\xbf", "empty_file"),
        (gzip.compress(to_lines(GOOD), mtime=0), "compressed"),
        (b"PK\x03\x04" + bytes(100), "compressed"),
        (b"%PDF-1.7 ...", "binary_file"),
        (b"abc\x00\x01\x02\x00\x00def", "binary_file"),
        (b"PAR1 and then nothing", "broken_file"),
    ],
)
def test_what_cannot_be_read_at_all_is_refused(data, expected):
    with pytest.raises(FileRefusedError) as refused:
        detect(BytesIO(data))
    assert refused.value.code == expected


def test_progress_is_told_by_bytes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(to_lines(*[chat("Hi" * 500, "Yo")] * 2000))
    told = []
    list(parse(path, JSONL, on_progress=lambda done, total: told.append((done, total))))
    size = path.stat().st_size
    assert len(told) > 5 and told[-1] == (size, size)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def write_parquet(path, table, **options) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(table), path, **options)


def test_parquet_in_row_groups(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = [chat(f"Hi {n}", "Yo") for n in range(1000)]
    write_parquet(path, {"messages": [row["messages"] for row in rows]}, row_group_size=300)
    told = []
    found = detect(path)
    results = list(parse(path, found.layout, on_progress=lambda done, total: told.append(done)))
    assert found.layout.container == "parquet"
    assert [result.example.to_dict() for result in results] == rows
    assert [result.line for result in results] == list(range(1, 1001)) and len(told) == 4


def test_parquet_of_typed_columns(tmp_path):
    path = tmp_path / "rows.parquet"
    write_parquet(path, {"text": ["a", None, "c"], "label": [1, 0, None]})
    results = list(parse(path, detect(path).layout))
    assert results[0].example.label == "1"
    assert codes(results) == [(2, "missing_field"), (3, "missing_label")]


def test_parquet_that_unpacks_to_far_more_is_refused_row_by_row(tmp_path):
    path = tmp_path / "bomb.parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    value = "x" * 3_000_000
    array = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000 + [1], pa.int32()), pa.array([value, "fine"]))
    pq.write_table(pa.table({"text": array, "label": ["pos"] * 20_001}), path)
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    results = list(parse(path, Layout("parquet", "classification"), limits=Limits(max_row_bytes=1_000_000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(results) == 20_001 and len(examples(results)) == 1
    assert {code for _, code in codes(results)} == {"row_too_long"} and peak < 100_000_000


def test_a_parquet_file_damaged_in_the_middle_ends_with_an_error(tmp_path):
    path = tmp_path / "rows.parquet"
    write_parquet(path, {"text": [f"text {n} " * 20 for n in range(5000)]}, row_group_size=1000)
    data = bytearray(path.read_bytes())
    layout = detect(path).layout
    middle = len(data) // 2
    data[middle : middle + 4000] = b"\xff" * 4000
    path.write_bytes(data)
    results = list(parse(path, layout))
    assert codes(results)[-1][1] == "broken_file" and 1000 <= len(examples(results)) < 5000


def test_small_limits_hold_for_every_container():
    for layout, data in [
        (JSONL, to_lines(chat("x" * 3000, "Yo"))),
        (JSON, b"[" + to_lines(chat("x" * 3000, "Yo")) + b"]"),
        (CSV, b"text,label\n" + b"x" * 3000 + b",pos\n"),
        (Layout("lines", "text"), b"x" * 3000),
    ]:
        assert [code for _, code in codes(read(data, layout, limits=SMALL))] == ["row_too_long"], layout
