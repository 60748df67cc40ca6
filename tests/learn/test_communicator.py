import sys

import numpy as np
import pytest
import torch
from motorsweep.errors import ConvergenceError, InputError, MissingPackageError
from motorsweep.learn.communicator import Communicator, open_communicator

SIZES = (1, 2, 3, 7, 1000, 115_970)

PROGRAM = f"""
import torch
from motorsweep.errors import ConvergenceError

class Odd(ArithmeticError):
    def __init__(self, one, two):
        super().__init__(f"{{one}} and {{two}}")

def raised(action):
    try:
        action()
    except Exception as error:
        return [type(error).__name__, str(error)]

def fail(communicator, rank, error):
    with communicator.together():
        if communicator.rank == rank:
            raise error

def main(communicator, folder):
    rank, size, told = communicator.rank, communicator.size, {{}}
    torch.manual_seed(rank)
    for dtype in (torch.float32, torch.float64):
        told[f"own {{dtype}}"] = [torch.randn(n, dtype=dtype) * 10.0**torch.randint(-6, 6, (n,)) for n in {SIZES}]
        told[f"sum {{dtype}}"] = [communicator.allreduce(each) for each in told[f"own {{dtype}}"]]
    told["counts"] = communicator.allreduce(torch.tensor([rank, 2**40]))
    told["one number"] = communicator.allreduce(torch.tensor(float(rank)))
    told["nothing"] = communicator.allreduce(torch.zeros(0, 3))
    strided = torch.arange(6.0).reshape(2, 3).T
    told["strided"] = communicator.allreduce(strided)
    told["kept"] = strided
    told["object"] = communicator.broadcast({{"from": rank, "text": "é"}} if rank == size - 1 else None, root=size - 1)
    told["tensor"] = communicator.broadcast(torch.full((2, 2), float(rank)) if rank == 0 else None)
    told["gathered"] = communicator.gather(["rank", rank], root=1)
    told["to rank 0"] = communicator.gather("x" * rank)
    communicator.barrier()
    told["none fails"] = raised(lambda: fail(communicator, -1, None))
    told["one fails"] = raised(lambda: fail(communicator, 1, ConvergenceError("the loss became nan")))
    told["cannot be sent"] = raised(lambda: fail(communicator, size - 1, Odd(1, 2)))
    told["all fail"] = raised(lambda: communicator.raise_first(KeyError(rank)))
    told["name"], told["rank"] = communicator.name, rank
    return told
"""


def check(answers, kind):
    size = len(answers)
    for rank, told in enumerate(answers):
        assert (told["name"], told["rank"]) == (kind, rank)
        for dtype, bound in ((torch.float32, 1e-6), (torch.float64, 1e-15)):
            for k in range(len(SIZES)):
                total = told[f"sum {dtype}"][k]
                assert total.dtype == dtype
                assert torch.equal(total, answers[0][f"sum {dtype}"][k])
                parts = torch.stack([each[f"own {dtype}"][k] for each in answers]).double()
                deviation = (total.double() - parts.sum(0)).abs() / parts.abs().sum(0)
                assert deviation.max() < bound
        assert told["counts"].tolist() == [size * (size - 1) // 2, size * 2**40]
        assert told["one number"] == size * (size - 1) / 2 and told["one number"].shape == ()
        assert told["nothing"].shape == (0, 3)
        assert torch.equal(told["strided"], size * told["kept"])
        assert torch.equal(told["kept"], torch.arange(6.0).reshape(2, 3).T)
        assert told["object"] == {"from": size - 1, "text": "é"}
        assert torch.equal(told["tensor"], torch.zeros(2, 2))
        assert told["gathered"] == ([["rank", r] for r in range(size)] if rank == 1 else None)
        assert told["to rank 0"] == (["x" * r for r in range(size)] if rank == 0 else None)
        assert told["none fails"] is None
        assert told["one fails"] == ["ConvergenceError", "the loss became nan"]
        # the rank that failed has its own error; the others one that says the same
        assert told["cannot be sent"] == (["Odd", "1 and 2"] if rank == size - 1 else ["RuntimeError", "Odd: 1 and 2"])
        assert told["all fail"] == ["KeyError", "0"]


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_of_torch(on_ranks, size):
    check(on_ranks("torch", size, PROGRAM), "torch")


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_of_horovod(on_ranks, size):
    check(on_ranks("horovod", size, PROGRAM), "horovod")


def test_a_process_alone():
    with open_communicator("serial", rank=0, size=1) as communicator:
        tensor = torch.tensor([1.0, 2.0], requires_grad=True)
        total = communicator.allreduce(tensor)
        assert torch.equal(total, tensor) and not total.requires_grad
        assert total.data_ptr() != tensor.data_ptr()
        assert communicator.broadcast("x") == "x" and communicator.gather(3) == [3]
        assert (communicator.name, communicator.rank, communicator.size) == ("serial", 0, 1)
        with pytest.raises(ConvergenceError, match=r"^no$"), communicator.together():
            raise ConvergenceError("no")
        with pytest.raises(KeyboardInterrupt), communicator.together():
            raise KeyboardInterrupt


@pytest.mark.parametrize(("rows", "size"), [(7, 3), (32, 3), (2, 3), (0, 2), (5, 1)])
def test_shares_are_the_rows_in_order(rows, size):
    shares = [Communicator(rank, size).share(np.arange(rows) * 10) for rank in range(size)]
    assert np.concatenate(shares).tolist() == [10 * row for row in range(rows)]
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1 and lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    ("kind", "where", "told"),
    [
        ("mpi", {"rank": 0, "size": 1}, "'mpi' is not known; choose from serial, horovod, torch"),
        ("serial", {"rank": 0, "size": 2}, "for one process, and there are 2"),
        ("torch", {"rank": 2, "size": 2, "address": "x:1"}, "rank 2 of 2"),
        ("torch", {"rank": 0, "size": 2}, "needs an address"),
    ],
)
def test_what_cannot_be_is_refused(kind, where, told):
    with pytest.raises(InputError, match=told), open_communicator(kind, **where):
        pass


def test_horovod_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod.torch", None)
    monkeypatch.setitem(sys.modules, "horovod", None)
    with (
        pytest.raises(MissingPackageError, match=r"pip install .*cluster"),
        open_communicator("horovod", rank=0, size=2, local_size=2),
    ):
        pass
