"""One tidy log from many processes: whole lines, each with the name of who said it.

Writing happens in a thread of its own behind a bounded queue. Without that, a terminal that was paused or a pipe nobody
reads would stop the supervisor, then fill the children's pipes and stop the system itself.
"""

import contextlib
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import IO

NAME_WIDTH = 9
MAX_LINE_BYTES = 64 * 1024
MAX_WAITING_LINES = 20_000
_COLOURS = {
    "postgres": 34, "valkey": 31, "cluster": 35, "web": 32, "worker": 33, "jobs": 93, "beat": 36, "projector": 95,
    "operator": 94, "dev": 1,
}  # fmt: skip


class Output:
    """Collects lines and writes them to standard output."""

    def __init__(self) -> None:
        self._queue: queue.Queue[str | None] = queue.Queue(MAX_WAITING_LINES)
        self._dropped = 0
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._thread = threading.Thread(target=self._write, name="output", daemon=True)
        self._thread.start()

    def line(self, name: str, text: str) -> None:
        """Say one line as `name`. Never blocks; drops the line when 20,000 others wait."""
        prefix = f"{name:<{NAME_WIDTH}} | "
        if self._colours:
            prefix = f"\x1b[{_COLOURS.get(name, 37)}m{prefix}\x1b[0m"
        self._put(prefix + text)

    def plain(self, text: str) -> None:
        """Say something without a prefix: what people or programs look for."""
        self._put(text)

    def _put(self, text: str) -> None:
        try:
            self._queue.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while (text := self._queue.get()) is not None:
            # Whoever read our output may have gone away (`./dev up | head`). The system goes on.
            with contextlib.suppress(OSError, ValueError):
                if self._dropped and self._queue.empty():
                    text += f"\n{'dev':<{NAME_WIDTH}} | {self._dropped} lines were dropped: nobody read this output"
                    self._dropped = 0
                sys.stdout.write(text + "\n")
                if self._queue.empty():
                    sys.stdout.flush()

    def pump(
        self, name: str, stream: IO[bytes], last_words: deque[str], *, quiet: bool = False, noise: Sequence[str] = ()
    ) -> threading.Thread:
        """Pass on what a process writes, line by line, until the stream ends; `last_words` keeps the latest lines."""

        def read() -> None:
            with stream:
                while raw := stream.readline(MAX_LINE_BYTES):
                    text = raw.decode("utf-8", "replace").rstrip()
                    if text and not any(part in text for part in noise):
                        last_words.append(text)
                        if not quiet:
                            self.line(name, text)

        thread = threading.Thread(target=read, name=f"log-{name}", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Write out what waits, for at most two seconds: nobody may be reading."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=1)
        self._thread.join(2)
