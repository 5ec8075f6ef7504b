"""Commands of `sana-streaming`, one file each: add_arguments(parser) and run(args) -> exit code."""
