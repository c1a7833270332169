"""What a guarantee of (ε, δ) costs and how much of it is left.

`ledger` (start there), `charges` (the facts), `gaussian` (the analytic Gaussian mechanism), `loss` and `renyi` (the
accountants' curves), `groups` (k records at once), `notion` (removal only), `growth` (ε over requests), `policy`
(what is enough, and what an attacker could still do).
"""
