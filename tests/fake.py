"""An executor whose order of completion, deaths and failures a test decides."""

from batchflow.core.work import Task
from batchflow.errors import WorkerDied
from batchflow.executors.base import Executor
from batchflow.worker import Runner, lost


class FakeExecutor(Executor):
    """Does work in this process; which piece of it comes next, the caller picks.

    Parameters
    ----------
    pick
        Gets the number of pieces at hand, returns the index of the one to do next.
    dies
        Gets a task, tells whether it takes its worker with it.
    """

    name = "fake"
    prefetch = 1

    def __init__(self, slots=2, pick=lambda count: 0, dies=lambda task: False):
        self._slots = slots
        self._pick = pick
        self._dies = dies
        self._runners = {}
        self.queue = []
        self.most = 0
        """The most pieces of work that were ever here."""
        self.performed = []
        self.closed = 0

    def slots(self, limits, per_task):
        return min(self._slots, int(limits.cpus or self._slots))

    def start(self, slots, per_task, workers=None):
        pass

    def load(self, program):
        number = len(self._runners) + 1
        self._runners[number] = Runner(program)
        return number

    def unload(self, job):
        self._runners[job] = None
        self.queue = [item for item in self.queue if item[0] != job]

    def submit(self, job, work):
        assert self._runners[job] is not None
        assert all(work.key != other.key for number, other in self.queue if number == job)
        self.queue.append((job, work))
        self.most = max(self.most, len(self.queue))

    def wait(self, job=None, timeout=None):
        if not self.queue:
            return []
        job, work = self.queue.pop(self._pick(len(self.queue)))
        self.performed.append(work)
        if isinstance(work, Task) and self._dies(work):
            return [(job, lost(work, "worker", WorkerDied("the worker died")))]
        return [(job, self._runners[job].perform(work))]

    def close(self):
        self.closed += 1
        self.queue.clear()


def records_of(task):
    """Return the records of a task of an in-memory source, halved or not."""
    stop = None if task.chunk.take is None else task.chunk.skip + task.chunk.take
    return list(task.data[task.chunk.skip : stop])
