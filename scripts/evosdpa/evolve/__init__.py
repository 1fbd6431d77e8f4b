"""The EvoEngineer loop: propose children, drop what cannot be good, measure the best together, keep the elites, learn which levers paid."""
