"""What a context does to a model, measured outside of training: forced traces (`csd probe`) and samples (`csd ladder`)."""
