"""evo-sdpa: the machine behind the Snakefile. Data flows one way: config -> build -> evidence -> gap -> page."""
