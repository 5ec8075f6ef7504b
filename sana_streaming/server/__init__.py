"""Live editing: sessions that many viewers share one model by, and the ways to reach them."""
