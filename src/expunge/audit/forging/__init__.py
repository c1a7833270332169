"""Forging a training log: batches without a row that lead to (nearly) the same weights as the batches with it.

Thudi, Jia, Shumailov & Papernot, *On the Necessity of Auditable Algorithmic Definitions for Machine Unlearning*, USENIX
Security 2022, 2110.11891. See docs/forging.md: what follows from it for certificates, and what an audit can establish.
"""
