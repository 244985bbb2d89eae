"""Devices that a study can be planned for without having one: what their vendor's data sheets say of them.

The figures are peaks. No program reaches them, and demur was not measured on any of these devices. So a time that is computed
from them is an order of magnitude. Rates of float16 and bfloat16 are those of dense matrices; data sheets often state twice as
much, for sparse ones. Rates of float32 are those without TF32, which torch does not use unless it is told to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demur.study.throughput import Rates


@dataclass(frozen=True)
class DataSheet:
    """A device as its vendor describes it.

    Attributes:
        title: the vendor's name of it.
        gigabytes: its memory in GB (10^9 bytes).
        float32: operations of float32 matrix products in TFLOP/s.
        half: the same in bfloat16 and float16.
        bandwidth: bytes that are read from its memory or written to it in a second, in GB/s.
        source: where the figures are published.
    """

    title: str
    gigabytes: int
    float32: float
    half: float
    bandwidth: int
    source: str

    @property
    def memory(self) -> int:
        """Its memory in bytes. A driver and torch take some of it for themselves."""
        return self.gigabytes * 10**9

    def operations(self, dtype: str) -> float:
        """Operations of matrix products in a second."""
        return 1e12 * (self.float32 if dtype == "float32" else self.half)

    def rates(self, dtype: str) -> "Rates":
        """Its peaks, in the form in which the speed of this machine is measured."""
        from demur.study.throughput import Rates  # imports torch

        return Rates(self.operations(dtype), 1e9 * self.bandwidth)


DATA_SHEETS: Mapping[str, DataSheet] = {
    "a10": DataSheet("NVIDIA A10", 24, 31.2, 125.0, 600, "NVIDIA A10 data sheet"),
    "a100": DataSheet("NVIDIA A100 SXM 80 GB", 80, 19.5, 312.0, 2039, "NVIDIA A100 data sheet"),
    "a100-40gb": DataSheet("NVIDIA A100 SXM 40 GB", 40, 19.5, 312.0, 1555, "NVIDIA A100 data sheet"),
    "h100": DataSheet("NVIDIA H100 SXM", 80, 67.0, 989.0, 3350, "NVIDIA H100 data sheet"),
    "h100-pcie": DataSheet("NVIDIA H100 PCIe", 80, 51.0, 756.0, 2000, "NVIDIA H100 data sheet"),
    "h200": DataSheet("NVIDIA H200 SXM", 141, 67.0, 989.0, 4800, "NVIDIA H200 data sheet"),
    "l4": DataSheet("NVIDIA L4", 24, 30.3, 121.0, 300, "NVIDIA L4 data sheet"),
    "l40s": DataSheet("NVIDIA L40S", 48, 91.6, 362.0, 864, "NVIDIA L40S data sheet"),
    "rtx-4090": DataSheet("NVIDIA GeForce RTX 4090", 24, 82.6, 165.2, 1008, "NVIDIA Ada GPU architecture white paper"),
}
"""The devices by the names that `demur plan --device` takes."""
