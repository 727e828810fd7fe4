"""The command line. One module per group of commands; `main` loads them when they are called."""
