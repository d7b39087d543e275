"""How far apart several restorations of one face lie: what the model knows, and where it guesses."""
