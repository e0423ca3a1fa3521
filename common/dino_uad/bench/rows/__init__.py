"""One module per group of rows; each row is a function from :class:`~dino_uad.bench.settings.Settings` to a row."""
