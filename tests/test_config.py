"""One description of a run, from the command line or from plain values."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.checks import check_strategies
from server.machine import number_of_workers
from server.rounds import Terms, majority, terms_of
from task import seeds
from task.config import RunConfig, Training, parse
from task.errors import UserError
from task.options import Parser, add_run_options, config_and_folder, config_from, with_terms


def command(*arguments: str) -> RunConfig:
    parser = Parser(prog="sim.py")
    add_run_options(parser)
    return config_from(vars(parser.parse_args(arguments)))


def test_defaults_are_the_missions():
    given = "--strategies fednova weighted --rounds 3 --clients 7 --seeds 1 2 --dataset digits --model mlp"
    training = "--steps 9 --batch-size 16 --learning-rate 0.05 --momentum 0.9"
    config = command(*given.split(), *training.split())
    assert config.seeds == (1, 2)
    assert config.training == Training(steps=9, batch_size=16, learning_rate=0.05, momentum=0.9)
    assert parse(config.model_dump(mode="json")) == config


def test_how_clients_begin_is_said_in_every_train_message():
    assert command().train_config(10, 3)["init"] == "shared"
    assert command("--init", "independent").train_config(10, 3)["init"] == "independent"
    assert parse({"rounds": 3}).init == "shared"  # of a run from before there was a choice


def test_only_strategies_without_a_common_start_go_with_independent_ones():
    check_strategies(command("--init", "independent", "--strategies", "fedavg", "fedmedian", "weighted"))
    with pytest.raises(UserError, match=r"^fednova is not defined for --init independent: .* without fednova$"):
        check_strategies(command("--init", "independent"))


def test_a_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("--dataset", "data.npz").dataset == str(tmp_path / "data.npz")
    assert command("--dataset", "mnist").dataset == "mnist"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rounds", "0"], "rounds: Input should be greater than or equal to 1 (got 0)"),
        (["--clients", "-1"], "clients"),
        (["--seeds", "-1"], "seeds"),
        (["--seeds", "1", "1"], "seeds are given twice"),
        (["--strategies", "fedavg", "fedavg"], "strategies are given twice"),
        (["--learning-rate", "0"], "learning_rate"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--momentum", "1"], "momentum"),
        (["--optimizer", "sdg"], "'sgd'"),
        (["--optimizer", "adam", "--momentum", "0.9"], "momentum and nesterov belong to sgd"),
        (["--nesterov"], "nesterov needs a momentum"),
        (["--init", "alone"], "init: Input should be 'shared' or 'independent' (got 'alone')"),
        (["--clients", "5", "--sample", "6"], "sample (6) is more than clients (5)"),
    ],
)
def test_a_value_that_does_not_do_is_one_clear_line(arguments, says):
    with pytest.raises(UserError) as caught:
        command(*arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [["--rounds", "many"], ["--no-such-option"], ["--strategies"]])
def test_what_the_parser_refuses_is_one_line_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        command(*arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_unknown_names_are_refused_not_ignored():
    with pytest.raises(UserError, match="raunds"):
        parse({"raunds": 3})


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (Training(), None),
        (Training(momentum=0.9), None),
        (Training(momentum=0.9, nesterov=True), "Nesterov momentum"),
        (Training(optimizer="adam"), "the optimizer adam"),
    ],
)
def test_where_fednova_has_a_norm(training, reason):
    assert training.norm_undefined == reason


@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(0, 1000))
def test_streams_differ_by_seed_use_and_place(seed, one, other):
    def draw(*where: int, use: str = "shuffle") -> int:
        return int(seeds.stream(seed, use, *where).integers(2**62))

    assert draw(one, other) == draw(one, other)
    assert draw(one, other) != draw(one, other + 1)
    assert draw(one, other) != draw(one, other, use="sample")
    assert 0 <= seeds.integer(seed, "model") < 2**31


def test_workers_need_memory(monkeypatch):
    monkeypatch.setattr("server.machine.available_memory", lambda: 4 * 2**30)
    monkeypatch.setattr("server.machine.cores", lambda: 64)
    assert 1 <= number_of_workers(None, 0) < 64  # as many as fit, not one a core
    assert number_of_workers(2, 0) == 2
    with pytest.raises(UserError, match=r"not enough memory for 9 workers: 4.0 GiB free.*try --workers"):
        number_of_workers(9, 0)
    with pytest.raises(UserError, match="not enough memory"):
        number_of_workers(None, 8 * 2**30)


# When a round counts ------------------------------------------------------------------------------------------------


def test_a_quorum_that_no_round_can_have_is_refused():
    for options in (["--quorum", "6", "--clients", "5"], ["--quorum", "4", "--sample", "3"]):
        with pytest.raises(UserError, match=r"^quorum \(\d\) is more than the \d clients of a round$"):
            command(*options)
    with pytest.raises(UserError, match="max_update_norm: Input should be greater than 0"):
        command("--max-update-norm", "0")
    with pytest.raises(UserError, match="max_relative_norm: Input should be greater than 1"):
        command("--max-relative-norm", "1")


def test_terms_are_those_of_the_configuration_or_of_the_setting():
    assert terms_of(command()) == Terms(None, 1, 1, 0.0, None)
    assert terms_of(command("--quorum", "3")) == Terms(None, 3, 3, 0.0, None)
    assert terms_of(command("--quorum", "3", "--tries", "1", "--max-update-norm", "2.5")).max_norm == 2.5
    assert terms_of(command("--max-relative-norm", "10")).max_relative_norm == 10
    real = command("--clients", "5")
    assert terms_of(real, majority(real), tries=3, deadline=9.0, recovery=60.0) == Terms(9.0, 3, 3, 60.0, None)


def test_a_run_that_goes_on_may_have_other_terms_and_nothing_else():
    begun = command("--rounds", "7")
    assert with_terms(begun, {"quorum": 2, "rounds": 9, "quiet": True}) == begun.model_copy(update={"quorum": 2})
    assert config_and_folder({"resume": "runs/a", "tries": 5}) == (None, Path("runs/a"))
    with pytest.raises(UserError, match="leave out --rounds"):
        config_and_folder({"resume": "runs/a", "tries": 5, "rounds": 9})
