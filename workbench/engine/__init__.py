"""The one training engine: megatron-core on CUDA with NCCL and on CPU with gloo. Nothing outside this folder imports megatron."""
