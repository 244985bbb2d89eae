"""What a worker's process does: it reads tasks from its standard input and writes messages to what was its standard output.

It ends at once when its input ends, because then the driver is gone. Importing this module imports no torch: the driver has set
in the environment of the process which devices and how many threads it may use.
"""

import os
import sys
from queue import SimpleQueue
from threading import Thread
from time import sleep
from typing import BinaryIO

from demur.runs.executors.message_pipe import MessagePipe, receive
from demur.runs.executors.worker_messages import Alive, Task, WorkerSetup

BEAT_SECONDS = 5.0
"""How often a worker says that it lives."""


def main() -> None:
    """Serve the driver that started this process."""
    tasks = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # What libraries print goes to standard error, which the driver reads as lines.
    os.dup2(2, 1)
    # A pipe would hold back what is printed until much more is.
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    serve(tasks, answers)


def serve(tasks: BinaryIO, answers: BinaryIO) -> None:
    """Run tasks until the driver is gone.

    Args:
        tasks: gives a `WorkerSetup` and then tasks.
        answers: takes messages.
    """
    setup: WorkerSetup = receive(tasks)
    pipe, waiting = MessagePipe(answers), SimpleQueue[Task]()
    Thread(target=_read, args=(tasks, waiting), daemon=True).start()
    Thread(target=_beat, args=(pipe,), daemon=True).start()
    from demur.runs.executors.task_runner import TaskRunner  # imports torch

    try:
        runner = TaskRunner(setup, pipe.send)
        while True:
            runner.run(waiting.get())
    except BrokenPipeError:
        _leave()


def _read(tasks: BinaryIO, waiting: "SimpleQueue[Task]") -> None:
    try:
        while True:
            waiting.put(receive(tasks))
    except (EOFError, OSError):
        _leave()


def _beat(pipe: MessagePipe) -> None:
    try:
        while True:
            pipe.send(Alive())
            sleep(BEAT_SECONDS)
    except OSError:
        _leave()


def _leave() -> None:
    """End the process from any thread, in the middle of whatever it does. Nothing of it is needed by anyone."""
    sys.stderr.flush()
    os._exit(0)
