"""Who may come in: keys of programs, sessions of people, single sign-on, and how often."""
