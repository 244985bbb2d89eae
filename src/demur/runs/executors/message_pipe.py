"""Messages over pipes: the length of a pickled message, then the message. Both ends are processes of the same run.

Pickle of the standard library, because that of `multiprocessing` would put tensors into shared memory, which is lost with the
process that sent them.
"""

import pickle
import struct
from threading import Lock
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">Q")


class MessagePipe:
    """Sends messages; several threads may send."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._lock = pipe, Lock()

    def send(self, message: object) -> None:
        """Send one message.

        Raises:
            OSError: if the other end is gone.
        """
        content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._pipe.write(_LENGTH.pack(len(content)))
            self._pipe.write(content)
            self._pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """The next message.

    Raises:
        EOFError: if the other end is gone, also in the middle of a message.
    """
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return pickle.loads(_exactly(pipe, length))


def _exactly(pipe: BinaryIO, count: int) -> bytes:
    content = pipe.read(count)
    if len(content) < count:
        raise EOFError
    return content
