"""A command of the command line on several ranks: which of them answers, and how they begin and end together.

`encode` and `train` are shared by the ranks of any launcher, `run` and `simulate` by those of MPI; of anything else
rank 0 alone answers. With elastic Horovod the ranks that are left after a death meet again, with new numbers, and begin
the command anew: what was finished is found as records and checkpoints.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import replace

from ..errors import MotorsweepError
from .ranks import SIMULATING, TRAINING, leave_mpi, ranks_of

_LEAVING_SECONDS = 20.0

_asked = None  # the Ranks that a command of TRAINING is to use
_streams = None
_left_early = False


def run_command(call, arguments) -> int:
    """Run a command as one of the ranks of a launcher, or alone if it turns out that there are no others.

    Parameters
    ----------
    call : callable
        Of no arguments; runs the command and returns its exit code.
    arguments : list of str
        Those of the command line.

    Returns
    -------
    int
        Exit code of this process.
    """
    global _asked
    from . import mpi_executor

    ranks, verb = ranks_of(os.environ), (arguments or [""])[0]
    if ranks is None or (verb in SIMULATING and ranks.launcher == "mpirun"):
        return mpi_executor.run_command(call, arguments)
    if {"-h", "--help"} & set(arguments) or verb not in TRAINING + SIMULATING:
        leave_mpi()
        return 0 if ranks.rank else call()
    if verb in SIMULATING:
        if ranks.rank:
            return 0  # a launcher ends all ranks with the first that fails, and rank 0 has something to say
        print(f"motorsweep: {_refusal(verb, ranks)}", file=sys.stderr)
        return 2
    _asked = ranks
    _be_heard(ranks.rank == 0)
    code = call()
    if _left_early:
        from .rank_session import end_process

        end_process(code)
    return 0 if ranks.rank else code  # what is wrong with study file or options is wrong on rank 0 as well


def _refusal(verb, ranks):
    return (
        f"{ranks.launcher} started {ranks.size} ranks of `motorsweep {verb}`, which would all solve the same poses. "
        "Poses are shared by the ranks of an MPI launcher (`mpirun -n N motorsweep simulate STUDY`) or by Dask's "
        "workers (`motorsweep simulate STUDY --executor slurm`, as one process); ranks of any launcher share "
        "`motorsweep encode` and `motorsweep train`."
    )


def on_all_ranks(study, lead):
    """Lead the other ranks, or serve the one that leads; without others just do it.

    Parameters
    ----------
    study : Study
    lead : callable
        Of no arguments; called on rank 0 alone, and again if elastic ranks meet again.

    Returns
    -------
    object
        What `lead` returned; None on the other ranks.

    Raises
    ------
    MotorsweepError
        Ranks could not meet, or one has died.
    KeyboardInterrupt
        A signal that any rank got.
    """
    if _asked is None:
        return lead()
    from .meeting import choose_backend

    leave_mpi()
    backend = choose_backend(os.environ.get("MOTORSWEEP_BACKEND") or "auto", _asked.elastic)
    interface = os.environ.get("MOTORSWEEP_INTERFACE", "")
    from .rank_session import RanksStopped

    share = lambda ranks: _share(ranks, study, backend, interface, lead)  # noqa: E731 - one line of wiring
    try:
        return _share_elastic(_asked, share) if _asked.elastic else share(_asked)
    except RanksStopped as stop:
        return _leave(stop)


def _share(ranks, study, backend, interface, lead):
    """Meet the others, and lead or serve them until the command has ended."""
    global _left_early
    from .meeting import meet
    from .rank_session import RankSession, is_broken, lost_text

    _be_heard(ranks.rank == 0)
    met = False
    try:
        with meet(ranks, study.ranks, backend, interface) as communicator:
            met = True
            with RankSession(communicator, study.ranks, ranks) as session:
                return _lead(session, lead) if session.rank == 0 else _serve(session)
    except MotorsweepError as error:
        _left_early = True
        if ranks.rank == 1 or (ranks.rank and not met):  # rank 0, which speaks for all, may not have come
            _say(f"motorsweep: rank {ranks.rank}: {error}")
        raise
    except Exception as error:
        if ranks.rank and not is_broken(error):
            _say(f"motorsweep: rank {ranks.rank}: {type(error).__name__}: {error}")
        if not is_broken(error) or ranks.elastic:
            raise
        _left_early = True
        raise MotorsweepError(lost_text([], ranks.launcher, str(error))) from error
    finally:
        with suppress(OSError):
            study.ranks.rmdir()  # where nothing is left in it


def _lead(session, lead):
    from .rank_session import RanksStopped, is_broken

    try:
        result = lead()
    except RanksStopped:
        raise
    except BaseException as error:
        if is_broken(error):
            session.lose(error)
        session.tell_stop("error")
        raise
    session.order(None)
    session.finish()
    return result


def _serve(session):
    from .rank_executor import serve
    from .rank_session import RanksStopped, is_broken

    try:
        serve(session)
        session.finish()
    except RanksStopped:
        raise
    except Exception as error:
        if is_broken(error):
            session.lose(error)
        session.tell_stop("error", f"rank {session.rank} failed while it served: {type(error).__name__}: {error}")
        session.check()


def _leave(stop):
    """Raise what ended the ranks, in the words of one of them."""
    global _left_early
    from .rank_session import end_process

    _left_early = True
    end = threading.Timer(_LEAVING_SECONDS, end_process, [1])  # libraries may wait for ranks that are gone
    end.daemon = True
    end.start()
    number = getattr(signal, stop.reason, None)
    if number is not None:
        handler = signal.getsignal(number)
        if callable(handler):
            handler(number, None)
        raise KeyboardInterrupt
    if stop.reason == "error" and not stop.text and stop.told_by == 0:
        end_process(0)  # rank 0 says what it was, and its exit code is the command's
    if stop.told_by != 0 and 0 in stop.lost and stop.told_by == stop.rank:
        _say(f"motorsweep: {stop.text}")
    raise MotorsweepError(stop.text or "a rank has failed; its sentence is above.")


def _share_elastic(ranks, share):
    """Share under elastic Horovod: after a death, or when hosts have come, meet again and begin anew."""
    import horovod.torch as horovod
    from horovod.common.elastic import ObjectState
    from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

    from .rank_session import RanksStopped
    from .ranks import current_session

    class Meetings(ObjectState):
        def on_hosts_updated(self, timestamp, update_res):
            super().on_hosts_updated(timestamp, update_res)
            self.tell()

        def tell(self):
            if (session := current_session()) is not None:
                session.tell_stop("hosts changed", "hosts have come or gone")
                return
            later = threading.Timer(1.0, self.tell)  # the ranks are only just meeting
            later.daemon = True
            later.start()

    @horovod.elastic.run
    def meet_again(state):
        at = {"rank": horovod.rank(), "size": horovod.size()}
        at |= {"local_rank": horovod.local_rank(), "local_size": horovod.local_size()}
        meetings.append(at)
        if len(meetings) > 1 and at["rank"] == 0:
            _be_heard(True)
            print(f"motorsweep: the ranks have met again; {at['size']} go on", file=sys.stderr, flush=True)
        try:
            return share(replace(ranks, **at))
        except RanksStopped as stop:
            if stop.reason == "rank lost":
                raise HorovodInternalError(stop.text) from stop
            if stop.reason == "hosts changed":
                raise HostsUpdatedInterrupt(False) from stop
            raise

    meetings = []
    horovod.init()
    try:
        return meet_again(Meetings(bcast_object=horovod.broadcast_object, get_rank=horovod.rank, ranks=ranks.size))
    finally:
        horovod.shutdown()


def _be_heard(audible: bool) -> None:
    """Let this process write to its terminal, or not: one rank speaks for all."""
    global _streams
    sys.stdout.flush()
    sys.stderr.flush()
    if _streams is None:
        _streams = os.dup(1), os.dup(2)
    silent = os.open(os.devnull, os.O_WRONLY)
    for number, stream in enumerate(_streams, 1):
        os.dup2(stream if audible else silent, number)
    os.close(silent)


def _say(sentence: str) -> None:
    os.write(_streams[1], f"{sentence}\n".encode())
