"""Certified: learners whose outcome is bounded by (ε, δ). A learner a file."""
