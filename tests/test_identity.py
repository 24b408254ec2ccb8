"""Enrollment: who may join, by which key, and that a client trusts its federation's server and no other."""

import argparse
import json
import os
import ssl
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from conftest import ROOT
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from flwr.supercore.primitives import asymmetric as flower

from server import enroll as commands
from server.certificates import check_host
from server.enroll import enroll, renew, revoke
from server.roster import Roster
from task import identity as identities
from task.errors import UserError
from task.identity import Identity, fingerprint
from task.options import Parser

NOW = datetime.now(UTC)
HOSTS = ["fl.example.org", "10.0.0.5"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "federation"


@pytest.fixture
def federation(folder):
    """Members a and b, with the numbers 0 and 1."""
    enroll(folder, ["a", "b"], HOSTS)
    return folder


def command(*words):
    """What `python -m server WORDS` does."""
    parser = Parser(prog="server")
    commands.add_commands(parser.add_subparsers(required=True))
    return commands.run(parser.parse_args([str(word) for word in words]))


def refuse(words, act, *arguments, **options):
    """The call ends in one line that holds these words."""
    with pytest.raises(UserError) as caught:
        act(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def numbers(roster):
    return {member.name: member.client for member in roster.active}


def content(folder):
    """Every file below the folder but the lock, with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def shake_hands(folder, ca, host):
    """A TLS handshake with the federation's server, by a client that trusts `ca` as Flower's HTTP client does."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(Roster(folder).certificate, Roster(folder).key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_verify_locations(cadata=ca.decode("ascii"))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):  # flights of a handshake
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not sides


# The files


def test_an_identity_survives_the_file_and_is_for_its_owner_alone(tmp_path, monkeypatch, federation):
    mine = Identity.new("a", 3, "fl.example.org:9092", (federation / "ca.pem").read_bytes())
    path = tmp_path / "a.identity"
    seen = []
    monkeypatch.setattr(identities.os, "fsync", lambda number: seen.append(os.fstat(number).st_mode & 0o777))
    before = os.umask(0)
    try:
        mine.write(path)
    finally:
        os.umask(before)
    assert seen == [0o600] == [mode(path)]
    assert Identity.read(path) == mine
    assert sorted(tmp_path.iterdir()) == [path, federation]


def test_a_file_that_is_there_is_never_overwritten(tmp_path, federation):
    path = tmp_path / "a.identity"
    path.write_text("mine")
    refuse([str(path), "not overwritten"], Identity.new("a", 0, None, b"ca").write, path)
    assert path.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [path, federation]


def test_a_private_key_is_not_shown(federation):
    shown = repr(Identity.read(federation / "clients" / "a.identity"))
    assert "name='a'" in shown
    assert "PRIVATE" not in shown


@pytest.mark.parametrize("bits", [0o640, 0o620, 0o604, 0o602, 0o666])
def test_an_identity_that_others_can_open_is_refused(federation, bits):
    path = federation / "clients" / "a.identity"
    path.chmod(bits)
    refuse([f"chmod 600 {path}"], Identity.read, path)


def test_what_is_no_identity_is_refused(tmp_path, federation):
    path = tmp_path / "foreign"
    refuse([str(path), "no such file"], Identity.read, path)
    refuse([str(tmp_path)], Identity.read, tmp_path)
    whole = (federation / "clients" / "a.identity").read_bytes()
    for foreign in (b"", b"\x93NUMPY\xff\x00", b"{}", b"[1, 2]", b"3", whole[: len(whole) // 2]):
        path.write_bytes(foreign)
        refuse([str(path), "not an identity"], Identity.read, path)


def other_key(key):
    form = serialization.PrivateFormat.OpenSSH
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


@pytest.mark.parametrize(
    "change",
    [
        {"name": 5},
        {"client": -1},
        {"client": "0"},
        {"client": True},
        {"server": 9092},
        {"ca": "no certificate"},
        {"ca": None},
        {"private_key": "no key"},
        {"private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"},
        {"private_key": other_key(ed25519.Ed25519PrivateKey.generate())},
        {"private_key": other_key(ec.generate_private_key(ec.SECP256R1()))},
    ],
)
def test_a_damaged_identity_is_refused(federation, change):
    path = federation / "clients" / "a.identity"
    values = json.loads(path.read_bytes())
    path.write_text(json.dumps(values | change))
    refuse([str(path), "damaged"], Identity.read, path)
    path.write_text(json.dumps({name: value for name, value in values.items() if name not in change}))
    refuse([str(path), "damaged"], Identity.read, path)


def test_a_later_format_is_named(federation):
    path = federation / "clients" / "a.identity"
    path.write_text(path.read_text().replace('"fedarena-identity": 1', '"fedarena-identity": 2'))
    refuse(["format 2"], Identity.read, path)


def test_an_identity_of_an_expired_ca_is_refused(folder):
    long_ago = NOW - timedelta(days=3700)
    enroll(folder, ["a"], HOSTS, now=long_ago)
    refuse(["expired on", "ask"], Identity.read, folder / "clients" / "a.identity")
    refuse(["ca.pem", "expired on"], Roster.open(folder).check_certificate)
    refuse(["ca.pem", "expired on"], renew, folder)
    refuse(["ca.pem", "expired on"], enroll, folder, ["b"])
    Roster.open(folder).check_certificate(now=long_ago)


def test_keys_are_private_and_the_rest_is_in_place(federation):
    assert mode(federation) == mode(federation / "clients") == 0o700
    private = {"ca.key", "server.key", "a.identity", "b.identity"}
    names = {path.name: mode(path) for path in content(federation)}
    assert set(names) == private | {"ca.pem", "server.pem", "roster.json"}
    assert {names[name] for name in private} == {0o600}
    assert b"PRIVATE" not in (federation / "roster.json").read_bytes()


# What Flower makes of it


def test_flower_takes_the_keys(tmp_path, federation):
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    mine = Identity.read(federation / "clients" / "a.identity")
    path = tmp_path / "key"
    path.write_bytes(mine.private_key)
    loaded = _try_setup_client_authentication(
        argparse.Namespace(auth_supernode_private_key=str(path), auth_supernode_public_key=None)
    )
    assert loaded is not None
    private, public = loaded
    (known,) = (member.public_key for member in Roster.open(federation).members if member.name == "a")
    assert known == mine.public_key() == flower.public_key_to_bytes(public)
    assert flower.uses_nist_ec_curve(flower.bytes_to_public_key(known))
    for key in (private, mine.key()):
        assert flower.verify_signature(flower.bytes_to_public_key(known), b"now", flower.sign_message(key, b"now"))


def test_a_fingerprint_tells_keys_apart(federation):
    a, b = Roster.open(federation).members
    assert a.fingerprint != b.fingerprint
    assert a.fingerprint == fingerprint(a.public_key)
    assert fingerprint(b"") == "e3:b0:c4:42:98:fc:1c:14"  # SHA-256 of nothing


# Certificates


@pytest.mark.parametrize("host", [*HOSTS, "localhost", "127.0.0.1", "::1"])
def test_a_client_trusts_the_server_under_every_name(federation, host):
    ca = Identity.read(federation / "clients" / "b.identity").ca
    shake_hands(federation, ca, host)
    subject = x509.DNSName(host) if host[0].isalpha() else x509.IPAddress(ip_address(host))
    verifier = PolicyBuilder().store(Store([x509.load_pem_x509_certificate(ca)])).build_server_verifier(subject)
    verifier.verify(x509.load_pem_x509_certificate((federation / "server.pem").read_bytes()), [])


def test_a_client_trusts_no_other_name_and_no_other_federation(tmp_path, federation):
    ca = Identity.read(federation / "clients" / "a.identity").ca
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(federation, ca, "other.example.org")
    enroll(tmp_path / "other", ["a"], HOSTS)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path / "other", ca, HOSTS[0])


def test_what_the_certificates_are_for_and_how_long(federation):
    ca, server = (x509.load_pem_x509_certificate((federation / name).read_bytes()) for name in ("ca.pem", "server.pem"))
    for certificate in (ca, server):
        assert NOW - timedelta(days=1) < certificate.not_valid_before_utc < NOW
    assert 3650 < (ca.not_valid_after_utc - NOW).days < 3654
    assert 823 < (server.not_valid_after_utc - server.not_valid_before_utc).days <= 825

    def usage(certificate):
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value

    assert usage(ca).key_cert_sign
    assert not usage(ca).digital_signature
    assert usage(server).digital_signature
    assert not usage(server).key_cert_sign
    assert ca.serial_number != server.serial_number
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    purposes = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_an_expired_server_certificate_is_refused_and_renewed(folder):
    enroll(folder, ["a"], HOSTS, now=NOW - timedelta(days=900))
    roster = Roster.open(folder)
    refuse(["expired on", f"python -m server renew --federation {folder}"], roster.check_certificate)
    assert "expired" in roster.warning()
    before = content(folder)
    renew(folder)
    roster.check_certificate()
    for host in HOSTS:
        roster.check_certificate(host)
    changed = {path.name for path, data in content(folder).items() if before[path] != data}
    assert changed == {"server.pem"}
    shake_hands(folder, Identity.read(folder / "clients" / "a.identity").ca, HOSTS[0])


def test_a_warning_comes_a_month_before_the_end(federation):
    roster = Roster.open(federation)
    server, ca = roster.expiries()
    assert roster.warning() is None
    assert roster.warning(server - timedelta(days=31)) is None
    assert "renew" in roster.warning(server - timedelta(days=29))
    roster = renew(federation, now=ca - timedelta(days=31))
    assert roster.expiries()[0] <= ca  # not beyond what signed it
    assert "CA" in roster.warning(ca - timedelta(days=29))


def test_a_server_certificate_that_does_not_fit_is_refused(tmp_path, federation):
    roster = Roster.open(federation)
    roster.check_certificate(HOSTS[0].upper())
    roster.check_certificate("0.0.0.0")  # listens everywhere: no name to check
    refuse(["not good for x.example.org", "renew --host x.example.org"], roster.check_certificate, "x.example.org")
    refuse(["clock"], roster.check_certificate, now=NOW - timedelta(days=2))
    other, _ = enroll(tmp_path / "other", ["a"], HOSTS)
    own = {path: path.read_bytes() for path in (roster.certificate, roster.key)}
    for path, replacement, words in (
        (roster.certificate, other.certificate.read_bytes(), ["not signed by ca.pem", "renew"]),
        (roster.key, other.key.read_bytes(), ["does not belong to server.key", "renew"]),
        (roster.certificate, b"?", ["server.pem", "damaged", "renew"]),
        (roster.key, b"?", ["server.key", "damaged", "renew"]),
    ):
        path.write_bytes(replacement)
        refuse(words, roster.check_certificate)
        path.write_bytes(own[path])
    roster.check_certificate()


def test_renewing_mends_what_is_lost_but_never_the_ca(federation):
    roster = Roster.open(federation)
    roster.certificate.unlink()
    roster.key.unlink()
    renew(federation)
    roster.check_certificate(HOSTS[1])
    assert mode(roster.key) == 0o600
    ca_key = federation / "ca.key"
    ca_key.rename(federation / "away")  # a CA key that is kept elsewhere ...
    refuse(["ca.key", "backup"], renew, federation)
    enroll(federation, ["c"])  # ... is not needed to enroll
    ca_key.write_bytes(roster.key.read_bytes())
    refuse(["ca.key", "not the key of ca.pem"], renew, federation)


# Members


def test_new_members_leave_the_certificates_alone(federation):
    before = content(federation)
    roster, (member,) = enroll(federation, ["c"], ["localhost", HOSTS[0].upper()])
    assert not roster.changed()
    assert member.client == 2
    after = content(federation)
    assert {path.name for path in after if before.get(path) != after[path]} == {"roster.json", "c.identity"}
    mine = Identity.read(federation / "clients" / "c.identity")
    assert (mine.name, mine.client, mine.server) == ("c", 2, "localhost:9092")


def test_more_hosts_renew_the_server_certificate_by_the_same_ca(federation):
    ca = (federation / "ca.pem").read_bytes()
    enroll(federation, ["c"], ["::2", "FL.example.org"], port=443)
    for host in [*HOSTS, "::2", "localhost"]:
        shake_hands(federation, ca, host)
    assert Identity.read(federation / "clients" / "c.identity").server == "[::2]:443"
    enroll(federation, ["d"])
    assert Identity.read(federation / "clients" / "d.identity").server == "[::2]:443"
    renew(federation, ["e.example.org"])
    shake_hands(federation, ca, "e.example.org")
    assert set(Roster.open(federation).hosts) == {*HOSTS, "::2", "e.example.org", "localhost", "127.0.0.1", "::1"}


def test_a_number_is_given_to_one_name_alone(federation):
    enroll(federation, ["c"], client=7)
    enroll(federation, ["d"])
    assert numbers(Roster.open(federation)) == {"a": 0, "b": 1, "c": 7, "d": 8}
    revoke(federation, ["b", "d"])
    enroll(federation, ["e", "D", "f"])  # d comes back to its shard, the others never get it
    assert numbers(Roster.open(federation)) == {"a": 0, "c": 7, "e": 9, "D": 8, "f": 10}
    before = content(federation)
    refuse(["number 7 belongs to c"], enroll, federation, ["h"], client=7)
    refuse(["number 1 belonged to b", "no number is given twice"], enroll, federation, ["h"], client=1)
    refuse(["b was client 1", "another name"], enroll, federation, ["b"], client=2)
    refuse(["--client 8"], enroll, federation, ["h", "i"], client=8)
    assert content(federation) == before
    enroll(federation, ["b"], client=1)
    enroll(federation, ["h"], client=2)  # which nobody ever had
    assert numbers(Roster.open(federation)) == {"a": 0, "c": 7, "e": 9, "D": 8, "f": 10, "b": 1, "h": 2}


def test_a_number_that_an_earlier_version_gave_twice_stays_with_whom_had_it_last(federation):
    roster = Roster.open(federation)
    a, b = roster.members
    roster.save([a, replace(b, revoked=NOW), replace(b, name="c")])
    enroll(federation, ["b"])
    assert numbers(Roster.open(federation)) == {"a": 0, "c": 1, "b": 2}


def test_a_revoked_name_can_come_back_with_another_key(federation):
    path = federation / "clients" / "a.identity"
    old = Identity.read(path)
    revoke(federation, ["a"])
    assert not path.exists()
    enroll(federation, ["a"])
    new = Identity.read(path)
    assert new.client == old.client == 0
    roster = Roster.open(federation)
    assert [m.public_key for m in roster.active if m.name == "a"] == [new.public_key()]
    assert [m.public_key for m in roster.members if m.revoked] == [old.public_key()]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["c", "a"], ["a is a member already", "revoke a"]),
        (["A"], ["a is a member already"]),
        (["c", "C"], ["twice"]),
        (["../c"], ["not allowed"]),
        ([".c"], ["not allowed"]),
        (["-c"], ["not allowed"]),
        (["c d"], ["not allowed"]),
        (["c\n"], ["not allowed"]),
        (["ç"], ["not allowed"]),
        ([""], ["not allowed"]),
        (["c" * 65], ["not allowed"]),
    ],
)
def test_refused_names_change_nothing(federation, names, words):
    before = content(federation)
    refuse(words, enroll, federation, names, ["new.example.org"])
    assert content(federation) == before


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "h:9092", "https://h", "300.1.1.1", "a..b", "-h", "h-", "*.h", "fe80::1%eth0", "ü.de"]
)
def test_refused_hosts_make_nothing(folder, host):
    refuse(["host"], enroll, folder, ["a"], [host])
    assert not folder.exists()


def test_one_way_of_writing_a_host():
    assert check_host("[2001:DB8::0]") == "2001:db8::"
    assert check_host("My_Server.Example") == "my_server.example"


def test_a_new_federation_needs_a_host_and_others_need_a_federation(folder):
    refuse(["new federation", "--host"], enroll, folder, ["a"])
    refuse(["no federation", f"--federation {folder}"], Roster.open, folder)
    refuse(["no federation"], revoke, folder, ["a"])
    refuse(["no federation"], renew, folder)
    assert not folder.exists()


def test_revoking_whom_nobody_knows_changes_nothing(federation):
    before = content(federation)
    refuse(["no member 'x'", "a, b"], revoke, federation, ["a", "x"])
    assert content(federation) == before
    revoke(federation, ["a"])
    refuse(["no member 'a'"], revoke, federation, ["a"])


def test_a_running_server_sees_who_comes_and_goes(federation):
    roster = Roster.open(federation)
    assert not roster.changed()
    revoke(federation, ["a"])
    assert roster.changed()
    assert numbers(roster) == {"a": 0, "b": 1}
    roster.reload()
    assert numbers(roster) == {"b": 1}
    assert not roster.changed()
    enroll(federation, ["c"])
    assert roster.changed()
    roster.reload()
    assert numbers(roster) == {"c": 2, "b": 1}
    assert roster.members == Roster.open(federation).members


def test_a_damaged_roster_is_refused_and_the_last_one_stays(federation):
    roster = Roster.open(federation)
    whole = (federation / "roster.json").read_text()
    for damaged in ("", "{}", "[]", whole[:300], whole.replace('"enrolled"', '"x"'), whole.replace('"client": 0', "0")):
        (federation / "roster.json").write_text(damaged)
        assert roster.changed()
        refuse(["roster.json", "damaged"], roster.reload)
        assert numbers(roster) == {"a": 0, "b": 1}
    (federation / "roster.json").unlink()
    assert roster.changed()
    refuse(["no federation"], roster.reload)


@pytest.mark.parametrize("last", ["ca.key", "ca.pem", "server.key", "server.pem", "a.identity"])
def test_a_killed_founding_is_finished_by_the_next_command(federation, last):
    """Everything after the named file, in the order in which they come, was not written yet."""
    order = ["ca.key", "ca.pem", "server.key", "server.pem", "clients/a.identity", "clients/b.identity", "roster.json"]
    kept = [name for name in order if name.endswith(last)]
    (place,) = (order.index(name) for name in kept)
    for name in order[place + 1 :]:
        (federation / name).unlink()
    before = content(federation)
    roster, _ = enroll(federation, ["a", "b"], HOSTS)
    roster.check_certificate(HOSTS[0])
    for name in ("ca.key", "ca.pem", "server.key"):
        assert federation / name not in before or (federation / name).read_bytes() == before[federation / name]
    for member in Roster.open(federation).active:
        assert Identity.read(roster.identity(member.name)).public_key() == member.public_key


LOOP = """
import sys
from pathlib import Path
from server.enroll import enroll
print("ready", flush=True)
sys.stdin.readline()
for name in sys.argv[2:]:
    enroll(Path(sys.argv[1]), [name], [name + ".example.org"])
"""


def test_two_processes_enroll_at_once(folder):
    groups = [[f"{letter}{number}" for number in range(8)] for letter in "ab"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOOP, str(folder), *names],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for names in groups
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            assert process.wait(timeout=60) == 0
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    roster = Roster.open(folder)
    assert sorted(member.name for member in roster.active) == [*groups[0], *groups[1]]
    assert sorted(member.client for member in roster.active) == list(range(16))
    for member in roster.active:
        mine = Identity.read(roster.identity(member.name))
        assert (mine.client, mine.public_key(), mine.ca) == (member.client, member.public_key, roster.ca.read_bytes())
        roster.check_certificate(f"{member.name}.example.org")


# The commands


def test_enroll_tells_how_to_start_everyone(federation, capsys):
    assert command("enroll", "c", "d-1", "--federation", federation) == 0
    told = capsys.readouterr().out
    assert "  python -m client --identity c.identity --shard shard-2.npz\n" in told
    assert "  python -m client --identity d-1.identity --shard shard-3.npz\n" in told
    server = "  python -m server --listen 0.0.0.0:9092 --test test.npz"
    assert f"{server} --federation {federation}\n" in told
    for member in Roster.open(federation).active[2:]:
        assert member.fingerprint in told


def test_the_default_folder_needs_no_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command("enroll", "a", "--host", "h", "--host", "::1", "--port", "443", "--client", "4") == 0
    told = capsys.readouterr().out
    assert "1 member;" in told and "Server, with all members (client 4):\n" in told
    assert "python -m server --listen 0.0.0.0:443 --test test.npz\n" in told
    assert max(map(len, told.splitlines())) <= 80
    assert Identity.read("federation/clients/a.identity").server == "h:443"
    assert numbers(Roster.open("federation")) == {"a": 4}


def test_members_are_shown_whole_and_without_colours_in_a_pipe(federation, capsys):
    long = "site-" + "x" * 59
    enroll(federation, [long])
    revoke(federation, ["a"])
    capsys.readouterr()
    assert command("members", "--federation", federation) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    rows = [line.split() for line in told.splitlines()]
    roster = Roster.open(federation)
    day = f"{roster.members[0].enrolled:%Y-%m-%d}"
    shown = [row for row in rows if len(row) > 2 and row[3:4] == [day]]
    a, b, c = roster.members
    assert shown == [
        ["b", "1", b.fingerprint, day, "active"],
        [long, "2", c.fingerprint, day, "active"],
        ["a", "0", a.fingerprint, day, "revoked", f"{a.revoked:%Y-%m-%d}"],
    ]
    for end in roster.expiries():
        assert f"until {end:%Y-%m-%d}" in told


def test_revoke_and_renew_by_command(federation, capsys):
    before = (federation / "server.pem").read_bytes()
    assert command("revoke", "a", "b", "--federation", federation) == 0
    assert Roster.open(federation).active == ()
    assert command("renew", "--host", "new.example.org", "--federation", federation) == 0
    told = capsys.readouterr().out
    assert "a (client 0) is revoked. Nobody else gets its number" in told
    assert f"python -m server enroll a --federation {federation}\n" in told and "Members now: nobody." in told
    assert "new.example.org" in told
    assert (federation / "server.pem").read_bytes() != before


@pytest.mark.parametrize("option", [("--port", "0"), ("--port", "x"), ("--client", "-1"), ("--client", "1.5")])
def test_options_that_are_no_numbers_are_refused(folder, option, capsys):
    with pytest.raises(SystemExit) as caught:
        command("enroll", "a", "--host", "h", "--federation", folder, *option)
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err
    assert not folder.exists()


def test_a_folder_that_cannot_be_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    refuse([str(tmp_path / "file")], command, "enroll", "a", "--host", "h", "--federation", tmp_path / "file" / "f")
