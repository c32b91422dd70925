"""3D networks with residual attention over clips."""
