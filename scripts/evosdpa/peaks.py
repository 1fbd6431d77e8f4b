"""What architectures and devices can do at most: the one home of these rates. A device that is not here has no ceiling on the page."""

from __future__ import annotations

from dataclasses import dataclass

FMA_FLOPS = {"sm_80": 128, "sm_86": 256, "sm_89": 256, "sm_90": 256}
"""fp32 operations a cycle and SM on the CUDA cores (CUDA C++ Programming Guide, throughput of native arithmetic: 64 or 128 FMAs)."""
MATRIX_FLOPS = {"sm_80": 2048, "sm_86": 1024, "sm_89": 1024, "sm_90": 4096}
"""Dense fp16 or bf16 operations a cycle and SM on the tensor cores (NVIDIA's architecture papers; sm_90: 989 TFLOP/s on 132 SMs)."""


@dataclass(frozen=True)
class Peaks:
    """Rates of one device. Those per clock hold at every SM clock; the datasheet's hold at its boost clock."""

    sms: int
    boost_mhz: float
    """SM clock at which the datasheet states its TFLOP/s."""
    half_tflops: float
    """Dense fp16 and bf16 on the tensor cores at that clock, 1e12 operations a second."""
    dram_tb_s: float
    """Memory bandwidth, 1e12 bytes a second."""
    exps_per_clock_sm: float
    """Results of the special-function unit per clock and SM."""
    source: str

    def flops_us(self, flops: float, mhz: float) -> float:
        """Microseconds for so many operations at the tensor cores' full rate, all SMs busy."""
        return flops / (self.half_tflops * 1e6 * mhz / self.boost_mhz)

    def exps_us(self, exps: float, mhz: float) -> float:
        """Microseconds for so many exponentials at the special-function units' full rate, all SMs busy."""
        return exps / (self.exps_per_clock_sm * self.sms * mhz)

    def tensor_tflops(self, mhz: float) -> float:
        """The tensor cores' peak at an SM clock, 1e12 operations a second."""
        return self.half_tflops * mhz / self.boost_mhz

    def exp_tflops(self, flops_per_exp: float, mhz: float) -> float:
        """Useful 1e12 operations a second at which the special-function units are saturated."""
        return flops_per_exp * self.exps_per_clock_sm * self.sms * mhz / 1e6


DEVICES = {
    "nvidia-h100-80gb-hbm3": Peaks(
        sms=132, boost_mhz=1830, half_tflops=989.4, dram_tb_s=3.35, exps_per_clock_sm=16,
        source="NVIDIA H100 datasheet (SXM, dense) and architecture white paper (132 SMs, 1830 MHz); "
               "CUDA C++ Programming Guide, throughput of native arithmetic instructions (16 special functions per clock and SM)"),
    "nvidia-h200": Peaks(
        sms=132, boost_mhz=1830, half_tflops=989.4, dram_tb_s=4.8, exps_per_clock_sm=16,
        source="NVIDIA H200 datasheet (SXM, dense) and H100 architecture white paper (132 SMs, 1830 MHz); "
               "CUDA C++ Programming Guide, throughput of native arithmetic instructions (16 special functions per clock and SM)"),
}
"""989.4 TFLOP/s = 132 SMs x 4096 operations per clock x 1.83 GHz."""
