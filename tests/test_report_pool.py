"""`python -m server.report`: runs become one page only where nothing but seeds, scenarios and strategies differs."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import made_up_run

from server.report.__main__ import main
from server.report.pool import pool
from server.report.read import read_run
from server.report.write import titles
from server.results import ONE_SHOT, RunFolder
from server.summary import Outcome


def pooled(*folders: Path) -> Outcome:
    return Outcome.read(pool([read_run(folder) for folder in folders]))


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("python -m server.report: ") and told.count("\n") == 1
    return told


def test_seeds_of_several_runs_are_one_comparison(tmp_path: Path) -> None:
    one = made_up_run(tmp_path / "one", seeds=(0, 2))
    two = made_up_run(tmp_path / "two", seeds=(1, 3, 4))
    whole = made_up_run(tmp_path / "whole", seeds=(0, 1, 2, 3, 4))
    found, known = pooled(one, two), pooled(whole)
    assert found.rounds == known.rounds
    assert {row.seeds for row in found.comparisons} == {5}
    assert found.run["config"]["seeds"] == [0, 1, 2, 3, 4]
    # The same statistics; what clients measured is drawn anew by each made-up run.
    accuracy = [[row for row in one.comparisons if row.metric == "test_accuracy"] for one in (found, known)]
    assert accuracy[0] == accuracy[1]


def test_scenarios_become_panels_and_strategies_lines(tmp_path: Path) -> None:
    told = [{"weights_by": {"fedavg": "clients", "weighted": "examples"}}, {"weights_by": {"fedavg": "clients"}}]
    one = made_up_run(tmp_path / "one", ["iid"], ["fedavg", "weighted"], run=told[0])
    two = made_up_run(tmp_path / "two", ["byzantine"], ["fedavg"], run=told[1])
    three = made_up_run(tmp_path / "three", ["byzantine"], ["fedmedian"])
    found = pooled(one, two, three)
    assert list(dict.fromkeys((row.scenario, row.strategy) for row in found.rounds)) == [
        ("iid", "fedavg"),
        ("iid", "weighted"),
        ("byzantine", "fedavg"),
        ("byzantine", "fedmedian"),
    ]
    assert {(row.a, row.b) for row in found.comparisons if row.scenario == "byzantine"} == {("fedavg", "fedmedian")}
    assert set(found.run["scenarios"]) == {"iid", "byzantine"}
    assert found.run["weights_by"] == told[0]["weights_by"]


def test_the_title_says_with_how_many_seeds(tmp_path: Path) -> None:
    few = made_up_run(tmp_path / "few", ["iid"], seeds=(0, 1))
    more = made_up_run(tmp_path / "more", ["outlier"], seeds=(0, 1, 2))
    most = made_up_run(tmp_path / "most", ["label-skew"], seeds=(0, 1, 2, 3))
    one = made_up_run(tmp_path / "one", ["byzantine"], seeds=(5,))
    assert titles(pooled(few))[1] == "iid, mean (line) and 95 % interval (band) of 2 seeds"
    assert titles(pooled(few, more, most))[1] == "mean (line) and 95 % interval (band) of 2 to 4 seeds"
    assert titles(pooled(one))[1] == "byzantine, seed 5"


def test_the_page_of_several_runs_says_all_their_commands(tmp_path: Path) -> None:
    one = made_up_run(tmp_path / "one", seeds=(0,), run={"command": ["python", "sim.py", "--first"]})
    two = made_up_run(
        tmp_path / "two", seeds=(1,), run={"command": ["python", "sim.py", "--second"], "status": "failed"}
    )
    assert main([str(one), str(two), "--out", str(tmp_path / "new" / "both.html")]) == 0
    page = (tmp_path / "new" / "both.html").read_text(encoding="utf-8")
    assert "python sim.py --first" in page and "python sim.py --second" in page
    assert "one+two" in page and ">failed<" in page
    assert not (tmp_path / "new" / "curves.png").exists()
    assert main([str(one), str(two), "--out", str(tmp_path / "folder")]) == 0
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["curves.png", "report.html"]


def test_one_run_is_written_again_in_its_place_and_untouched_otherwise(tmp_path: Path, capsys: Any) -> None:
    folder = made_up_run(tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    after = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert set(after) - set(before) == {folder / "report.html", folder / "curves.png"}
    assert all(after[path] == content for path, content in before.items())


def test_a_run_that_is_still_written_can_be_read(tmp_path: Path) -> None:
    folder = made_up_run(tmp_path / "run")
    with RunFolder.resume(folder), (folder / "rounds.csv").open("a", encoding="utf-8") as torn:
        torn.write("iid,fedavg,0,9,0.5")
        torn.flush()
        assert main([str(folder), "--out", str(tmp_path / "now.html")]) == 0
    assert "after 6 rounds" in (tmp_path / "now.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"rounds": 7}, "--rounds differs (6 and 7)"),
        ({"dataset": "digits"}, "--dataset differs (mnist-5k and digits)"),
        ({"model": "mlp"}, "--model differs (cnn and mlp)"),
        ({"training": {"batch_size": 64}}, "--batch-size differs (32 and 64)"),
        ({"target": 0.8}, "--target differs (0.9 and 0.8)"),
    ],
)
def test_runs_with_another_option_are_refused(tmp_path: Path, capsys: Any, config: dict[str, Any], told: str) -> None:
    one = made_up_run(tmp_path / "one", seeds=(0,))
    two = made_up_run(tmp_path / "two", seeds=(1,), config=config)
    said = refusal(capsys, one, two, "--out", tmp_path / "out")
    assert told in said and str(one) in said and str(two) in said
    assert not (tmp_path / "out").exists()


def test_contradictions_are_refused(tmp_path: Path, capsys: Any) -> None:
    one = made_up_run(tmp_path / "one", seeds=(0,))
    twice = made_up_run(tmp_path / "twice", seeds=(0, 1))
    assert "fedavg with seed 0 in iid is in both" in refusal(capsys, one, twice, "--out", tmp_path / "out")
    assert "fedavg with seed 0 in iid is in both" in refusal(capsys, one, one, "--out", tmp_path / "out")
    shards = {"shards": {"iid/seed0": "other"}}
    other = made_up_run(tmp_path / "other", strategies=["fedprox"], seeds=(0,), run={"data": shards})
    assert "the data of iid/seed0 differ" in refusal(capsys, one, other, "--out", tmp_path / "out")
    run = json.loads((one / "run.json").read_text())
    run["scenarios"]["iid"]["written"] = "iid:other=values"
    changed = made_up_run(tmp_path / "changed", seeds=(5,), run={"scenarios": run["scenarios"]})
    assert "the values of iid differ" in refusal(capsys, one, changed, "--out", tmp_path / "out")
    apart = made_up_run(tmp_path / "apart", strategies=["fedprox"], seeds=(8,))
    assert "share no seed" in refusal(capsys, one, apart, "--out", tmp_path / "out")


def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys: Any) -> None:
    one, two = made_up_run(tmp_path / "one", seeds=(0,)), made_up_run(tmp_path / "two", seeds=(1,))
    assert "--out FILE.html or --out DIR" in refusal(capsys, one, two)
    assert "there is no run in" in refusal(capsys, tmp_path / "nowhere")
    assert "holds a run with a page of its own" in refusal(capsys, one, two, "--out", one)
    broken = made_up_run(tmp_path / "broken")
    (broken / "run.json").write_text("{")
    assert "cannot be read" in refusal(capsys, broken)
    shot = made_up_run(tmp_path / "shot", run={"kind": ONE_SHOT})
    assert "one-shot run" in refusal(capsys, shot)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, capsys: Any) -> None:
    folder = made_up_run(tmp_path / "run")
    assert "choose another place with --out" in refusal(capsys, folder, "--out", folder / "rounds.csv" / "page.html")
