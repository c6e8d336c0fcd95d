import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.base.wording import first_line, first_sentence, visible


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no good."), "no good"),
        (ValueError("\n  first.  \nsecond."), "first"),
        (ValueError("in version 3.1. or later"), "in version 3.1. or later"),
        (ValueError(), "ValueError()"),
        (KeyError("k"), "'k'"),
    ],
)
def test_the_first_line_is_what_an_error_says_first(error: Exception, expected: str) -> None:
    assert first_line(error) == expected


@given(st.text())
def test_a_first_line_fits_into_a_sentence(text: str) -> None:
    line = first_line(ValueError(text))
    assert len(line.splitlines()) <= 1
    assert line == line.strip()
    assert not line.endswith(".")
    assert line in text or not text.strip()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("It is too large. Make it smaller.", "It is too large"),
        ("It is too large.\nMake it smaller.", "It is too large"),
        ("version 3.1 of it", "version 3.1 of it"),
        ("first\n\nsecond", "first"),
        ("", ""),
    ],
)
def test_the_first_sentence_ends_at_its_full_stop_or_line(message: str, expected: str) -> None:
    assert first_sentence(message) == expected


@given(
    st.lists(st.text("ab c", min_size=1).filter(str.strip), min_size=1),
    st.sampled_from([". ", ".\n", "\n"]),
)
def test_the_first_of_sentences_is_given(sentences: list[str], between: str) -> None:
    first = first_sentence(between.join(sentences))
    assert first.strip() == sentences[0].strip()


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("ñandú <b> 😀", "ñandú <b> 😀"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\x85\u2028b", r"a\x85\u2028b"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_what_cannot_be_seen_is_an_escape(text: str, seen: str) -> None:
    assert visible(text) == seen


@given(st.text())
def test_visible_text_stays_on_its_line(text: str) -> None:
    assert len(visible(text).splitlines()) <= 1
    assert visible(visible(text)) == visible(text)
