"""Write the table of README.md that says what three machines do with ten models.  `python docs/named_plans.py`.

Every figure is computed by the planner from the models' shapes and the rates that `MACHINES` states; a test compares
the table with a new computation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rotary_batch.commands.named_models import STANDARD
from rotary_batch.errors import UnavailableError
from rotary_batch.model.footprint import footprint
from rotary_batch.model.known_models import BITS, KnownModel, known_models
from rotary_batch.model.memory_plan import DEFAULT_BATCH, MEMORY_SHARE, host_nbytes_for
from rotary_batch.model.memory_planner import plan_memory
from rotary_batch.model.rates import Rates
from rotary_batch.model.roofline import drain_s, steady_prefill_rows, step_roofline, tokens_per_s

README = Path(__file__).parent.parent / "README.md"
HEADING, NEXT = "## What ten models would do", "## Figures that matter"
NAMES = (
    "gpt-oss-20b",
    "qwen3-coder-30b",
    "qwen3.6-35b-a3b",
    "glm-4.7-flash",
    "mixtral-8x7b",
    "qwen3-coder-next",
    "glm-4.5-air",
    "gpt-oss-120b",
    "minimax-m2.5",
    "qwen3-235b-a22b",
)
_INTRODUCTION = """**Computed, not measured**: the least time by each model's shape and by the rates below the table.
A run approaches it and does not beat it. Each cell: new tokens a second; hours for 10,000 questions of 600 tokens with
answers of 100; what limits them; how many sequences run at once. Experts are Q4_K_M (gpt-oss: MXFP4), the rest is bf16.
`rotary-batch models` says which of the models this version opens, and computes the same for your own machine, with
rates that it measured.
"""
ROWS = (1, 8, 32, 128, 512, 2048, 8192)
BINDING = {"compute": "compute", "moving experts": "link", "reading the disk": "disk"}


class Machine(NamedTuple):
    """What a machine has, and its rates: bytes a second, and operations a second of bf16 products."""

    name: str
    device: str
    device_nbytes: float
    ram_nbytes: float
    link: float  # into device memory; on a CPU the disk
    disk: float
    memory: float  # of the device
    operations: float

    def rates(self) -> Rates:
        """As if measured: a weight takes as long as reading it or computing its rows, whichever is longer."""
        weight_s = {
            name: [(rows, max(bits / 8 / self.memory, 2 * rows / self.operations)) for rows in ROWS]
            for name, bits in {"bf16": 16, "int8": 8, "int4": BITS["Q4_K_M"]}.items()
        }
        return Rates(
            machine=self.name,
            device=self.device,
            device_memory_nbytes=int(self.device_nbytes),
            activation_nbytes=2,
            move_nbytes_per_s=self.link,
            disk_nbytes_per_s=self.disk,
            memory_nbytes_per_s=self.memory,
            attention_nbytes_per_s={"bf16": self.memory, "int8": self.memory},
            weight_s=weight_s,
            measured_at=0.0,
            probed_at=0.0,
        )


MACHINES = (
    Machine("laptop", "cuda", 8e9, 16e9, link=12e9, disk=3.5e9, memory=256e9, operations=30e12),
    Machine("workstation", "cuda", 24e9, 64e9, link=25e9, disk=6e9, memory=936e9, operations=70e12),
    Machine("no GPU", "cpu", 25e9, 25e9, link=1.7e9, disk=1.7e9, memory=10e9, operations=1.3e12),
)


def text() -> str:
    """The section of the README."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f"{HEADING}\n\n{_INTRODUCTION}"
    yield "| Model | Experts | 8 GB GPU, 16 GB RAM | 24 GB GPU, 64 GB RAM | 2 cores, 25 GB RAM |"
    yield "| --- | --- | --- | --- | --- |"
    for name in NAMES:
        model = known_models()[name]
        experts = model.manifest(model.formats[-1]).experts_nbytes
        cells = " | ".join(cell(model, machine) for machine in MACHINES)
        yield f"| `{name}` | {experts / 1e9:.0f} GB | {cells} |"
    yield ""
    rates = (
        f"{one.name}: link {one.link / 1e9:g}, disk {one.disk / 1e9:g}, memory {one.memory / 1e9:g} GB/s, "
        f"{one.operations / 1e12:g} TFLOP/s"
        for one in MACHINES
    )
    yield "Rates, as [the script](docs/named_plans.py) states them:\n"
    yield from (f"- {line}" for line in rates)


def cell(model: KnownModel, machine: Machine) -> str:
    """What a machine does with a model, in the smallest of its usual formats."""
    sizes = footprint(model.manifest(model.formats[-1]), "bf16", 2, 2, machine.device)
    rates, workload = machine.rates(), STANDARD
    device_nbytes = int(machine.device_nbytes * MEMORY_SHARE[machine.device])
    host_nbytes = host_nbytes_for(machine.device, None, int(machine.ram_nbytes), sizes.slab_nbytes)
    try:
        plan = plan_memory(sizes, device_nbytes, DEFAULT_BATCH, workload, rates, host_nbytes)
    except UnavailableError:
        return "too large"
    prefill = steady_prefill_rows(plan, workload)
    binding = step_roofline(sizes, plan, rates, plan.batch, prefill, workload.mean_context_tokens).binding
    limit = "disk" if machine.device == "cpu" and binding == "moving experts" else BINDING[binding]
    hours = drain_s(sizes, plan, rates, workload) / 3600
    speed = tokens_per_s(sizes, plan, rates, workload)
    return f"{_short(speed)} tok/s, {_short(hours)} h, {limit}, {plan.batch}"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


if __name__ == "__main__":
    whole = README.read_text(encoding="utf-8")
    before = whole[: whole.index(HEADING if HEADING in whole else NEXT)]
    README.write_text(f"{before}{text()}\n{whole[whole.index(NEXT) :]}", encoding="utf-8")
