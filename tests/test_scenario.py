"""Scenarios as users write them: presets, sums of parts, own names, TOML files, and a clear line for each mistake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task import scenario as scenarios
from task.config import parse
from task.errors import UserError
from task.scenario import (
    PARTS,
    Byzantine,
    Dropout,
    FeatureSkew,
    Iid,
    LabelSkew,
    Outlier,
    Pathological,
    QuantitySkew,
    Scenario,
    Straggler,
    UnevenWork,
    draw_clients,
    resolved,
    scenario_from_toml,
    scenario_of,
)


def refused(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_alone_is_a_scenario_with_its_documented_defaults(name):
    assert scenario_of(name) == Scenario(name, (PARTS[name](),))
    assert all(f"{option}:" in (PARTS[name].__doc__ or "") for option in PARTS[name].model_fields)


def test_the_names_are_those_of_the_documentation():
    assert list(PARTS) == [
        "iid", "quantity-skew", "label-skew", "pathological", "feature-skew", "uneven-work", "dropout", "straggler",
        "byzantine", "outlier",
    ]  # fmt: skip


def test_parts_add_up_in_any_order():
    one = scenario_of("label-skew:alpha=0.1,least=3+uneven-work:low=2+dropout:p=0.5")
    other = scenario_of("dropout:p=0.5+uneven-work:low=2+label-skew:least=3,alpha=0.1")
    assert one.parts == other.parts == (LabelSkew(alpha=0.1, least=3), UnevenWork(low=2), Dropout(p=0.5))
    assert one.name == "label-skew:alpha=0.1,least=3+uneven-work:low=2+dropout:p=0.5"
    assert one.find(UnevenWork) == UnevenWork(low=2, high=5, slow=0)
    assert one.find(Straggler) is None


def test_options_of_every_kind():
    read = scenario_of("straggler:slow=2,factor=1e1,partial=true+byzantine:attack=alie,strength=null,attackers=2")
    assert read.parts == (
        Straggler(slow=2, factor=10.0, partial=True), Byzantine(attack="alie", attackers=2)
    )  # fmt: skip
    assert scenario_of("feature-skew:kind=brightness").parts == (FeatureSkew(kind="brightness", strength=None),)


def test_the_strengths_of_features_that_hold():
    assert [FeatureSkew(kind=kind).s for kind in ("noise", "rotation", "brightness")] == [0.5, 45, 0.8]
    assert FeatureSkew(kind="rotation", strength=10).s == 10


def test_a_name_of_ones_own():
    read = scenario_of("hospitals-2=label-skew:alpha=0.1+dropout:p=0.3")
    assert (read.name, read.parts) == ("hospitals-2", (LabelSkew(alpha=0.1), Dropout(p=0.3)))
    assert scenario_of("straggler=dropout").parts == (Dropout(),)  # a name is a name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no scenario ''; choose of iid, quantity-skew, label-skew"),
        ("label-skw", "no scenario 'label-skw'; did you mean 'label-skew'?"),
        ("iid+", "no scenario ''"),
        ("label-skew+label-skew", "label-skew is given twice"),
        ("label-skew:alpha=1,alpha=2", "alpha of label-skew is given twice"),
        ("label-skew:alpha", "options are written as NAME:option=value,option=value"),
        ("label-skew:=1", "options are written as NAME:option=value,option=value"),
        ("label-skew:beta=1", "label-skew has no option 'beta'; there are alpha, least"),
        ("label-skew:alpha=0", "alpha: Input should be greater than 0 (got 0)"),
        ("label-skew:alpha=NaN", "alpha: Input should be "),
        ("label-skew:alpha=Infinity", "alpha: Input should be a finite number"),
        ("label-skew:alpha=many", "alpha: Input should be a valid number, unable to parse string as a number"),
        ("label-skew:least=" + "9" * 5000, "least: "),
        ("quantity-skew:least=1.5", "least: Input should be a valid integer"),
        ("pathological:classes=0", "classes: Input should be greater than or equal to 1 (got 0)"),
        ("dropout:p=1", "p: Input should be less than 1 (got 1)"),
        ("uneven-work:low=6", "low (6) is more than high (5)"),
        ("feature-skew:kind=colour", "kind: Input should be 'noise', 'rotation' or 'brightness' (got 'colour')"),
        ("feature-skew:kind=brightness,strength=1", "strength of brightness must be below 1"),
        ("byzantine:attack=flip", "attack: Input should be 'sign-flip'"),
        ("outlier:clients=0", "clients: Input should be greater than or equal to 1"),
        ("iid+pathological", "iid and pathological both say who gets which examples; choose one"),
        ("my hospitals=iid", "the name 'my hospitals' is no word of letters, digits"),
        ("=iid", "the name '' is no word"),
        ("mine=", "no scenario ''"),
        ("mine.toml", "or a .toml file"),
    ],
)
def test_what_is_no_scenario_is_one_line_that_repeats_it(text, says):
    message = refused(scenario_of, text)
    assert says in message
    assert repr(text)[:80] in message


# TOML -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    def write(text, name="hospitals.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_file_is_called_like_itself_or_as_it_says(file):
    path = file("[label-skew]\nalpha = 0.1\n[dropout]\n")
    parts = (LabelSkew(alpha=0.1), Dropout())
    assert scenario_from_toml(path) == Scenario("hospitals", parts)
    assert scenario_from_toml(file('name = "five"\n[dropout]\n[label-skew]\nalpha = 0.1')) == Scenario("five", parts)


def test_a_run_keeps_the_content_of_a_file(file, tmp_path, monkeypatch):
    path = file("[outlier]\nkind = 'noise'\n[byzantine]\nattack = 'alie'\n")
    text = resolved(str(path))
    assert text.startswith("hospitals=")
    assert scenario_of(text) == scenario_from_toml(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolved("~/hospitals.toml") == text
    path.unlink()
    assert parse({"scenario": ["iid", text]}).scenarios[1].find(Outlier) == Outlier(kind="noise")
    assert resolved("label-skew:alpha=0.10") == "label-skew:alpha=0.10"
    assert "did you mean 'iid'?" in refused(resolved, "idd")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no part; write a table such as [label-skew]"),
        ('name = "x"', "has no part"),
        ("[label-skew", "Expected ']'"),
        (b"\xff\xfe", "can't decode"),
        ("alpha = 1", "'alpha' is no table; parts are written as [alpha]"),
        ("[label-skw]", "no scenario 'label-skw'; did you mean 'label-skew'?"),
        ("[label-skew]\nalpha = -1", "alpha: Input should be greater than 0 (got -1)"),
        ("[label-skew.deeper]\nalpha = 1", "label-skew has no option 'deeper'"),
        ("[iid]\n[label-skew]", "both say who gets which examples"),
        ('name = "a b"\n[iid]', "the name 'a b' is no word"),
        ("name = 3\n[iid]", "the name 3 is no word"),
    ],
)
def test_a_bad_file_is_named(file, text, says):
    path = file(text)
    message = refused(scenario_from_toml, path)
    assert says in message
    assert str(path) in message


def test_a_file_that_cannot_be_read(tmp_path):
    assert refused(resolved, str(tmp_path / "none.toml")).endswith("none.toml: No such file or directory")
    (tmp_path / "folder.toml").mkdir()
    assert "Is a directory" in refused(resolved, str(tmp_path / "folder.toml"))


# What they say --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("iid", "iid"),
        ("uneven-work+dropout+straggler", "iid"),
        ("mine=iid+byzantine:attack=alie", "iid"),
        ("label-skew:alpha=1+uneven-work", "label-skew:alpha=1.0,least=10"),
        ("outlier+feature-skew", "feature-skew:kind=noise+outlier:clients=1,kind=labels,factor=10.0"),
        (
            "outlier:kind=noise+byzantine:attack=label-flip,attackers=2,strength=3",
            "byzantine:attack=label-flip,attackers=2+outlier:clients=1,kind=noise,factor=10.0",
        ),
    ],
)
def test_what_the_data_depend_on(text, cut):
    found = scenario_of(text).cut
    assert found.name == cut
    assert scenario_of(cut) == found  # its name says all of it
    assert found.cut == found


PIECES = (
    st.builds(QuantitySkew, alpha=st.floats(1e-3, 1e3), least=st.integers(1, 99))
    | st.builds(LabelSkew, alpha=st.floats(1e-3, 1e3))
    | st.builds(Pathological, classes=st.integers(1, 9))
    | st.just(Iid()),
    st.builds(FeatureSkew, kind=st.sampled_from(["noise", "rotation"]), strength=st.none() | st.floats(0.01, 90)),
    st.builds(UnevenWork, low=st.integers(1, 3), high=st.integers(3, 9)),
    st.builds(Straggler, partial=st.booleans(), spread=st.floats(0, 2)),
    st.builds(Byzantine, attack=st.sampled_from(["nan", "mimic"]), strength=st.none() | st.floats(0.1, 9)),
)


@given(st.tuples(*(st.none() | piece for piece in PIECES)).map(lambda parts: tuple(filter(None, parts))).filter(bool))
def test_what_is_written_is_read_back(parts):
    written = Scenario("any", parts).written
    assert scenario_of(f"any={written}") == Scenario("any", parts)


@given(st.integers(0, 2**40), st.integers(1, 30), st.data())
def test_who_plays_a_part(seed, clients, data):
    count = data.draw(st.integers(0, clients))
    drawn = draw_clients(seed, "slow", clients, count)
    assert len(set(drawn)) == count
    assert list(drawn) == sorted(drawn)
    assert set(drawn) <= set(range(clients))
    assert drawn == draw_clients(seed, "slow", clients, count)
    assert set(drawn) <= set(draw_clients(seed, "slow", clients, clients))


def test_every_client_is_drawn_about_as_often_as_any_other():
    drawn = [draw_clients(seed, "attackers", 5, 2) for seed in range(500)]
    times = [sum(client in chosen for chosen in drawn) for client in range(5)]
    assert sum(times) == 1000
    assert all(abs(each - 200) < 4 * (500 * 0.4 * 0.6) ** 0.5 for each in times)  # binomial(500, 2/5)
    assert drawn != [draw_clients(seed, "slow", 5, 2) for seed in range(500)]


def test_roles_and_who_is_too_many():
    read = scenario_of("uneven-work:slow=1+straggler:slow=3+byzantine:attackers=2")
    assert read.slow(0, 5) == draw_clients(0, "slow", 5, 3)
    assert set(draw_clients(0, "slow", 5, 1)) <= set(read.slow(0, 5))
    assert read.attackers(0, 5) == draw_clients(0, "attackers", 5, 2)
    assert (scenario_of("iid").slow(0, 5), scenario_of("iid").attackers(0, 5)) == ((), ())
    assert refused(read.attackers, 0, 2).endswith("2 attackers of 2 clients leave nobody honest")
    assert refused(read.slow, 0, 2) == "3 clients cannot be slow, there are 2; give fewer"


def test_a_run_names_each_scenario_once():
    assert "scenario are given twice" in refused(parse, {"scenario": ["iid", "iid"]})
    assert "scenario are given twice" in refused(parse, {"scenario": ["mine=iid", "mine=dropout"]})
    assert [each.name for each in parse({"scenario": ["iid", "mine=iid"]}).scenarios] == ["iid", "mine"]
    assert scenarios.scenario_of("iid").written == "iid"
