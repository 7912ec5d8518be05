"""The record grammar: round trips, error messages with their place, and robustness against arbitrary input."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import LINE, ORDER
from nomnom.grammar import Grammar, Problem, Record, RecordError
from nomnom.schema import load_schema, parse_schema
from record_strategies import messages

SCHEMAS = {name: load_schema(name) for name in ("tpch", "ecommerce")}
GRAMMARS = {name: Grammar(schema) for name, schema in SCHEMAS.items()}
TPCH = GRAMMARS["tpch"]
EVERY = parse_schema(
    """\
schema: every
entities:
  - name: every
    tag: E
    key: [big]
    fields:
      - {name: big, type: bigint}
      - {name: small, type: integer, nullable: true, min: -5}
      - {name: amount, type: "decimal(9,4)", max: 100}
      - {name: share, type: "decimal(2,2)", nullable: true}
      - {name: day, type: date, nullable: true, min: "2000-01-01"}
      - {name: at, type: timestamp, nullable: true}
      - {name: flag, type: boolean, nullable: true}
      - {name: code, type: char(3)}
      - {name: kind, type: varchar(9), values: [new, old]}
      - {name: words, type: text}
""",
    "every",
)
GRAMMARS["every"] = Grammar(EVERY)
SCHEMAS["every"] = EVERY
ANY = st.sampled_from(sorted(GRAMMARS))


@st.composite
def formatted(draw: st.DrawFn) -> tuple[str, list[Record]]:
    name = draw(ANY)
    return name, draw(messages(SCHEMAS[name]))


def _values(records: list[Record]) -> list[tuple[str, tuple[object, ...]]]:
    return [(each.entity.name, each.values) for each in records]


@given(formatted())
def test_formatted_messages_parse_back(given_records: tuple[str, list[Record]]) -> None:
    name, records = given_records
    grammar = GRAMMARS[name]
    text = grammar.write(records)
    read = grammar.parse(text)
    assert _values(read) == _values(records)
    assert grammar.write(read) == text


@given(formatted(), st.sampled_from(["|", "\r", "\n", "\r\n", "\n\n"]))
def test_line_endings_and_trailing_separators_are_optional(given_records: tuple[str, list[Record]], end: str) -> None:
    name, records = given_records
    lines = GRAMMARS[name].write(records).split("\n")
    if end == "|":
        text = "\n".join(line if line.endswith("|") else line + "|" for line in lines)
    else:
        text = (end if end != "\r" else "\r\n").join(lines) + end
    assert _values(GRAMMARS[name].parse(text)) == _values(records)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str]:
    """A message with some characters removed, inserted or replaced."""
    name, records = draw(formatted())
    text = list(GRAMMARS[name].write(records))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(["|", "\\", "\n", "\0", "-", "9", "٣", "", " ", "x", "\u2028", "😀"]))
        text[at : at + draw(st.integers(0, 2))] = [piece]
    return name, "".join(text)


@settings(max_examples=300)
@given(damaged())
def test_fast_and_slow_path_agree(given_text: tuple[str, str]) -> None:
    """The compiled expression and field-by-field parsing accept the same lines, with the same values."""
    name, text = given_text
    grammar = GRAMMARS[name]
    for line in text.split("\n"):
        if "\\" in line:
            continue  # only the slow path resolves escapes
        fast = grammar._read(line)
        try:
            slow = grammar._parse_fields(line, 1)
        except RecordError:
            assert fast is None
        else:
            assert fast is not None
            assert fast.values == slow.values


@st.composite
def several(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Messages of one schema, some of them damaged."""
    name = draw(ANY)
    valid = messages(SCHEMAS[name]).map(GRAMMARS[name].write)
    odd = damaged().map(lambda each: each[1])
    single = valid.map(lambda text: text.split("\n")[0])
    return name, draw(st.lists(single | single | valid | odd | st.just("") | st.just("\n"), max_size=6))


@settings(max_examples=500)
@given(several())
@example(("tpch", [ORDER, "", ORDER, "\n", ORDER.replace("2024-01-01", "2024-02-30"), f"{ORDER}\r", "O", "X|1"]))
def test_messages_read_together_are_those_read_one_by_one(given_texts: tuple[str, list[str]]) -> None:
    """Reading columns yields what parsing each message yields, or leaves the message to be parsed."""
    name, texts = given_texts
    grammar = GRAMMARS[name]
    together = grammar.read(texts)
    assert len(together) == len(texts)
    for text, found in zip(texts, together, strict=True):
        if found is not None:
            assert _values([found]) == _values(grammar.parse(text))
        elif "\n" not in text and "\\" not in text:
            layouts = grammar._lines.get(text.partition("|")[0])
            assert not layouts or layouts[0]._read(text) is None


@settings(max_examples=300)
@given(ANY, st.text() | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
@example("tpch", "O" + "|" * 10_000)
@example("tpch", "O|" + "9" * 10_000)
@example("tpch", "O|\\")
@example("every", "E|1||1.5||0000-00-00|9999-12-31T23:59:59-23:59||abc|new|")
def test_arbitrary_text_is_parsed_or_rejected(name: str, text: str) -> None:
    try:
        records = GRAMMARS[name].parse(text)
    except RecordError as error:
        assert error.problems
        assert all(each.line >= 1 and each.expected and each.found for each in error.problems)
    else:
        assert records


@settings(max_examples=300)
@given(damaged())
def test_damaged_messages_are_parsed_or_rejected(given_text: tuple[str, str]) -> None:
    name, text = given_text
    try:
        records = GRAMMARS[name].parse(text)
    except RecordError as error:
        assert str(error)
    else:
        assert GRAMMARS[name].parse(GRAMMARS[name].write(records)) is not None


def test_documented_examples_are_parsed() -> None:
    [order] = TPCH.parse(ORDER)
    assert order.entity.name == "orders"
    assert order.mapping() == {
        "o_orderkey": 123, "o_custkey": 456, "o_orderstatus": "F", "o_totalprice": Decimal("123.45"),
        "o_orderdate": date(2024, 1, 1), "o_orderpriority": "urgent", "o_clerk": "clerk1", "o_shippriority": 1,
        "o_comment": "comment",
    }  # fmt: skip
    [line] = TPCH.parse(LINE)
    assert line.key is None
    assert (line.mapping()["l_orderkey"], line.mapping()["l_linenumber"], line.mapping()["l_tax"]) == (
        None, 1, Decimal("0.07"),
    )  # fmt: skip


def test_child_inherits_the_key_of_its_parent() -> None:
    records = TPCH.parse(f"{ORDER}\n{LINE}\n{LINE.replace('OLI|1|', 'OLI|2|')}")
    assert [each.key for each in records] == [(123,), (123, 1), (123, 2)]
    complete = LINE.replace("OLI|1|789|1|", "OLI|123|789|1|3|")
    assert TPCH.parse(f"{ORDER}\n{complete}")[1].key == (123, 3)
    [single] = TPCH.parse(complete)
    assert single.key == (123, 3)


def test_child_of_another_parent_is_rejected() -> None:
    complete = LINE.replace("OLI|1|789|1|", "OLI|124|789|1|3|")
    with pytest.raises(RecordError) as caught:
        TPCH.parse(f"{ORDER}\n{complete}")
    assert caught.value.problems == (Problem(2, "l_orderkey", 1, "O's o_orderkey, 123", "'124'"),)


def test_trailing_separator_and_empty_last_field_are_distinguished() -> None:
    fifteen = LINE + "|"
    assert TPCH.parse(fifteen)[0].key is None
    sixteen = "OLI|7" + LINE.removeprefix("OLI|1").replace("|789|1|", "|789|1|1|").replace("|test", "|") + "|"
    [record] = TPCH.parse(sixteen)
    assert (record.key, record.values[-1]) == ((7, 1), "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: expected a record, found nothing"),
        ("\n\n", "line 1: expected a record, found nothing"),
        ("X|1", "line 1, field tag: expected one of the tags C, N, O, OLI, P, PS, R, S, found 'X'"),
        ("O", "line 1: expected 9 fields after O, found"),
        ("O|1|2", "line 1: expected 9 fields after O, found 2"),
        (ORDER.replace("123|", "12x|", 1), "line 1, field o_orderkey (1): expected a whole number, found '12x'"),
        (ORDER.replace("123|", "|", 1), "line 1, field o_orderkey (1): expected a whole number, found nothing"),
        (ORDER.replace("123|", f"{2**63}|", 1), "field o_orderkey (1): expected a whole number"),
        (ORDER.replace("|1|", f"|{2**31}|"), "field o_shippriority (8): expected a whole number from -2147483648"),
        (ORDER.replace("123.45", "1.234"), "at most 13 digits before and 2 after the point, found '1.234'"),
        (ORDER.replace("123.45", "1e5"), "field o_totalprice (4)"),
        (ORDER.replace("123.45", "NaN"), "field o_totalprice (4)"),
        (ORDER.replace("123.45", "١٢"), "field o_totalprice (4)"),
        (ORDER.replace("2024-01-01", "2024-02-30"), "field o_orderdate (5): expected a date as YYYY-MM-DD"),
        (ORDER.replace("2024-01-01", "0000-01-01"), "field o_orderdate (5)"),
        (ORDER.replace("2024-01-01", "20240101"), "field o_orderdate (5)"),
        (ORDER.replace("|F|", "|FF|"), "field o_orderstatus (3): expected at most 1 character, found 'FF'"),
        (ORDER.replace("comment", "a\0b"), "field o_comment (9)"),
        (ORDER.replace("comment", "a\\n"), "expected \\| or \\\\ after a backslash"),
        (f"{ORDER}\nC|1", "line 2, field tag: expected a child of O (OLI), found 'C'"),
        (f"R|1|EUROPE|x\n{LINE}", "line 2, field tag: expected no more lines"),
    ],
)
def test_error_messages(text: str, problem: str) -> None:
    with pytest.raises(RecordError) as caught:
        TPCH.parse(text)
    assert problem in str(caught.value)


def test_all_problems_are_reported_together() -> None:
    invalid = ORDER.replace("123|", "x|", 1).replace("2024-01-01", "soon")
    with pytest.raises(RecordError) as caught:
        TPCH.parse(f"{invalid}\n{LINE.replace('0.05', 'five')}")
    assert [(each.line, each.field) for each in caught.value.problems] == [
        (1, "o_orderkey"), (1, "o_orderdate"), (2, "l_discount"),
    ]  # fmt: skip


def test_escapes() -> None:
    [order] = TPCH.parse(ORDER.replace("comment", r"a\|b\\c"))
    assert order.values[-1] == "a|b\\c"
    assert TPCH.write([order]).endswith(r"a\|b\\c")
    # An escape counts as one character.
    limit = "\\|" * 79
    assert TPCH.parse(ORDER.replace("comment", limit))[0].values[-1] == "|" * 79
    with pytest.raises(RecordError, match="at most 79 characters"):
        TPCH.parse(ORDER.replace("comment", limit + "\\|"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("E|1||100.0000|||||abc|new|", None),
        ("E|1||100.0001|||||abc|new|", "at most 100"),
        ("E|1|-6|1|||||abc|new|", "at least -5"),
        ("E|1||1||1999-12-31|||abc|new|", "at least 2000-01-01"),
        ("E|1||1|||||abc|newer|", "one of new, old"),
        ("E|1||1|.25||||abc|old|", None),
        ("E|1||1|1.25||||abc|old|", "at most 0 digits before"),
        ("E|1||1|||2024-01-01T00:00:00+01:00||abc|old|", None),
        ("E|1||1|||2024-01-01T25:00:00||abc|old|", "a time as"),
        ("E|1||1|||0001-01-01T00:00:00+01:00||abc|old|", "a time as"),
        ("E|1||1||||yes|abc|old|", "true or false"),
        ("E|1||1||||true|abcd|old|", "at most 3 characters"),
    ],
)
def test_types_and_constraints(line: str, expected: str | None) -> None:
    if expected is None:
        assert GRAMMARS["every"].parse(line + "|")
        return
    with pytest.raises(RecordError) as caught:
        GRAMMARS["every"].parse(line + "|")
    assert expected in str(caught.value)


def test_times_are_converted_to_utc() -> None:
    [record] = GRAMMARS["every"].parse("E|1||1|||2024-01-01 00:30:00.5+01:00||abc|old||")
    assert record.mapping()["at"] == datetime(2023, 12, 31, 23, 30, 0, 500_000, UTC)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files written by the TPC-H generator."""
    program = Path(sys.executable).with_name("tpchgen-cli")
    if not program.exists():
        pytest.skip("tpchgen-cli is not installed")
    folder = tmp_path_factory.mktemp("tpch")
    subprocess.run([program, "-s", "0.001", "--output-dir", folder], check=True, capture_output=True, timeout=60)
    return folder


@pytest.mark.parametrize("entity", [each.name for each in SCHEMAS["tpch"]])
def test_generated_files_are_parsed_exactly(tables: Path, entity: str) -> None:
    """Each line, prefixed with its tag, is accepted, and its values equal its text."""
    kind = SCHEMAS["tpch"].entity(entity)
    lines = (tables / f"{entity}.tbl").read_text().splitlines()
    assert lines
    for line in lines:
        [record] = TPCH.parse(f"{kind.tag}|{line}")
        assert record.key is not None
        texts = line.removesuffix("|").split("|")
        for each, value, text in zip(kind.fields, record.values, texts, strict=True):
            shown = Decimal(str(value)) if each.type.name == "decimal" else value
            expected: object = Decimal(text) if each.type.name == "decimal" else text
            assert (str(shown) if not isinstance(shown, Decimal) else shown) == expected


def test_each_schema_has_its_own_grammar() -> None:
    with pytest.raises(RecordError, match="one of the tags E, found 'O'"):
        GRAMMARS["every"].parse(ORDER)
