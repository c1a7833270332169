"""What a guarantee of (ε, δ) costs and how much of it is left: mechanisms, composition, groups, policies."""
