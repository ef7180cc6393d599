"""Opens the zip containers of EPUB, DOCX and ODT. Members are inflated in memory, with limits, and never to disk."""

import io
import posixpath
import zipfile
import zlib
from urllib.parse import unquote

from trfmoe_core.data.markup.result import UnreadableError

MAX_MEMBER_BYTES = 1 << 26
"""A member that inflates further than this is not read."""
MAX_TOTAL_BYTES = 1 << 28
"""All members that are read may inflate to this size together."""
MAX_MEMBERS = 1 << 16
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")


class Package:
    """The members of a container by name."""

    def __init__(self, data: bytes) -> None:
        """Opens a container.

        Raises:
            UnreadableError: it is none, or it has too many members.
        """
        if data.startswith(_OLE):
            if _ENCRYPTED_STREAM in data:
                raise UnreadableError("needs-password", "encrypted; save it without a password")
            raise UnreadableError("broken", "an old Office file under this name; save it as DOCX or ODT")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, LookupError) as error:
            raise UnreadableError("broken", f"no whole zip container: {error}") from error
        infos = self._zip.infolist()
        if len(infos) > MAX_MEMBERS:
            raise UnreadableError("too-large", f"{len(infos)} members, more than {MAX_MEMBERS}")
        self._members = {normal_name(info.filename): info for info in infos}
        self._left = MAX_TOTAL_BYTES

    def __contains__(self, name: str) -> bool:
        """Returns True if there is a member of this name."""
        return normal_name(name) in self._members

    def read(self, name: str) -> bytes:
        """Returns the content of a member.

        Raises:
            UnreadableError: it is missing, broken, encrypted or too large.
        """
        info = self._members.get(normal_name(name))
        if info is None:
            raise UnreadableError("broken", f"{name} is missing in it")
        if info.flag_bits & 1:
            raise UnreadableError("needs-password", f"{name} is encrypted; save it without a password")
        most = min(MAX_MEMBER_BYTES, self._left)
        try:
            with self._zip.open(info) as member:
                data = member.read(most + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise UnreadableError("broken", f"{name}: {error}") from error
        if len(data) > most:
            raise UnreadableError("too-large", f"{name} inflates to more than {most >> 20} MiB")
        self._left -= len(data)
        return data


def normal_name(name: str) -> str:
    """Returns the name of a member as it is looked up: without `./`, `..` and a leading slash."""
    return posixpath.normpath("/" + name.replace("\\", "/")).lstrip("/")


def linked_name(base: str, link: str) -> str:
    """Returns the name of the member to which the member `base` links. A fragment is ignored."""
    path = unquote(link.partition("#")[0])
    return normal_name(path if path.startswith("/") else posixpath.join(posixpath.dirname(base), path))
