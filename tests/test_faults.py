"""What goes wrong between real processes, and what is lost by it: nothing, or what clients.csv says.

The clients are those of the fixture `residents`, and live on from fault to fault.
"""

import signal
import time
from pathlib import Path

import pytest
from federation import CLIENTS, Residents, complete, hashes, read_run, rows, saved_digest

RULES = ["fedavg", "fedmedian"]
SILENCE = 30.0  # seconds that a network is cut
LEFT = "no answer within the deadline of 5 s"


def nothing_lost(residents: Residents, out: Path) -> None:
    """See that a run came to the same bits as without any fault, and that every client's part in it counts."""
    complete(out, CLIENTS, 3, RULES)
    assert hashes(out) == residents.expected


def test_a_client_killed_while_it_trains_is_given_the_same_message_again(residents: Residents):
    server, out = residents.serve()
    half_done = residents.freeze(1, server_round=2)
    residents.clients[1].kill()
    told = len(residents.events(1))
    residents.restart(1)
    assert server.status() == 0, residents.told()
    nothing_lost(residents, out)
    again = [event["event"] for event in residents.events(1)[told:]]
    assert f"training {half_done}" in again and f"{half_done} trained" in " ".join(again)


def test_networks_that_are_silent_for_half_a_minute(residents: Residents):
    """Cut off in both directions, in what it sends, in what is sent to it: one client each, at different moments."""
    network = residents.deployment.network
    if not network.isolated:
        pytest.skip(network.obstacle)
    server, out = residents.serve()
    heal_at = {}

    def cut(number: int, direction: str) -> None:
        residents.deployment.host(number).cut(direction)
        heal_at[number] = time.monotonic() + SILENCE

    server.says("training 3 rounds")
    cut(2, "in")  # before its message is there, or while it comes
    residents.trains(1, server_round=1)
    cut(1, "out")  # while it trains: its answer will not come through
    residents.trains(0, server_round=1)
    cut(0, "both")
    for number, moment in sorted(heal_at.items(), key=lambda item: item[1]):
        time.sleep(max(0.0, moment - time.monotonic()))  # the fault itself, not a wait for anything
        assert server.running
        residents.deployment.host(number).heal()
    assert server.status() == 0, residents.told()
    for number in (0, 1):  # the third one's words still came through for a while
        assert f"client {number} cannot be reached; it is waited for" in server.text
    assert all(client.running for client in residents.clients.values())
    nothing_lost(residents, out)


def test_a_client_past_the_deadline_is_left_out_of_that_round_and_welcome_in_a_later_one(residents: Residents):
    server, out = residents.serve("--rounds", 5, "--steps", 2000, "--round-deadline", 5, "--quorum", 2)
    residents.trains(1, server_round=2)
    residents.clients[1].send(signal.SIGSTOP)
    server.says(f"client 1 failed: {LEFT}")
    server.says(f"client 1 failed: {LEFT}")  # in both strategies
    residents.clients[1].send(signal.SIGCONT)
    assert server.status() == 0, residents.told()
    assert {result["rounds"] for result in read_run(out)["results"].values()} == {5}
    clients = rows(out, "clients.csv")
    assert len(clients) == 5 * len(RULES) * CLIENTS
    assert {(row["status"], row["reason"]) for row in clients if row["client"] != "1"} == {("ok", "")}
    assert {(row["status"], row["reason"]) for row in clients if row["client"] == "1"} == {("ok", ""), ("failed", LEFT)}
    assert [row["status"] for row in clients if row["round"] == "5"] == ["ok"] * len(RULES) * CLIENTS
    missed = {(row["strategy"], row["round"]) for row in clients if row["status"] == "failed"}
    assert {name for name, _ in missed} == set(RULES)
    for row in rows(out, "rounds.csv"):
        late = (row["strategy"], row["round"]) in missed
        assert row["clients_rejected"] == str(int(late))


def test_a_round_without_a_quorum_is_played_again_when_its_client_is_back(residents: Residents):
    server, out = residents.serve("--quorum", CLIENTS, "--tries", 2)
    residents.trains(1, server_round=2)
    residents.clients[1].send(signal.SIGTERM)
    server.says(r"brought 2 valid updates from 3 clients, 3 are needed; 1 more try")
    residents.restart(1)
    assert server.status() == 0, residents.told()
    assert "client 1 failed: the client has left" in server.text
    nothing_lost(residents, out)  # clients.csv tells of the last try only


def test_a_run_whose_quorum_does_not_come_back_stops_with_what_it_has(residents: Residents):
    server, out = residents.serve("--quorum", CLIENTS, "--tries", 2, "--patience", 2)
    residents.trains(1, server_round=2)
    residents.clients[1].send(signal.SIGTERM)
    assert server.status() == 1, residents.told()
    run = read_run(out)
    assert (run["status"], run["exit_status"]) == ("failed", 1)
    for key, result in run["results"].items():
        lost = result["rounds"] + 1
        assert result["ended"] == f"round {lost} brought 2 valid updates from 3 clients, 3 are needed"
        strategy = key.split("/")[1]
        played = [int(row["round"]) for row in rows(out, "rounds.csv") if row["strategy"] == strategy]
        assert sorted(played) == list(range(lost))
        assert saved_digest(out / "models" / f"iid-{strategy}-seed0.keras") == result["sha256"]
    assert any(result["rounds"] >= 1 for result in run["results"].values())
    assert residents.clients[0].running and residents.clients[2].running

    residents.restart(1)
    resumed = residents.resume(out)
    assert resumed.status() == 0, residents.told()
    nothing_lost(residents, out)


def test_a_server_killed_while_clients_train_goes_on_to_the_same_bits(residents: Residents):
    server, out = residents.serve()
    residents.trains(2, server_round=2)
    server.kill()
    assert read_run(out)["status"] == "running"
    resumed = residents.resume(out)
    assert resumed.status() == 0, residents.told()
    assert all(client.running for client in residents.clients.values())
    nothing_lost(residents, out)
