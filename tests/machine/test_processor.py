"""`/proc/cpuinfo` recorded on an x86 server (shortened), and in the form that Raspberry Pi kernels print it."""

import re

from kdeploy.machine.processor import parse_cpuinfo

X86_VNNI = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 17
model name	: AMD EPYC
flags		: fpu sse2 nx fma avx f16c hypervisor bmi1 avx2 avx512f avx512dq avx512_bf16 avx512_vnni rdpid fsrm
bogomips	: 5192.28

processor	: 1
vendor_id	: AuthenticAMD
model name	: AMD EPYC
flags		: fpu sse2 nx fma avx f16c hypervisor bmi1 avx2 avx512f avx512dq avx512_bf16 avx512_vnni rdpid fsrm
bogomips	: 5192.28
"""

PI_4 = "\n".join(
    f"""\
processor	: {core}
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3
"""
    for core in range(4)
) + ("\nHardware	: BCM2835\nRevision	: c03111\nModel		: Raspberry Pi 4 Model B Rev 1.1\n")

PI_5 = """\
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1

Model		: Raspberry Pi 5 Model B Rev 1.0
"""

# Two kinds of core; the small ones lack the dot product, so that no thread may rely on it.
BIG_LITTLE = """\
processor	: 0
Features	: fp asimd
CPU implementer	: 0x41
CPU part	: 0xd03

processor	: 1
Features	: fp asimd asimddp
CPU implementer	: 0x41
CPU part	: 0xd0b
"""


def test_x86_with_vnni():
    processor = parse_cpuinfo(X86_VNNI)
    assert processor.model == "AMD EPYC"
    assert processor.instruction_sets == {"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}
    assert processor.virtual
    assert processor.family == "x86"
    assert processor.board is None


def test_raspberry_pi_4_has_neon_without_dot_product():
    processor = parse_cpuinfo(PI_4)
    assert processor.model == "Cortex-A72"
    assert processor.board == "Raspberry Pi 4 Model B Rev 1.1"
    assert processor.instruction_sets == {"asimd"}
    assert processor.family == "arm"
    assert not processor.virtual


def test_raspberry_pi_5_has_the_dot_product():
    processor = parse_cpuinfo(PI_5)
    assert processor.model == "Cortex-A76"
    assert processor.instruction_sets == {"asimd", "asimddp"}


def test_only_what_every_core_has_counts():
    processor = parse_cpuinfo(BIG_LITTLE)
    assert processor.model == "Cortex-A53 + Cortex-A76"
    assert processor.instruction_sets == {"asimd"}


def test_whole_words_only():
    assert parse_cpuinfo("flags : avx2x xavx512f avx512_vnni2").instruction_sets == frozenset()


def test_unknown_arm_core_keeps_its_numbers():
    assert parse_cpuinfo(re.sub("0xd0b", "0xfff", PI_5)).model == "arm 0x41:0xfff"


def test_nothing_readable():
    processor = parse_cpuinfo("")
    assert (processor.model, processor.instruction_sets, processor.family) == ("unknown", frozenset(), None)
