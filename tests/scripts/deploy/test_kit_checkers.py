"""systemd's and nginx's own checkers over the files of kits, and an nginx that listens on IPv6."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from scripts.deploy import connection_check as reach
from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.run.simulation import free_port
from tests.scripts.deploy.test_nginx import NGINX, await_port, start_nginx

ANALYZE = shutil.which("systemd-analyze")
MOST_EXPOSED = 3.0
STRANGE = "it's ü 100% a kit"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def write(folder: Path, host: str, port: int = 9092) -> Path:
    nodes = [KitNode(name="no", zone="1e3"), KitNode(name="007")]
    write_kit(folder / STRANGE, Coordinator(host=host, port=port, superlink_port=free_port(), nodes=nodes))
    return folder / STRANGE


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed (apt-get install systemd)")
@pytest.mark.parametrize("unit", ["superlink", "superexec", "node"])
def test_units_are_understood_and_closed(tmp_path: Path, unit: str) -> None:
    kit = write(tmp_path, "trfmoe.test")
    path = (kit / "nodes" / "no" if unit == "node" else kit / "coordinator") / f"trfmoe-{unit}.service"
    checked = subprocess.run([str(ANALYZE), "verify", "--man=no", path], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    security = [str(ANALYZE), "security", "--offline=true", "--no-pager", f"--threshold={int(10 * MOST_EXPOSED)}", path]
    judged = subprocess.run(security, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed (apt-get install systemd)")
def test_the_checkers_find_faults(tmp_path: Path) -> None:
    kit = write(tmp_path, "trfmoe.test")
    path = kit / "coordinator" / "trfmoe-superexec.service"
    path.write_text(path.read_text().replace("ProtectClock=", "ProtectClok=").replace("NoNewPrivileges=true", ""))
    checked = subprocess.run([str(ANALYZE), "verify", "--man=no", path], capture_output=True, text=True, check=False)
    assert "ProtectClok" in checked.stderr
    path.write_text("[Service]\nExecStart=/bin/true\n")
    security = [str(ANALYZE), "security", "--offline=true", "--no-pager", f"--threshold={int(10 * MOST_EXPOSED)}", path]
    assert subprocess.run(security, capture_output=True, check=False).returncode != 0


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx)")
@pytest.mark.parametrize("host", ["trfmoe.test", "192.0.2.1", "2001:db8::1", "bücher.example", "docker_host"])
def test_nginx_takes_the_configuration(tmp_path: Path, host: str) -> None:
    configuration = write(tmp_path, host) / "coordinator" / "nginx.conf"
    main = tmp_path / "main.conf"
    main.write_text(f'pid "{tmp_path}/pid"; events {{}} http {{ access_log off; include "{configuration}"; }}\n')
    command = [str(NGINX), "-t", "-q", "-c", str(main), "-p", str(tmp_path), "-e", str(tmp_path / "log")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx)")
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_node_reaches_a_coordinator_by_its_ipv6_address(tmp_path: Path) -> None:
    port = free_port()
    kit = write(tmp_path, "::1", port)
    nginx = start_nginx(kit / "coordinator" / "nginx.conf", tmp_path)
    try:
        await_port(port, "::1")
        found = list(reach.check_node(kit / "nodes" / "no", reach.Connection(host="::1", port=port)))
    finally:
        nginx.terminate()
        nginx.wait(10)
    texts = [finding.text for finding in found]
    assert f"[::1]:{port}: answers with a certificate that the kit's authority signed" in texts
    assert f"[::1]:{port}: the control interface is closed" in texts
    assert any("the coordinator answers 502" in text for text in texts)  # by Flower's own client, through nginx
