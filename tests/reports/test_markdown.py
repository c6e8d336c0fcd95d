import pytest

from tuner.reports.markdown import markdown_table, markdown_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("<b>a & b</b>", "&lt;b&gt;a &amp; b&lt;/b&gt;"),
        ("a|b", r"a\|b"),
        ("*bold* _it_ `code` [link](x)", r"\*bold\* \_it\_ \`code\` \[link\](x)"),
        ("two\n  lines", "two lines"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markup_is_shown_as_it_is(text: str, expected: str):
    assert markdown_text(text) == expected


def test_a_table_has_a_head_and_a_line_for_each_row():
    assert markdown_table(("class", "n"), [("a|b", 1), ("c", 2)]) == [
        "| class | n |",
        "| --- | --- |",
        r"| a\|b | 1 |",
        "| c | 2 |",
    ]
