"""The name or address at which nodes reach a coordinator, in the one form that certificates, nginx and URLs share."""

import ipaddress
import re

import idna

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
EXAMPLE = "give a name such as trfmoe.example.org, or an address"


def check_host(text: str) -> str:
    """Returns a host in its plain form: a lower-case ASCII name without a dot at its end, or an address.

    Raises:
        ValueError: no host that other machines could reach, with the remedy.
    """
    if not text:
        raise ValueError(f"is empty; {EXAMPLE} at which nodes reach the coordinator")
    if "/" in text or "@" in text:
        raise ValueError(f"{text!r} is more than a host; {EXAMPLE}, and the port with --port")
    if bracketed := re.fullmatch(r"\[([^\]]*:[^\]]*)\](?::(.*))?", text):
        if bracketed[2] is not None:
            raise ValueError(_with_port(text.rpartition(":")[0], bracketed[2]))
        text = bracketed[1]
    elif text.count(":") == 1:
        raise ValueError(_with_port(*text.split(":")))
    if ":" in text and "%" in text:
        raise ValueError(f"{text!r} names an interface of one machine; give an address that every node can reach")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        if ":" in text:
            raise ValueError(f"{text!r} is no IPv6 address; {EXAMPLE}") from None
        return _check_name(text)
    return _check_address(address)


def is_ipv6(host: str) -> bool:
    """Returns whether a checked host is an IPv6 address."""
    return ":" in host


def in_url(host: str) -> str:
    """Returns a checked host as it stands in URLs and in nginx's configuration: IPv6 addresses in brackets."""
    return f"[{host}]" if is_ipv6(host) else host


def _with_port(host: str, port: str) -> str:
    if port.isascii() and port.isdigit():
        return f"{host}:{port} names a port; give --host {host or 'NAME'} --port {port}"
    return f"{f'{host}:{port}'!r} is neither a name nor an address; {EXAMPLE}"


def _check_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        raise ValueError(f"{address} is an IPv4 address written as IPv6; give {address.ipv4_mapped}")
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        raise ValueError(f"{address} is the address of no machine; {EXAMPLE} at which nodes reach the coordinator")
    if isinstance(address, ipaddress.IPv6Address) and address.is_link_local:
        raise ValueError(f"{address} is reached by one interface only; give an address that every node can reach")
    return str(address)


def _check_name(text: str) -> str:
    name = text.removesuffix(".")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{text!r} is no host name ({error}); {EXAMPLE}") from None
    name = name.lower()
    labels = name.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(
                f"{text!r} is no host name: {label!r} is no part of one; letters, digits and hyphens are, up to 63, "
                "none of the hyphens first or last"
            )
        if label.startswith("xn--"):
            try:
                idna.decode(label)
            except idna.IDNAError as error:
                raise ValueError(f"{text!r} is no host name: {label} decodes to nothing ({error})") from None
    if len(name) > 253:
        raise ValueError(f"{text[:40]!r}... has {len(name)} characters, and a host name has 253 at most")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError(f"{text!r} is neither a name nor an IPv4 address, which is four numbers up to 255; {EXAMPLE}")
    return name
