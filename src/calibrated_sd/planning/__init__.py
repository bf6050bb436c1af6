"""What a run will take before it is started: steps, tokens and memory per GPU, from settings and a model configuration."""
