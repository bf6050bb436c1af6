"""LoRA requests."""
