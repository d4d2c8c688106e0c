"""Files of rows: streamed, whole, and harmless to spreadsheets."""

import csv
import io
import json

import pytest

from fl.views.export import LINES_AT_ONCE, StreamedText, csv_lines, json_lines


def written(cells):
    """Return a row as a spreadsheet reads it from the file."""
    return list(csv.reader(io.StringIO("".join(csv_lines(["a"], [cells])), newline="")))[1]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@cmd", "\t=1", "\r=1"])
def test_a_text_that_begins_like_a_formula_gets_an_apostrophe(text):
    assert written([text]) == [f"'{text}"]


def test_numbers_and_other_texts_are_written_as_they_are():
    assert written([-0.5, 3, "a=b", None, True]) == ["-0.5", "3", "a=b", "", "True"]


def test_an_empty_file_is_still_a_file():
    assert "".join(csv_lines(["a", "b"], [])) == "a,b\r\n"
    assert json.loads("".join(json_lines([]))) == []


def test_a_number_that_is_not_finite_is_null():
    assert json.loads("".join(json_lines([{"loss": float("nan")}]))) == [{"loss": None}]


async def test_a_loop_gets_the_parts_one_after_another():
    numbers = list(range(2 * LINES_AT_ONCE))
    response = StreamedText(json_lines(numbers), content_type="application/json", filename="numbers.json")

    parts = [part async for part in response]

    assert len(parts) == 3
    assert json.loads(b"".join(parts)) == numbers
