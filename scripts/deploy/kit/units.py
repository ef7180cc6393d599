"""The systemd units of a deployment kit: what each program needs of its machine, and nothing else.

`systemd-analyze security --offline=true UNIT` says what is left open.
"""

from typing import Literal

Program = Literal["superlink", "superexec", "node"]

_JIT = """# numba and CUDA write machine code, so MemoryDenyWriteExecute= is left out. Of devices, only NVIDIA's GPUs.
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
"""
_LOOPBACK_ONLY = """MemoryDenyWriteExecute=true
PrivateDevices=true
# The SuperLink talks to nginx and the executor on this machine, and to nobody else.
IPAddressDeny=any
IPAddressAllow=localhost
"""
_DOES_NOT_NEED = """ProtectHome=read-only
PrivateTmp=true
UMask=0077
NoNewPrivileges=true
CapabilityBoundingSet=
ProtectProc=invisible
ProtectClock=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectControlGroups=true
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
LockPersonality=true
RemoveIPC=true
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""
_WRITES: dict[Program, str] = {
    "superlink": "The SuperLink writes its database there.",
    "superexec": "Run folders lie where `trfmoe deploy run` is started: start it there, or add that folder here.",
    "node": "Name a state_dir or cache_dir that lies elsewhere here too. Data below /home, /root and /srv can be read.",
}


def unit(program: Program, description: str, folder: str) -> str:
    """Returns a systemd unit that runs a kit's start script and starts it again after a delay, whatever ended it.

    Flower refuses a node that comes back with the same key for up to a minute, so it is tried again without end.

    Args:
        program: What the unit runs.
        description: For people.
        folder: The absolute path of the coordinator's or node's folder on its host, as `check_place` allows it.
    """
    place = f'"{folder.replace("%", "%%")}"'
    argument = "" if program == "node" else f" {program}"
    register = f"ExecStartPost=/usr/bin/env trfmoe deploy register {place}\n" if program == "superlink" else ""
    after = " trfmoe-superlink.service" if program == "superexec" else ""
    return f"""[Unit]
Description={description.replace("%", "%%")}
After=network-online.target{after}
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
# The account, the virtual environment and the folder of this kit are yours to fill in.
User=trfmoe
Environment=TRFMOE_VENV=/opt/trfmoe/.venv PATH=/opt/trfmoe/.venv/bin:/usr/bin:/bin
ExecStart=/bin/sh {place[:-1]}/start.sh"{argument}
{register}Restart=always
RestartSec=10
KillMode=control-group

# Everything else is read-only. {_WRITES[program]}
ProtectSystem=strict
ReadWritePaths={place}
{_DOES_NOT_NEED}{_LOOPBACK_ONLY if program == "superlink" else _JIT}
[Install]
WantedBy=multi-user.target
"""
