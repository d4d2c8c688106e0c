"""Tags: short words by which people find things again."""

from collections.abc import Iterable

from fl.exceptions import Invalid

MAX_TAGS = 10
LONGEST_TAG = 40
"""Characters."""


def checked_tags(tags: Iterable[str]) -> list[str]:
    """Return tags without blanks around them and without repetitions, upper and lower case being the same.

    Raises:
        Invalid: there are more than MAX_TAGS, or one is longer than LONGEST_TAG, has a comma, or cannot be shown.
    """
    kept: dict[str, str] = {}
    for tag in tags:
        word = " ".join(tag.split())
        if len(word) > LONGEST_TAG or "," in word or not word.isprintable():
            raise Invalid(
                f"the tag {word[:LONGEST_TAG]!r} cannot be: a tag has at most {LONGEST_TAG} characters and no comma",
                field="tags",
            )
        if word:
            kept.setdefault(word.casefold(), word)
    if len(kept) > MAX_TAGS:
        raise Invalid(f"{len(kept)} tags are too many", field="tags", action=f"keep at most {MAX_TAGS}")
    return list(kept.values())
