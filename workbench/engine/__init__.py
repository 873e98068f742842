"""The one training engine: megatron-core on CUDA with NCCL and on CPU with gloo. Nothing outside this folder imports megatron."""

import warnings

# megatron-core says at each import that it falls back to torch where Apex or Transformer Engine is missing: `workbench doctor` tells that once.
warnings.filterwarnings("ignore", message=".*(Apex|Transformer Engine).*", category=UserWarning)
warnings.filterwarnings("ignore", message="full scope is deprecated", category=UserWarning)
warnings.filterwarnings("ignore", category=DeprecationWarning, module="megatron.*")
