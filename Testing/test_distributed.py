"""Two real processes, started by torchrun, against one with the same global batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes
from project_tree import ROOT
from tiny_training import one_thread  # noqa: F401
from torch import distributed as torch_distributed
from torch import nn

from NeuraxisLib.errors import InputError, WorkerError
from Training import distributed
from Training.losses import LOSSES
from Training.sync_batchnorm import GlobalBatchNorm, _Normalise, synchronise

SCRIPT = Path(two_processes.__file__)
PATHS = [ROOT / "Neuraxis", ROOT / "HemorrhageSeg", ROOT, ROOT / "Testing"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS)), "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.skipif(
    not (torch_distributed.is_available() and torch_distributed.is_gloo_available()), reason="this torch has no gloo"
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What the two processes found, in order of rank."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(SCRIPT), str(folder)], env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def off(found: dict, reference: dict, kind: str = "gradient") -> float:
    """Relative distance of all gradients (or buffers) together."""
    names = [name for name in reference if name.startswith(kind)]
    one, other = (torch.cat([d[name].flatten().double() for name in names]) for d in (found, reference))
    return float((one - other).norm() / other.norm())


# -- the same gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_have_the_gradient_of_one(ranks, loss):
    """On shares of 3 and 4 samples, of which only the second has slice labels, through BatchNorm."""
    one = two_processes.fitted(loss)
    for rank in ranks:
        two = rank["losses"][loss]
        assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=1e-6)
        assert off(two, one) < (1e-12 if LOSSES[loss].of_paths else 1e-5)
        assert off(two, one, "buffer") < 1e-6  # running averages of the whole batch
    assert all(torch.equal(ranks[0]["losses"][loss][name], ranks[1]["losses"][loss][name]) for name in one)


@pytest.mark.parametrize("way", ["naive", "naive dice", "naive norm"])
def test_the_naive_way_has_another_gradient(ranks, way):
    """A Dice per process, a BatchNorm per process, or both: 15 to 30 % off on this batch."""
    assert off(ranks[0][way], two_processes.fitted("dice_bce")) > 0.1


def test_training_in_two_processes_is_training_in_one(ranks):
    one = two_processes.trained()
    for name, value in ranks[0]["trained"].items():
        assert torch.equal(value, ranks[1]["trained"][name])
        assert torch.allclose(value, one[name], rtol=1e-5, atol=1e-6)


# -- what processes tell each other ----------------------------------------------------------------------------------


def test_small_exchanges(ranks):
    for number, rank in enumerate(ranks):
        found = rank["exchanged"]
        assert (found["rank"], found["world"], found["first"]) == (number, 2, number == 0)
        assert (found["anywhere"], found["nowhere"]) == (True, False)
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert found["shard"] == [[0, 1, 2], [3, 4, 5, 6]][number]
        assert found["unused"] == [[[1.0, 1.0]], [[0.5, 0.5]], None]
        assert found["equal"] == [[0.0, 0.0], [5.0, 5.0]]
        assert rank["made"] == "by 0"


def test_a_fault_in_one_process_is_told_by_both_with_its_cases(ranks):
    for rank in ranks:
        good, spoilt, empty, small = rank["messages"]
        assert good == ""
        assert spoilt == "The batch holds values that are no finite numbers (cases: case-4); repair or leave out."
        assert empty.startswith("The batch is empty (cases: case-")
        assert small.startswith("A batch of 1 is too small for 2 processes;")


@pytest.mark.slow
def test_a_process_that_dies_or_hangs_ends_the_others_with_a_sentence():
    started = {way: [start(way, rank, port) for rank in (1, 0)] for way, port in zip(("dies", "hangs"), free_ports())}
    try:
        for way, reason in (("dies", "the connection broke"), ("hangs", "no answer from 1")):
            code = started[way][1].wait(timeout=120)
            said = started[way][1].stderr.read().strip().splitlines()[-1]
            assert said.startswith(f"Process 0 of 2 lost the others ({reason});") and said.endswith(".")
            assert code == 1
    finally:
        for process in (p for pair in started.values() for p in pair):
            process.kill()
            process.communicate()


def free_ports() -> list[int]:
    """Two ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start(way: str, rank: int, port: int) -> subprocess.Popen:
    """One of two processes, as torchrun would start it."""
    told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(SCRIPT), f"--{way}"]
    return subprocess.Popen(command, env={**ENVIRONMENT, **told, **address}, stderr=subprocess.PIPE, text=True)


# -- alone -----------------------------------------------------------------------------------------------------------


def test_alone_everything_is_there_and_does_nothing(monkeypatch):
    for name in distributed.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with distributed.processes("cpu") as device:
        assert device == torch.device("cpu") and not distributed.is_started()
        assert (distributed.rank(), distributed.world_size(), distributed.is_first()) == (0, 1, True)
        assert distributed.shard(5) == range(5)
        sums = torch.ones(2, requires_grad=True)
        assert distributed.total(sums) is sums
        assert distributed.anywhere(True) and not distributed.anywhere(False)
        assert distributed.gathered("a") == ["a"]
        network = nn.Sequential(nn.BatchNorm1d(3))
        assert synchronise(network) is network and type(network[0]) is nn.BatchNorm1d
        distributed.average_gradients(network)
        with distributed.first_process_first():
            pass


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in zip(distributed.VARIABLES, ("1", "2", "1", "127.0.0.1", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="one process per GPU"), distributed.processes("cuda"):
        pass


def test_faults_of_the_run_itself_pass_through(monkeypatch):
    monkeypatch.setattr(distributed, "_own_device", lambda device: torch.device("cpu"))
    for name, value in zip(distributed.VARIABLES, ("0", "1", "0", "127.0.0.1", str(free_ports()[0]))):
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="shapes") as error, distributed.processes("cpu"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not isinstance(error.value, WorkerError) and not distributed.is_started()


# -- BatchNorm by itself ---------------------------------------------------------------------------------------------


@pytest.fixture
def alone():
    """A group of one process, so that the exchanges of the BatchNorm's own code run."""
    torch_distributed.init_process_group("gloo", store=torch_distributed.HashStore(), rank=0, world_size=1)
    yield
    torch_distributed.destroy_process_group()


@pytest.mark.parametrize("shape", [(9, 4), (3, 4, 7), (3, 4, 6, 5), (2, 4, 3, 5, 4)])
def test_batchnorm_is_torch_s(alone, shape):
    torch.manual_seed(0)
    x = (torch.randn(shape, dtype=torch.float64) * 3 + 1000).requires_grad_()
    weight, bias = (torch.rand(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours, mean, variance, count = _Normalise.apply(x, weight, bias, 1e-3)
    expected = nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3)
    assert torch.allclose(ours, expected, rtol=1e-10, atol=1e-10)
    assert float(count) == x.numel() / 4 and torch.allclose(mean, x.transpose(0, 1).flatten(1).mean(1))
    assert torch.allclose(variance, x.transpose(0, 1).flatten(1).var(1, unbiased=False))
    pull = torch.randn_like(ours)
    for one, other in zip(*(torch.autograd.grad(out, (x, weight, bias), pull) for out in (ours, expected))):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-9)


def test_batchnorm_without_weights_and_in_half_precision(alone):
    x = torch.randn(4, 3, 5, 5)
    plain = _Normalise.apply(x, None, None, 1e-5)[0]
    assert torch.allclose(plain, nn.functional.batch_norm(x, None, None, training=True), atol=1e-5)
    half = _Normalise.apply(x.bfloat16(), torch.ones(3), torch.zeros(3), 1e-5)[0]
    assert half.dtype == torch.bfloat16 and (half.float() - plain).abs().max() < 0.05
    with pytest.raises(ValueError, match="more than one value"):
        _Normalise.apply(torch.ones(1, 3), None, None, 1e-5)


def test_converted_batchnorm_keeps_names_weights_and_mode(monkeypatch):
    monkeypatch.setattr("Training.sync_batchnorm.world_size", lambda: 2)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2, eps=1e-3, momentum=0.01)))
    network.eval()
    parameters, state, x = list(network.parameters()), network.state_dict(), torch.rand(2, 1, 3, 3)
    expected = network(x)
    made = synchronise(network)
    assert isinstance(made[1][0], GlobalBatchNorm) and (made[1][0].eps, made[1][0].momentum) == (1e-3, 0.01)
    assert all(one is other for one, other in zip(made.parameters(), parameters))
    assert list(made.state_dict()) == list(state)
    assert not made[1][0].training and torch.equal(made(x), expected)
    assert isinstance(synchronise(nn.BatchNorm3d(2, affine=False)), GlobalBatchNorm)
