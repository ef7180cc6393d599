"""`--host`: one plain form, or one sentence that says what to give instead."""

import re
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from scripts.deploy.hosts import check_host
from scripts.deploy.kit.certificates import certificate_names
from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.main import main
from trfmoe_core.errors import ConfigError

GOOD = {
    "trfmoe.example.org": "trfmoe.example.org",
    "Trfmoe.Example.": "trfmoe.example",
    "127.0.0.1": "127.0.0.1",
    "localhost": "localhost",
    "docker_host": "docker_host",
    "2001:DB8:0:0::1": "2001:db8::1",
    "[2001:db8::1]": "2001:db8::1",
    "::1": "::1",
    "bücher.example": "xn--bcher-kva.example",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "faß.example": "xn--fa-hia.example",
    "1e3": "1e3",
    "no": "no",
}
BAD = {
    "x.example:9999": r"give --host x\.example --port 9999",
    "1.2.3.4:9": r"--host 1\.2\.3\.4 --port 9",
    "[::1]:9092": r"--host \[::1\] --port 9092",
    "x.example:": "neither",
    "x.example:http": "neither",
    "x.example:1:2": "no IPv6 address",
    "::ffff:1.2.3.4": r"give 1\.2\.3\.4",
    "fe80::1%eth0": "interface",
    "fe80::1": "one interface",
    "::": "no machine",
    "0.0.0.0": "no machine",
    "ff02::1": "no machine",
    "1.2.3": "four numbers",
    "256.1.1.1": "four numbers",
    "0x7f.1": "four numbers",
    "01.2.3.4": "four numbers",
    "": "is empty",
    " ": "no host name",
    "a b": "no host name",
    "a\nb": "no host name",
    "a..b": "no host name",
    ".": "no host name",
    "-a": "no host name",
    "*.example": "no host name",
    "[x]": "no host name",
    "a" * 64: "up to 63",
    ".".join(["abcdefgh"] * 30): "253",
    "xn--a": "decodes to nothing",
    "☃.example": "no host name",
    "https://x.example": "more than a host",
    "someone@x.example": "more than a host",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_host_gets_its_plain_form(text: str) -> None:
    assert check_host(text) == GOOD[text]
    assert check_host(GOOD[text]) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_host_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=BAD[text]) as told:
        check_host(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["x.example:9999", "", "::ffff:1.2.3.4"])
def test_the_command_refuses_it_in_one_line(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["deploy", "init", str(tmp_path / "kit"), "--host", text, "--nodes", "a,b,c"])
    assert ending.value.code == 2
    told = capfd.readouterr().err
    assert re.fullmatch(r"error: trfmoe deploy init: host: .+\n", told), told
    assert not (tmp_path / "kit").exists()


def test_an_ipv6_kit_says_the_address_in_every_file_as_that_wants_it(tmp_path: Path) -> None:
    coordinator = Coordinator(host="[2001:DB8::1]", port=9092, superlink_port=9093, nodes=[KitNode(name="ada")])
    write_kit(tmp_path / "kit", coordinator)
    folder, node = tmp_path / "kit" / "coordinator", tmp_path / "kit" / "nodes" / "ada"
    certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    assert certificate_names(certificate)[0] == "2001:db8::1"
    nginx = (folder / "nginx.conf").read_text()
    assert "\n    listen [::]:9092 ssl;\n" in nginx
    assert "server_name [2001:db8::1];" in nginx
    assert "--superlink '[2001:db8::1]:9092'" in (node / "start.sh").read_text()
    assert "[2001:db8::1]:9092" in (node / "README.md").read_text()
    assert yaml.safe_load((node / "connection.yaml").read_text())["host"] == "2001:db8::1"


def test_a_kits_paths_hold_nothing_that_nginx_or_flower_reads_otherwise(tmp_path: Path) -> None:
    coordinator = Coordinator(host="x.test", port=1, superlink_port=2, nodes=[KitNode(name="ada")])
    for name in ("a$b", 'a"b', "a\\b", "a\nb"):
        with pytest.raises(ConfigError, match="--prefix"):
            write_kit(tmp_path / name, coordinator)
        assert not (tmp_path / name).exists()
        with pytest.raises(ConfigError, match="--prefix"):
            write_kit(tmp_path / "kit", coordinator, f"/opt/{name}")
    with pytest.raises(ConfigError, match="absolute"):
        write_kit(tmp_path / "kit", coordinator, "opt/trfmoe")
    write_kit(tmp_path / "kit", coordinator, "/opt/it's ü 100%/")
    unit = (tmp_path / "kit" / "coordinator" / "trfmoe-superlink.service").read_text()
    assert 'ExecStart=/bin/sh "/opt/it\'s ü 100%%/coordinator/start.sh" superlink\n' in unit
    assert (
        'ssl_certificate "/opt/it\'s ü 100%/coordinator/server.pem";'
        in (tmp_path / "kit" / "coordinator" / "nginx.conf").read_text()
    )
