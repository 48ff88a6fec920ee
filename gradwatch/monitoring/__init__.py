"""What watches the service: generators of the files in `dashboards/`.

Made from families, rules and one table of thresholds; `gradwatch monitoring
build` writes them. Needs the extra `[monitoring]` (PyYAML). Must not import
keras, tensorflow, the trainer's side or the service.
"""
