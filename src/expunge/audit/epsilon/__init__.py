"""Audits of a claimed ε: games whose outcome bounds it from below, and a verdict on the claim.

one_run      one model, many coins (Steinke, Nasr & Jagielski 2023): arrays in, bounds out
populations  many models, two worlds (Clopper-Pearson): arrays in, counts out
claims       what a certificate promises for a game, and whether the counts refute it
canaries     records made to be remembered
observe      what an auditor sees of a released model, at each access level
games        plays a game of two worlds against any learner
coins        plays the game in one run
command      `expunge audit epsilon RUN`

An audit can refute a claim. It cannot confirm one: a small observed bound may mean a private learner or a weak attack.
"""
