"""What other programs need, read from real files in the formats of Linux, and from a real library with made-up cards."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rotary_batch.commands.pace import within_free
from rotary_batch.machine.card_use import SETTLED_S, CardGuests, CardRoom
from rotary_batch.machine.need import Need
from rotary_batch.machine.nvml import Card, CardMemory, open_card
from rotary_batch.machine.pressure import Memory, Processors, waits
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.testing import FrozenClock

GB = 10**9


class Proc:
    """The files of /proc that are read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pressure").mkdir()
        self.own_s = 0.0
        self.waits(cpu=0.0, memory=0.0)
        self.ticks(user=0, idle=0)

    def waits(self, **percents: float) -> None:
        for name, percent in percents.items():
            lines = f"some avg10={percent:.2f} avg60=9.00 avg300=9.00 total=1\nfull avg10=9.00 avg60=9.00\n"
            (self.folder / "pressure" / name).write_text(lines)

    def ticks(self, *, user: int, idle: int, stolen: int = 0, nice: int = 0) -> None:
        text = f"cpu  {user} {nice} 0 {idle} 0 0 0 {stolen} 50000 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
        (self.folder / "stat").write_text(text)


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


def test_pressure_is_read_where_linux_tells_it(proc, tmp_path):
    proc.waits(cpu=12.5)
    assert (waits("cpu", tmp_path), waits("memory", tmp_path)) == (0.125, 0.0)
    (tmp_path / "pressure" / "cpu").write_text("not supported\n")
    (tmp_path / "pressure" / "memory").unlink()
    assert (waits("cpu", tmp_path), waits("memory", tmp_path)) == (None, None)
    assert (Processors(tmp_path)(), Memory(tmp_path)()) == (None, None)


def test_processors_are_needed_when_tasks_wait_and_others_use_them(proc, tmp_path):
    per_s = os.sysconf("SC_CLK_TCK")
    source = Processors(tmp_path, own_s=lambda: proc.own_s)

    def look(*, user_s: int, idle_s: int, own_s: float, waited: float) -> Need | None:
        look.user, look.idle = look.user + user_s * per_s, look.idle + idle_s * per_s
        proc.ticks(user=look.user, idle=look.idle)
        proc.own_s += own_s
        proc.waits(cpu=waited)
        return source()

    look.user = look.idle = 0
    own = look(user_s=10, idle_s=0, own_s=10, waited=90)  # all by this process: its own threads wait for each other
    others = look(user_s=8, idle_s=2, own_s=0.5, waited=60)
    calm = look(user_s=8, idle_s=2, own_s=0, waited=4)  # they use them, and nobody waits
    assert own == Need("processors", 0.0, "other programs use 0 % of the processors")
    assert others == Need("processors", pytest.approx(1.5), "other programs use 75 % of the processors")
    assert calm == Need("processors", pytest.approx(0.1), "other programs use 80 % of the processors")
    assert look(user_s=0, idle_s=0, own_s=0, waited=90) is None  # hardly any time has gone by


@pytest.mark.parametrize(("niceness", "pressure"), [(0, 0.0), (19, 2.0)])
def test_programs_of_a_lower_priority_need_nothing(proc, tmp_path, niceness, pressure):
    source = Processors(tmp_path, own_s=lambda: 0.0, niceness=lambda: niceness)
    proc.waits(cpu=80.0)
    proc.ticks(user=0, idle=0, nice=10 * os.sysconf("SC_CLK_TCK"))
    need = source()
    assert need is not None
    assert need.pressure == pressure


def test_memory_is_needed_when_tasks_wait_and_little_is_free(proc, tmp_path):
    free = [GB]
    source = Memory(tmp_path, free=lambda: free[0], allowed=lambda: 20 * GB)
    proc.waits(memory=30.0)
    assert source() == Need("memory", 2.0, "other programs need memory, and 1.0 GB are free", frees=True)
    free[0] = 16 * GB  # the model is read through the page cache: that waits too, and is no need of others
    assert source().pressure == 0.125
    free[0] = GB
    proc.waits(memory=0.0)
    assert source().pressure == 0.0


class Driver:
    """A card, as the file of the made-up library tells it."""

    def __init__(self, library: Path, file: Path) -> None:
        self.library, self.file = library, file

    def tell(self, free_gb: float, energy_mj: int = 0, **used: int) -> None:
        pids = {"own": os.getpid(), "game": 77, "desktop": 78}
        processes = " ".join(f"{pids[name]} {nbytes}" for name, nbytes in used.items())
        self.file.write_text(f"{20 * GB} {int(free_gb * GB)} {energy_mj} {processes}\n")

    def open(self, device: str = "cuda:1", **environment: str) -> Card | None:
        return open_card(device, environment, str(self.library))


@pytest.fixture(scope="module")
def nvml_library(tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, Path(__file__).parent / "nvml.c"], check=True)
    return library


@pytest.fixture
def driver(nvml_library, tmp_path, monkeypatch) -> Driver:
    driver = Driver(nvml_library, tmp_path / "card")
    monkeypatch.setenv("FAKE_NVML", str(driver.file))
    return driver


def test_a_card_tells_its_memory_its_other_users_and_its_energy(driver):
    assert driver.open() is None  # the driver does not answer
    driver.tell(3, energy_mj=1500, own=9 * GB, game=2 * GB, desktop=GB)
    card = driver.open()
    assert card is not None
    assert (card.memory(), card.others_nbytes(), card.energy_j()) == (CardMemory(20 * GB, 3 * GB), 3 * GB, 1.5)
    driver.tell(3, own=9 * GB, game=2**64 - 1)  # as in a container: not told
    assert card.others_nbytes() is None
    driver.file.write_text("")
    assert (card.memory(), card.energy_j()) == (None, None)


def test_a_card_is_found_as_cuda_counts_them(driver):
    driver.tell(3)
    found = [
        driver.open("cpu"),
        driver.open("cuda"),  # number 0, which is not there
        driver.open("cuda:1"),
        driver.open("cuda", CUDA_VISIBLE_DEVICES="1"),
        driver.open("cuda:1", CUDA_VISIBLE_DEVICES="0, GPU-7"),
        driver.open("cuda:2", CUDA_VISIBLE_DEVICES="0,1"),
        driver.open("cuda", CUDA_VISIBLE_DEVICES=""),
        open_card("cuda", {}, "no-such-library.so"),
    ]
    assert [card is not None for card in found] == [False, False, True, True, True, False, False, False]


def test_others_need_the_card_when_hardly_any_memory_is_free_or_they_took_some(driver):
    clock = FrozenClock()
    driver.tell(1.6, own=17 * GB, desktop=GB)
    card = driver.open()
    room, guests = CardRoom(card), CardGuests(card, clock)
    assert (room(), guests()) == (
        Need("card", pytest.approx(0.25), "1.6 GB of the card's memory are free for other programs", frees=True),
        Need("card", 0.0, "other programs took 0.0 MB of the card's memory"),
    )
    driver.tell(0.3, own=17 * GB, desktop=GB, game=int(1.3 * GB))
    assert (room().pressure, guests()) == (
        pytest.approx(4 / 3),
        Need("card", pytest.approx(1.625), "other programs took 1.3 GB of the card's memory"),
    )
    clock.now += SETTLED_S  # it was left open
    assert guests().pressure > 1
    clock.now += 1
    assert guests().pressure == 0


def test_an_engine_that_opens_again_leaves_others_what_they_have(driver):
    driver.tell(10)
    card, asked = driver.open(), EngineOptions(device="cuda:1")
    assert within_free(asked, card).device_memory == 9 * GB
    assert within_free(EngineOptions(device_memory=GB), card).device_memory == GB
    assert within_free(asked, None) == asked
