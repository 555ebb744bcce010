"""What makes the same training give the same digits, as far as the libraries allow."""

import os


def pin_instruction_set() -> None:
    """Make torch, oneDNN and MKL use AVX2 kernels, which every x86-64 machine of the last decade has.

    With wider vectors sums are ordered otherwise and the last digits differ between machines. The libraries read this
    at their first computation, so it is called before any, and worker processes inherit it; whoever sets the
    variables himself is obeyed.
    """
    for variable, value in (("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2"), ("MKL_CBWR", "AVX2")):
        os.environ.setdefault(variable, value)


def use_deterministic_kernels() -> None:
    """Make CUDA sums repeatable on one kind of GPU; kernels that have no such version warn."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def flush_denormals() -> None:
    """Make this thread's CPU take numbers below 1e-38 for zero.

    On silent padding a trained attention model meets many of them, and each costs over a hundred cycles: a training
    step of the small Whisper took 3 s instead of 0.6 s.
    """
    import torch

    torch.set_flush_denormal(True)
