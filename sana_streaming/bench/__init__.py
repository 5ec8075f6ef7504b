"""How fast a model is on a machine, and where the time goes."""
