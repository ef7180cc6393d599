"""Proxy variables of the environment: drops those that no HTTP client here can use, and keeps loopback out of the rest.

httpx, by which Flower and the Hugging Face hub talk, builds a transport for every proxy that the environment names,
also when it calls nothing but loopback, and raises when it cannot. So what it cannot use would stop every command.

Run as a program it prints shell commands that do the same to the environment of a start script.
"""

import importlib
import os
import re
import shlex
import sys

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAMES = ("all_proxy", "http_proxy", "https_proxy")
EXCEPTIONS = ("no_proxy",)
CLIENTS = ("httpx", "httpx2")
"""The HTTP libraries of Flower and of the Hugging Face hub, as far as they are installed."""
REMEDY = "unset it, or give http://, https://, socks5:// or socks5h:// and a host"

_ADDRESS = re.compile(r"(\w+://)?([^@/\s]*@)?(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?(/\S*)?")

_dropped: dict[str, str] = {}


def mend_environment() -> list[str]:
    """Mends this process's proxy variables, so that HTTP clients can use them here and in child processes.

    Returns:
        A line for every variable, or entry of NO_PROXY, that is dropped now.
    """
    given = {name: os.environ.pop(name) for name in list(os.environ) if name.lower() in (*NAMES, *EXCEPTIONS)}
    dropped = {}
    for name in sorted(set(given) & {name for name in given if name.lower() in NAMES}):
        os.environ[name] = given[name]
        address = bool(_ADDRESS.fullmatch(given[name]))
        if given[name] and (reason := _refusal() if address else "it names no host"):
            del os.environ[name]
            dropped[name] = f"{name}={without_password(given[name])} is not used: {reason}"
    entries = ",".join(given[name] for name in sorted(given) if name.lower() in EXCEPTIONS).split(",")
    kept = []
    for entry in dict.fromkeys(part.strip() for part in entries if part.strip()):
        os.environ["no_proxy"] = entry
        if entry not in LOOPBACK and (reason := _refusal()):
            dropped[f"NO_PROXY {entry}"] = f"the entry {entry} of NO_PROXY is not used: {reason}"
        else:
            kept.append(entry)
    os.environ.update(keeping_loopback_out(",".join(kept)))
    _dropped.update(dropped)
    return list(dropped.values())


def keeping_loopback_out(no_proxy: str) -> dict[str, str]:
    """Returns NO_PROXY in both spellings with loopback added."""
    value = ",".join(dict.fromkeys([*filter(None, no_proxy.split(",")), *LOOPBACK]))
    return {"NO_PROXY": value, "no_proxy": value}


def dropped_variables() -> list[str]:
    """Returns what `mend_environment` has dropped in this process, a line each."""
    return list(_dropped.values())


def proxies_in_use() -> dict[str, str]:
    """Returns the proxy variables that are set and can be used, without passwords."""
    return {
        name: without_password(value) for name, value in sorted(os.environ.items()) if value and name.lower() in NAMES
    }


def transport_errors() -> tuple[type[Exception], ...]:
    """Returns what httpx raises when a server is not reached: its own errors, and those of the SOCKS package."""
    import httpx

    try:
        from socksio.exceptions import SOCKSError
    except ImportError:
        return (httpx.HTTPError,)
    return (httpx.HTTPError, SOCKSError)


def without_password(url: str) -> str:
    """Returns a proxy's URL without user and password."""
    scheme, sign, rest = url.rpartition("://")
    shown = f"{scheme}{sign}{rest.rpartition('@')[2]}"
    return shown if shown.isprintable() else repr(shown)


def _refusal() -> str:
    """Returns why no client can be built in this environment; nothing when one can."""
    for name in CLIENTS:
        try:
            importlib.import_module(name).Client(verify=False).close()
        except ModuleNotFoundError as error:
            if error.name == name:
                continue
            return str(error)
        except ImportError:  # of socksio, which the library names in two sentences
            return "a SOCKS proxy needs the package socksio; pip install socksio"
        except Exception as error:  # noqa: BLE001  (which kinds there are is the libraries' own; all say the same)
            return "no HTTP client here can use it" if isinstance(error, ValueError) else f"{error}"
    return ""


def main() -> None:
    """Prints commands for a shell, and the dropped variables on standard error."""
    before = {name: value for name, value in os.environ.items() if name.lower() in (*NAMES, *EXCEPTIONS)}
    from scripts.terminal.output import Output

    for line in mend_environment():
        Output.warning(f"{line}; {REMEDY}")
    lines = [f"unset {name}" for name in before if name not in os.environ]
    lines += [f"export {name}={shlex.quote(os.environ[name])}" for name in ("NO_PROXY", "no_proxy")]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
