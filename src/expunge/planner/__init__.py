"""Which form of forgetting serves a request: by guarantee, deadline, measured cost, attackers and difficulty."""
