"""What happens to optimizer state over a project's life: a change of routing, of optimizer, of version."""
