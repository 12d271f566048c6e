"""`genapps results`: the tables of every app, made from its cells."""
