"""Names: what is folded, what a pattern matches, which names are near, and how they are cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceq.errors import PatternError
from traceq.names import (
    Pattern,
    fold_name,
    matching_names,
    middle_out,
    nearest_names,
    shorten,
)

NAMES = [
    "nn.Module: Qwen3_5GatedDeltaNet_0",
    "nn.Module: Qwen3_5GatedDeltaNet_1",
    "nn.Module: Qwen3_5RMSNorm_12",
    "einops/einops.py(561): rearrange",
    "<built-in method flatten of Tensor object at 0x7f3c94a1b2c0>",
    "aten::flatten",
    "aten::reshape",
    "ProfilerStep#3",
]


# Folding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("aten::mul", "aten::mul"),
        ("", ""),
        ("<built-in method mul of Tensor at 0x7f3C94>", "<built-in method mul of Tensor>"),
        ("<function f at 0x1a> calls <function g at 0x2b>", "<function f> calls <function g>"),
        ("einops/einops.py(561): rearrange", "einops/einops.py: rearrange"),
        ("<string>(1): <module>", "<string>: <module>"),
        ("<frozen importlib._bootstrap>(1360): _find", "<frozen importlib._bootstrap>: _find"),
        ("<eval_with_key>.3(4): forward", "<eval_with_key>.3: forward"),
        ("nn.Module: Linear_17", "nn.Module: Linear"),
        ("nn.Module: Qwen3_5GatedDeltaNet_3", "nn.Module: Qwen3_5GatedDeltaNet"),
        ("nn.Module: Linear", "nn.Module: Linear"),
        ("ProfilerStep#12", "ProfilerStep"),
        # What only looks like something that varies is kept.
        ("Linear_17", "Linear_17"),
        ("kernel_0x12", "kernel_0x12"),
        ("void f<int>(int): g", "void f<int>(int): g"),
        ("gemm(128): tile", "gemm: tile"),
        ("void cutlass::K<sm_80_1>(Params)", "void cutlass::K<sm_80_1>(Params)"),
        ("my ProfilerStep#12", "my ProfilerStep#12"),
    ],
)  # fmt: skip
def test_fold_name(name: str, op: str) -> None:
    assert fold_name(name) == op


def test_compiled_graphs_are_one_op() -> None:
    one = "## Call CompiledFxGraph fzvyyrmnoe7bkfbhbqkdqb5ux2bbfhvpnjbezvkhzwqjjs4vwxyz ##"
    two = one.replace("fzvyy", "fabcd")
    assert fold_name(one) == fold_name(two) == "## Call CompiledFxGraph ##"


SOME_NAME = st.one_of(
    st.sampled_from(NAMES),
    st.text(max_size=40),
    st.text("ab/_.()0123:<># x", max_size=40),
    st.builds("nn.Module: {}_{}".format, st.text(max_size=5), st.integers(0, 99)),
)


@given(SOME_NAME)
def test_folding_twice_is_folding_once_for_frames(name: str) -> None:
    # Module classes may end in a number of their own: Conv_2 of Conv_2_0.
    if not name.startswith("nn.Module: "):
        assert len(fold_name(name)) <= len(name)
        if " at 0x" not in name and "(" not in name:
            assert fold_name(fold_name(name)) == fold_name(name)


# Patterns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("flatten", [4, 5]),
        ("Flatten", []),
        ("GatedDeltaNet", [0, 1]),
        ("GatedDeltaNet_1", [1]),
        ("(561)", [3]),
        (".", [0, 1, 2, 3]),
        ("einops.py: rearrange", [3]),  # as the op is shown
        ("einops.py(561): rearrange", [3]),  # as it stands in the trace
        ("Tensor object>", [4]),
        ("aten::*", [5, 6]),
        ("*flatten*", [4, 5]),
        ("flatten*", []),
        ("aten::??????n", [5]),
        ("*GatedDeltaNet_?", [0, 1]),
        ("*GatedDeltaNet", [0, 1]),
        ("*.py(*): *", [3]),
        ("re:^aten::(flatten|reshape)$", [5, 6]),
        ("re:Net_[1-9]$", [1]),
        ("re:(?i)FLATTEN", [4, 5]),
        ("re:.*", list(range(len(NAMES)))),
        ("re::", [0, 1, 2, 3, 5, 6]),
        ("*", list(range(len(NAMES)))),
    ],
)
def test_pattern(pattern: str, matched: list[int]) -> None:
    parsed = Pattern.parse(pattern)
    assert [number for number, name in enumerate(NAMES) if parsed.matches(name)] == matched


def test_star_in_a_glob_goes_over_lines() -> None:
    assert Pattern.parse("a*b").matches("a\n\nb")
    assert not Pattern.parse("a?").matches("a\nb")
    assert not Pattern.parse("*a").matches("a\n")


@given(st.text(min_size=1, max_size=20), st.text(max_size=5), st.text(max_size=5))
def test_plain_text_is_a_part_of_the_name(text: str, left: str, right: str) -> None:
    if not (text.startswith("re:") or "*" in text or "?" in text):
        assert Pattern.parse(text).matches(left + text + right)


@given(st.text(min_size=1, max_size=20))
def test_a_star_before_and_after_is_as_plain_text(text: str) -> None:
    if not (text.startswith("re:") or "*" in text or "?" in text):
        glob, plain = Pattern.parse(f"*{text}*"), Pattern.parse(text)
        for name in [*NAMES, text, f"a{text}\nb"]:
            assert glob.matches(name) == plain.matches(name)


@pytest.mark.parametrize("text", ["", "re:"])
def test_empty_pattern(text: str) -> None:
    with pytest.raises(PatternError, match="a pattern is empty") as caught:
        Pattern.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["re:(", "re:[z-a]", "re:*", "re:(?P<a", "re:a{99999999999}"])
def test_bad_regular_expression(text: str) -> None:
    with pytest.raises(PatternError, match="is not a regular expression") as caught:
        Pattern.parse(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint is not None
    assert "re:" in caught.value.hint


@given(st.text(max_size=12))
def test_any_text_is_a_pattern_or_a_pattern_error(text: str) -> None:
    for candidate in (text, f"re:{text}", f"{text}*"):
        try:
            pattern = Pattern.parse(candidate)
        except PatternError:
            continue
        assert isinstance(pattern.matches("aten::mul"), bool)


# Matching and near names ----------------------------------------------------------------------


def test_matching_names_is_the_union_sorted() -> None:
    found = matching_names(["flatten", "aten::*"], NAMES)
    assert found == sorted([NAMES[4], NAMES[5], NAMES[6]])
    assert matching_names([], NAMES) == []


def test_a_pattern_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(PatternError, match="'rearange'") as caught:
        matching_names(["flatten", "rearange"], NAMES)
    assert caught.value.hint == "Nearest: einops/einops.py: rearrange"


def test_where_nothing_is_near_the_hint_says_where_to_look() -> None:
    with pytest.raises(PatternError) as caught:
        matching_names(["zzzzzzzz"], NAMES)
    assert caught.value.hint is not None
    assert "traceq info" in caught.value.hint
    with pytest.raises(PatternError):
        matching_names(["anything"], [])


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("gateddeltanet", "nn.Module: Qwen3_5GatedDeltaNet"),
        ("FLATTEN", "aten::flatten"),
        ("*rearange*", "einops/einops.py: rearrange"),
        ("re:reshap", "aten::reshape"),
        ("flaten", "aten::flatten"),
    ],
)
def test_nearest_names(text: str, first: str) -> None:
    assert nearest_names(text, NAMES)[0] == first


def test_nearest_names_are_few_distinct_and_short() -> None:
    names = [f"nn.Module: {'Very' * 40}LongFlatten{letter}_1" for letter in "abcdefgh"]
    found = nearest_names("flatten", [*names, *names])
    assert len(found) == len(set(found)) == 5
    assert all(len(name) <= 60 for name in found)
    assert len(nearest_names("flatten", names, count=2)) == 2


@given(st.text(max_size=10), st.lists(SOME_NAME, max_size=6))
def test_nearest_names_takes_anything(text: str, names: list[str]) -> None:
    assert len(nearest_names(text, names)) <= 5


# Shortening -----------------------------------------------------------------------------------

WIDTHS = st.integers(1, 60)
LONG_NAMES = st.one_of(
    st.text(max_size=200),
    st.builds("<built-in method {} of Tensor object>".format, st.text(max_size=80)),
    st.builds("some/folder/of/{}/file.py: {}".format, st.text(max_size=30), st.text(max_size=50)),
    st.sampled_from([fold_name(name) for name in NAMES]),
)


@given(LONG_NAMES, WIDTHS)
def test_shortened_names_fit(name: str, width: int) -> None:
    for short in (shorten(name, width), middle_out(name, width)):
        assert len(short) <= width
        if len(name) <= width:
            assert short == name
        else:
            assert "…" in short


@given(LONG_NAMES, st.integers(3, 60))
def test_middle_out_keeps_both_ends(name: str, width: int) -> None:
    short = middle_out(name, width)
    left, _, right = short.partition("…") if short != name else (name, "", "")
    assert name.startswith(left)
    assert name.endswith(right)
    if short != name:
        assert len(short) == width
        assert abs(len(left) - len(right)) <= 1


@pytest.mark.parametrize(
    ("name", "width", "short"),
    [
        ("aten::reshape", 13, "aten::reshape"),
        ("aten::reshape", 7, "ate…ape"),
        ("<built-in method reshape of Tensor object>", 41, "<…reshape of Tensor>"),
        ("<built-in function isinstance>", 29, "<…isinstance>"),
        ("a/b/c.py: forward", 16, "…/c.py: forward"),
        ("a/b/c.py: forward", 11, "…/c.p…rward"),
    ],
)
def test_shorten(name: str, width: int, short: str) -> None:
    assert shorten(name, width) == short


def test_shorten_is_quick_on_hostile_names() -> None:
    for name in ("/" * 20_000, "a/" * 20_000 + ".py: ", "<built-in method " + " object" * 5_000):
        assert len(shorten(name, 40)) == 40
        assert len(fold_name(name)) <= len(name)
    assert re.match(r".*…", shorten("(1): " * 10_000, 40))


def test_patterns_are_values() -> None:
    assert Pattern.parse("a") == Pattern.parse("a")
    assert Pattern.parse("a") != Pattern.parse("a*")
