"""The diagnostics: a file here with a ``@diagnostic`` adds it to ``measure``, tables and documentation."""
