"""Experiments of all kinds, as plain data: whatever they say in words must come back as words."""

from hypothesis import strategies as st

from tuner.experiment.schema import Experiment

# What YAML 1.1, YAML 1.2 or neither takes for a number, a date, a truth value, nothing or a mark.
WORDS = (
    *(
        "1e4",
        "7e5",
        "0o17",
        "12e4567",
        "1_000",
        "190:20:30",
        "0x1F",
        "0b1",
        "007",
        "1.",
        ".5",
        "+1",
        "-",
        "=",
    ),
    *(
        "on",
        "off",
        "yes",
        "n",
        "true",
        "null",
        "Null",
        "~",
        "<<",
        ".inf",
        ".nan",
        "2024-01-01",
        "2001-12-14t21:59:43",
    ),
    *(
        "a: b",
        "#a",
        "- a",
        "? a",
        "!a",
        "&a",
        "*a",
        "%a",
        "@a",
        "`a",
        "---",
        "...",
        "a\u0085",
        "\u2028a",
        "\ufeff",
        "\x7f",
    ),
    *("a\nb", "a\r", " a ", "\t", "é", "😀", "\u202eabc", "a" * 300, "a b " * 100),
)
any_text = (
    st.sampled_from(WORDS) | st.text(max_size=20) | st.text("0123456789eE_+-.:x o~#'\"\n\r\\", max_size=8)
)
plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)

names = any_text.filter(lambda text: _is_taken("name", text))
sources = any_text.filter(lambda text: _is_taken("images", text))
networks = st.fixed_dictionaries(
    {"name": st.sampled_from(["1e4", "0o17", "on", "null", "12e4567", "VGG16"])},
    optional={"weights": sources, "seed": st.integers(0, 2**32 - 1), "input_size": st.integers(1, 999)},
)
experiments = st.fixed_dictionaries(
    {
        "name": names,
        "images": sources,
        "search": st.fixed_dictionaries(
            {"backbone": st.lists(networks, min_size=1, max_size=3, unique_by=lambda spec: spec["name"])},
            optional={
                "regParam": st.floats(0, 10) | st.just("1e-9:1"),
                "elasticNetParam": st.lists(st.floats(0, 1), min_size=1, max_size=3, unique=True),
                "timeout": st.floats(1e-300, 1e300),
                "seed": st.integers(0, 2**32 - 1),
            },
        ),
    },
    optional={
        "cache": sources,
        "registry": st.fixed_dictionaries({"name": names}),
        "gate": st.fixed_dictionaries({"min_gain": st.floats(0, 1)}),
    },
)


def _is_taken(key: str, text: str) -> bool:
    given = {"name": "a", "images": "b", "search": {"backbone": ["VGG16"]}} | {key: text}
    try:
        Experiment.model_validate(given)
    except ValueError:
        return False
    return True
