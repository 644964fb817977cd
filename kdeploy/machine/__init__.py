"""What this machine is: processor, instruction sets, memory, versions; `doctor` says what that means for kdeploy."""

from kdeploy.machine.host import cores, fingerprint, free_memory_bytes, instruction_sets, memory_bytes

__all__ = ["cores", "fingerprint", "free_memory_bytes", "instruction_sets", "memory_bytes"]
