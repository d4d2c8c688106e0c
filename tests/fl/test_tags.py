"""Tags: short, few, and each once."""

import pytest

from fl.exceptions import Invalid
from fl.tags import LONGEST_TAG, MAX_TAGS, checked_tags


def test_blanks_and_repetitions_go_and_the_order_stays():
    assert checked_tags([" ward 7 ", "", "ICU", "icu", "ward  7"]) == ["ward 7", "ICU"]


@pytest.mark.parametrize(
    "tags", [["x" * (LONGEST_TAG + 1)], ["a,b"], ["nul\0"], [f"t{number}" for number in range(MAX_TAGS + 1)]]
)
def test_what_is_no_tag_is_refused(tags):
    with pytest.raises(Invalid) as refusal:
        checked_tags(tags)

    assert refusal.value.field == "tags"
